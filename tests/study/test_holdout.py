"""A study with a holdout: its keys, its stores, its counts, and what is refused."""

from pathlib import Path

import pytest

from dmlbench.datasets.store.duplicates_file import HOLDOUT
from dmlbench.datasets.store.part import RUNGS, WHOLE, Part
from dmlbench.study import class_sizes as module
from dmlbench.study.class_sizes import class_sizes, count_used_images
from dmlbench.study.features import Features
from dmlbench.study.study import check_study
from dmlbench.utils.errors import StudyError

before_jobs = pytest.mark.usefixtures("in_this_process")
PATH = "letters/tiny/softtriple/seed0"


@pytest.fixture
def birds(letters, tmp_path, monkeypatch):
    """Three rungs of a CSV: 16 classes of three images, four genera in each of two families."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DMLBENCH_CACHE", str(tmp_path / "cache"))
    lines = ["path,label,split,genus,family"]
    for place in range(16):
        split = "train" if place % 2 else "test"
        for number in range(3):
            Path(f"{place}_{number}.png").touch()
            lines.append(f"{place}_{number}.png,c{place},{split},g{place // 4},f{place // 8}")
    Path("birds.csv").write_text("\n".join(lines))
    entry = {"type": "csv", "file": "birds.csv", "levels": ["genus", "family"]}
    letters["datasets"] = {f"birds_{rung}": {**entry, "holdout": rung} for rung in RUNGS}
    letters["plan"] |= {"datasets": [*letters["datasets"]], "losses": ["triplet"], "seeds": [0]}
    letters["recipe"] = {"batch_size": 8, "images_per_class": 2}
    return letters


def refusal(settings):
    with pytest.raises(StudyError) as error:
        check_study(settings, "my.yaml")
    _, *lines = str(error.value).splitlines()
    return [line.strip() for line in lines]


def runs_by_dataset(settings):
    return {run.dataset: run for run in check_study(settings, "my.yaml").runs.values()}


def test_a_study_without_a_holdout_has_no_word_of_it_in_its_keys(letters, changed, keys, moved):
    before = keys(letters)
    assert "holdout" not in str(check_study(letters, "my.yaml").runs[PATH].settings)
    assert moved(before, keys(changed("datasets.letters.holdout", None))) == set()
    held_out = changed("datasets.letters.holdout", "class")
    assert moved(before, keys(held_out)) == set(before)
    other = changed("datasets.letters.holdout", "level_1")
    assert moved(keys(held_out), keys(other)) == set(before)
    settings = check_study(other, "my.yaml").runs[PATH].settings
    assert settings["dataset"]["holdout"] == "level_1"


def test_the_rungs_of_a_csv_share_one_store(birds):
    runs = runs_by_dataset(birds)
    assert len({run.store for run in runs.values()}) == 1
    birds["datasets"]["birds_class"]["file"] = str(Path("birds.csv").resolve())
    other = runs_by_dataset(birds)
    assert other["birds_class"].store != other["birds_level_1"].store  # it may be another file
    birds["datasets"]["birds_class"].pop("holdout")
    assert runs_by_dataset(birds)["birds_class"].store.startswith("birds_class-32-")


def test_the_rungs_share_one_search_for_near_duplicates(birds):
    for run in runs_by_dataset(birds).values():
        assert run.searched == (HOLDOUT, run.store)


def test_random_views_are_of_the_images_that_a_rung_trains_on(letters, changed):
    def views_of(holdout, views=2):
        settings = changed("backbones.tiny.trunk", "frozen")
        settings = changed("datasets.letters.holdout", holdout, settings)
        settings = changed("backbones.tiny.views", views, settings)
        return Features(check_study(settings, "my.yaml").runs[PATH], views)

    assert views_of(None).part == WHOLE  # for every class_fraction
    assert "part" not in views_of(None).settings
    assert views_of("class").part == Part(0.5, "class")
    assert len({views_of(holdout).path for holdout in (None, "class", "level_1")}) == 3
    assert len({views_of(holdout, 0).path for holdout in (None, "class", "level_1")}) == 1


@pytest.mark.parametrize("rung", ["class", "level_1"])
@pytest.mark.parametrize("fraction", [0.3, 1.0])
def test_a_rung_has_the_sizes_that_its_store_gives(
    rung, fraction, tiny, glyphs, data_folder, tmp_path
):
    tiny["datasets"]["letters"] = {"type": "glyphs", "holdout": rung, "class_fraction": fraction}
    run = next(iter(check_study(tiny, "my.yaml").runs.values()))
    sizes = class_sizes(run, tmp_path)
    assert sizes == module._read(run, data_folder / "stores")
    test = glyphs.split("test", Part(fraction, rung))
    assert sizes.test.images == len(test.rows)
    assert sizes.protocols["zero_shot"].queries == len(test.rows)
    used = count_used_images(run, tmp_path / "none")
    train = glyphs.split("train", Part(fraction, rung))
    assert used == {"train": len(train.rows), "test": len(test.rows)}


@pytest.mark.parametrize(
    ("dataset", "holdout", "test_share"), [("omniglot", "class", 4), ("inat2018", "level_2", 8)]
)
def test_before_the_archives_are_there_the_images_of_a_rung_are_estimated(
    dataset, holdout, test_share, letters, tmp_path
):
    letters["plan"]["datasets"] = [dataset]
    letters["datasets"] = {dataset: {"holdout": holdout, "class_fraction": 0.5}}
    run = next(iter(check_study(letters, "my.yaml").runs.values()))
    images = sum(count for _, count in run.facts["splits"].values())
    expected = {"train": 0.5 * images / 2, "test": 0.5 * images / test_share}
    assert count_used_images(run, tmp_path / "none") == expected
    sizes = class_sizes(run, tmp_path)
    assert sizes.train.images == sizes.test.images == images  # at most


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"type": "cub200", "holdout": "class"}, "class, and it has no super-classes. Leave"),
        ({"type": "glyphs", "holdout": "level_2"}, "level_2, and it has one level of super-"),
        ({"type": "inshop", "holdout": "level_1"}, "level_1, and its test has official queries"),
        ({"type": "glyphs", "holdout": "genus"}, "found 'genus'. Allowed: class, level_1, level_2"),
    ],
)
def test_a_data_set_that_cannot_be_dealt_out_is_refused(entry, message, letters):
    letters["datasets"]["letters"] = entry
    (line,) = refusal(letters)
    assert line.startswith(f"datasets.letters.holdout: {message}")


def test_a_csv_is_told_to_name_its_super_classes(birds):
    birds["datasets"]["birds_level_1"].pop("levels")
    birds["datasets"]["birds_level_1"]["ignore"] = ["genus", "family"]
    assert refusal(birds) == [
        "datasets.birds_level_1.holdout: level_1, and it has no super-classes. Name them in "
        "levels, or leave holdout out."
    ]


@pytest.mark.parametrize("holds_out", ["letters", "part"])
def test_a_test_on_another_data_set_is_no_rung(holds_out, letters):
    letters["datasets"]["letters"]["test_on"] = "part"
    letters["datasets"]["part"] = {"type": "glyphs"}
    letters["datasets"][holds_out]["holdout"] = "class"
    (line,) = refusal(letters)
    assert line.startswith(f"datasets.{holds_out}.holdout: class sets the training classes")
    assert line.endswith("letters is tested on part. Leave out holdout, or test_on.")


@before_jobs
def test_rungs_that_fit_are_accepted(birds, problems):
    assert problems(birds) == []


@before_jobs
def test_every_rung_of_a_shared_store_is_checked(birds, problems):
    birds["recipe"]["batch_size"] = 28
    lines = problems(birds)  # eight classes of three images
    assert [line for line in lines if line.startswith("recipe.batch_size: 28 is more")]
    for rung in RUNGS:
        assert [line for line in lines if f"24 images that birds_{rung} trains on" in line]


@before_jobs
def test_too_few_groups_are_refused(birds, problems):
    text = Path("birds.csv").read_text().replace(",f1", ",f0")
    Path("birds.csv").write_text(text)
    assert problems(birds) == [
        f"datasets.birds_{rung}.holdout: it needs two super-classes of level_2, of which one "
        f"has two super-classes of level_1, of which one has two classes. Leave it out."
        for rung in RUNGS
    ]


@before_jobs
def test_official_queries_are_refused(birds, problems):
    lines = Path("birds.csv").read_text().splitlines()
    roles = {"_0": ",query", "_1": ",gallery", "_2": ",gallery"}
    lines = [lines[0] + ",role"] + [
        line + (roles[line.partition(".")[0][-2:]] if ",test," in line else "")
        for line in lines[1:]
    ]
    lines = [line if line.count(",") == 5 else line + "," for line in lines]
    Path("birds.csv").write_text("\n".join(lines))
    assert problems(birds)[0].startswith(
        "datasets.birds_class.holdout: class, and its test has official queries"
    )


@before_jobs
def test_a_holdout_has_no_validation_part(birds, problems):
    text = Path("birds.csv").read_text().replace("c1,train", "c1,validation")
    Path("birds.csv").write_text(text.replace("c3,train", "c3,validation"))
    birds["tuning"] = {"trials": 2, "classes": "published"}
    assert problems(birds)[0] == (
        "tuning.classes: published, and birds_class with its holdout has no validation part. "
        "Take random or contiguous."
    )
