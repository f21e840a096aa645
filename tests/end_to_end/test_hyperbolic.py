"""A loss whose embeddings are ranked by hyperbolic distance, from its training to the page."""

import numpy as np
import pytest

from dmlbench.evaluation.job import evaluate_job
from dmlbench.gallery.job import gallery_job
from dmlbench.leaderboard.build import build
from dmlbench.library.scoring import score
from dmlbench.study.study import check_study
from dmlbench.training.job import train_job

HYP, SOFTMAX = "letters/tiny/hyp/seed0", "letters/tiny/normalized_softmax/seed0"
BALL = {"curvature": 0.3, "radius": 2.5}


@pytest.fixture(scope="module")
def finished(tiny_settings, data_folder, tmp_path_factory):
    """A study with pictures and the optimism gap, and its results, in the current folder."""
    settings = tiny_settings | {"report": {"galleries": True, "maps": "tsne"}}
    settings["report_optimism"] = True
    settings["plan"] = settings["plan"] | {"losses": ["hyp", "normalized_softmax"]}
    settings["losses"] = {"hyp": BALL}
    settings["recipe"] = settings["recipe"] | {"epochs": 2}
    stores = data_folder / "stores"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("hyperbolic"))
        study = check_study(settings, "tiny")
        for run in study.runs.values():
            assert train_job(study, run, stores, None) == 0
            evaluate_job(study, run, stores)
        gallery_job(study, "letters/tiny", stores)
        build(study.name, study.rows, study.files, study.folder / "page", study.remarks)
        yield study


def arrays(study, path):
    with np.load(study.files.run(path).embeddings) as file:
        return file["embeddings"], file["id"]


def scores(study, path):
    rows = study.files.run(path).load_metrics()["metrics"]
    return {row["metric"]: row["value"] for row in rows if row["protocol"] == "zero_shot"}


def test_its_scores_are_by_hyperbolic_distance_and_those_of_others_by_cosine(finished, glyphs):
    for path, ball in ((HYP, BALL), (SOFTMAX, {})):
        embeddings, ids = arrays(finished, path)
        expected = score(embeddings, glyphs.index["label"][ids], **ball)
        found = scores(finished, path)
        assert found["map@r"] == expected["map@r"]
        assert found["nmi"] == expected["nmi"]
    embeddings, ids = arrays(finished, HYP)
    by_cosine = score(embeddings, glyphs.index["label"][ids])
    assert scores(finished, HYP)["map@r"] != by_cosine["map@r"]


def test_the_last_epoch_of_the_optimism_gap_has_the_score_of_the_run(finished):
    """Embeddings after epochs keep their lengths below the radius, in float16."""
    files = finished.files.run(HYP)
    kept = np.load(finished.folder / "runs" / HYP / "optimism/epoch2.npy")
    embeddings, _ = arrays(finished, HYP)
    lengths = np.linalg.norm(embeddings, axis=1, keepdims=True)
    expected = embeddings * np.minimum(1, BALL["radius"] / lengths)
    np.testing.assert_allclose(kept, expected, atol=1e-3)
    (gap,) = (row for row in files.load_metrics()["optimism"] if row["metric"] == "map@r")
    assert gap["last"] == pytest.approx(scores(finished, HYP)["map@r"], abs=2e-3)


def test_the_page_says_which_rows_rank_by_hyperbolic_distance(finished):
    page = (finished.folder / "page/leaderboard.md").read_text("utf-8")
    assert "Distance: hyperbolic in the rows of hyp (curvature 0.3, radius 2.5): " in page


def test_the_pictures_are_of_the_same_ranking(finished):
    files = finished.files.gallery("letters/tiny")
    page = files.page("hyp").read_text("utf-8")
    recall = scores(finished, HYP)["recall@1"]
    assert f"The nearest image is right for {100 * recall:.2f} % of the queries." in page
    assert "hyperbolic distance to the nearest image" in page
    assert "cosine to" not in page
    assert "cosine to the nearest image" in files.page("normalized_softmax").read_text("utf-8")


def test_the_settings_of_the_ball_are_in_its_scores_alone(finished):
    settings = {path: run.metric_settings for path, run in finished.runs.items()}
    assert settings[HYP]["poincare_ball"] == BALL
    assert all("poincare_ball" not in of for path, of in settings.items() if path != HYP)
    assert finished.files.run(HYP).load_metrics()["settings"] == settings[HYP]
