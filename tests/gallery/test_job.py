"""The job writes a page for each loss, keeps what is up to date, and says what is missing."""

import json
import re

import numpy as np
import pytest

from dmlbench.datasets.store.part import Part
from dmlbench.gallery.job import gallery_job
from dmlbench.leaderboard.made_of import read_made_of
from dmlbench.planning.pending import find_pending
from dmlbench.study.study import check_study
from dmlbench.utils.errors import StudyError

GROUP = "letters/tiny"
LOSSES = ("normalized_softmax", "proxy_anchor")


@pytest.fixture
def draw(data_folder):
    return lambda study: gallery_job(study, GROUP, data_folder / "stores")


def data_of(page, name):
    found = re.search(rf'id="{name}-data">(.*?)</script>', page.read_text("utf-8"), re.DOTALL)
    return json.loads(found[1])


def test_each_loss_has_a_page_and_no_control_has_one(drawn, draw):
    draw(drawn)
    files = drawn.files.gallery(GROUP)
    names = {path.name for path in files.folder.iterdir()}
    assert names == {*(f"{loss}.html" for loss in LOSSES), "thumbnails.webp", "made.json"}
    page = files.page(LOSSES[0]).read_text("utf-8")
    scored = drawn.files.run(f"{GROUP}/{LOSSES[0]}/seed0").load_metrics()
    recall = next(row["value"] for row in scored["metrics"] if row["metric"] == "recall@1")
    assert f"The nearest image is right for {100 * recall:.2f} % of the queries." in page
    assert "Failures, the most certain first" in page
    assert "Who is taken for whom" in page


def test_the_map_has_a_point_and_a_thumbnail_for_each_image(drawn, draw, glyphs):
    draw(drawn)
    test = glyphs.split("test", Part(0.1))
    files = drawn.files.gallery(GROUP)
    content = data_of(files.page(LOSSES[0]), "map")
    assert content["count"] == len(test.rows)
    assert content["classes"] == test.class_names
    assert content["sheet"] == files.thumbnails.name
    ((level, names, groups),) = content["levels"]
    scripts = glyphs.index["level_1"][test.rows].tolist()
    assert level == "script"
    assert [names[groups[label]] for label in test.labels] == scripts


def test_the_comparison_has_the_mean_score_of_each_class_over_all_seeds(drawn, draw, glyphs):
    from pyarrow.parquet import read_table

    draw(drawn)
    content = data_of(drawn.files.gallery(GROUP).differences, "differences")
    assert [loss["name"] for loss in content["losses"]] == [*LOSSES]
    names = glyphs.index["class_name"]
    scores = {}
    for seed in (0, 1):
        table = read_table(drawn.files.run(f"{GROUP}/{LOSSES[1]}/seed{seed}").queries)
        for image, score in zip(
            *(table[name].to_pylist() for name in ("id", "map@r")), strict=True
        ):
            scores.setdefault(names[image], []).append(score)
    wanted = [round(100 * np.nanmean(scores[name]), 1) for name in content["classes"]]
    np.testing.assert_allclose(content["scores"][1], wanted, atol=0.051)
    for query in content["queries"]:
        right = [label == query["label"] for label in query["labels"]]
        assert sorted(right) == [False, True]


def test_pages_that_are_up_to_date_are_kept(drawn, draw, capsys):
    draw(drawn)
    files = drawn.files.gallery(GROUP)
    before = {path: path.stat().st_mtime_ns for path in files.folder.glob("*.html")}
    draw(drawn)
    assert {path: path.stat().st_mtime_ns for path in files.folder.glob("*.html")} == before
    assert capsys.readouterr().out.count("drawn already") == len(LOSSES)


@pytest.mark.parametrize("damage", [lambda text: "damaged", lambda text: text[:-9], str.upper])
def test_a_damaged_page_is_drawn_again(drawn, draw, damage):
    draw(drawn)
    page = drawn.files.gallery(GROUP).page(LOSSES[0])
    whole = page.read_text("utf-8")
    page.write_text(damage(whole), "utf-8")
    draw(drawn)
    assert page.read_text("utf-8") == whole


def test_equal_results_give_equal_files(drawn, draw):
    draw(drawn)
    files = drawn.files.gallery(GROUP)
    before = {path: path.read_bytes() for path in files.pages()}
    for path in before:
        path.unlink()
    draw(drawn)
    assert {path: path.read_bytes() for path in files.pages()} == before


def test_the_next_seed_stands_in_for_one_without_embeddings(drawn, draw):
    drawn.files.run(f"{GROUP}/{LOSSES[0]}/seed0").embeddings.unlink()
    draw(drawn)
    assert "Seed 1:" in drawn.files.gallery(GROUP).page(LOSSES[0]).read_text("utf-8")


def test_a_loss_without_embeddings_has_a_page_that_says_why(drawn, draw):
    for seed in (0, 1):
        drawn.files.run(f"{GROUP}/{LOSSES[0]}/seed{seed}").embeddings.unlink()
    draw(drawn)
    files = drawn.files.gallery(GROUP)
    page = files.page(LOSSES[0]).read_text("utf-8")
    assert "There are no pictures: seed 0:" in page
    assert "there is no such file" in page
    assert LOSSES[0] in files.differences.read_text("utf-8")
    assert [*read_made_of(files)["problems"]] == [LOSSES[0]]


def test_a_page_outlives_its_embeddings_and_a_loss_returns_with_them(drawn, draw, data_folder):
    draw(drawn)
    pictures, stores = drawn.files.gallery(GROUP), data_folder / "stores"
    embeddings = [drawn.files.run(f"{GROUP}/{LOSSES[0]}/seed{seed}").embeddings for seed in (0, 1)]
    for file in embeddings:
        file.rename(file.with_suffix(".away"))
    pictures.differences.unlink()
    draw(drawn)
    assert "Failures" in pictures.page(LOSSES[0]).read_text("utf-8")
    assert "cannot be compared" in pictures.differences.read_text("utf-8")
    assert not find_pending(drawn, stores).galleries
    embeddings[1].with_suffix(".away").rename(embeddings[1])
    reason = find_pending(drawn, stores).galleries[GROUP]
    assert reason.text == "embeddings are there again"
    draw(drawn)
    assert "cannot be compared" not in pictures.differences.read_text("utf-8")


def test_maps_keep_their_thumbnails_when_all_embeddings_are_gone(drawn, draw):
    draw(drawn)
    pictures = drawn.files.gallery(GROUP)
    before = pictures.thumbnails.read_bytes()
    for path in drawn.runs:
        drawn.files.run(path).embeddings.unlink()
    pictures.made_of.unlink()
    draw(drawn)
    assert pictures.thumbnails.read_bytes() == before
    assert "Failures" in pictures.page(LOSSES[0]).read_text("utf-8")


def test_a_perfect_loss_has_successes_and_no_failures(drawn, draw, glyphs):
    files = drawn.files.run(f"{GROUP}/{LOSSES[0]}/seed0")
    test = glyphs.split("test", Part(0.1))
    with files.embeddings.open("wb") as file:
        perfect = np.eye(test.labels.max() + 1, dtype="f4")[test.labels]
        np.savez(file, embeddings=perfect, id=test.rows.astype("i4"))
    trained = files.load_run()
    files.write_run({name: trained[name] for name in trained if name not in ("digest", "files")})
    draw(drawn)
    page = drawn.files.gallery(GROUP).page(LOSSES[0]).read_text("utf-8")
    assert "Successes" in page
    assert "Failures" not in page
    assert "Who is taken for whom" not in page


def test_embeddings_that_nothing_can_be_ranked_by_cost_only_their_own_page(drawn, draw):
    run = f"{GROUP}/{LOSSES[0]}/seed0"
    files = drawn.files.run(run)
    with np.load(files.embeddings) as content:
        ids = content["id"]
    with files.embeddings.open("wb") as file:
        np.savez(file, embeddings=np.full((len(ids), 16), np.nan, "f4"), id=ids)
    trained = files.load_run()
    files.write_run({name: trained[name] for name in trained if name not in ("digest", "files")})
    draw(drawn)
    pictures = drawn.files.gallery(GROUP)
    assert "NaN or infinity" in pictures.page(LOSSES[0]).read_text("utf-8")
    assert "Failures" in pictures.page(LOSSES[1]).read_text("utf-8")


def test_pages_of_losses_that_left_the_study_are_removed(drawn, draw, tiny):
    draw(drawn)
    tiny["plan"]["losses"] = [LOSSES[0]]
    fewer = check_study(tiny, "tiny")
    draw(fewer)
    files = fewer.files.gallery(GROUP)
    assert {path.name for path in files.folder.glob("*.html")} == {f"{LOSSES[0]}.html"}


def test_a_map_alone_has_no_gallery(drawn, draw, tiny):
    tiny["report"] = {"maps": "pca"}
    study = check_study(tiny, "tiny")
    draw(study)
    page = study.files.gallery(GROUP).page(LOSSES[0]).read_text("utf-8")
    assert "Map of the test images" in page
    assert "Failures" not in page


def test_pictures_that_were_not_asked_for_are_an_error(drawn, tiny, data_folder):
    with pytest.raises(StudyError, match=r"letters/small: no pictures of it are asked for.*tiny"):
        gallery_job(drawn, "letters/small", data_folder / "stores")
    del tiny["report"]
    with pytest.raises(StudyError, match="See `report`"):
        gallery_job(check_study(tiny, "tiny"), GROUP, data_folder / "stores")
