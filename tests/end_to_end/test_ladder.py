"""The rungs of a data set of the user's, from a CSV with two levels to the page and to MLflow."""

import json
import sqlite3
from contextlib import closing

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from dmlbench.datasets.store.part import RUNGS, Part
from dmlbench.datasets.store.reader import Store

CLASSES, IMAGES = 32, 4


@pytest.fixture
def ladder(project, tiny, tmp_path):
    """Three rungs of 32 squares of noise: eight genera in four families, half of them train."""
    project.environment["DMLBENCH_DATA"] = str(tmp_path / "data")
    project.environment.pop("MLFLOW_TRACKING_URI", None)
    (project.folder / "my").mkdir()
    random = np.random.default_rng(0)
    lines = ["path,label,split,genus,family"]
    for place in range(CLASSES):
        for number in range(IMAGES):
            pixels = random.integers(0, 60, (32, 32, 3)) + 6 * place
            path = f"{place:02}_{number}.png"
            Image.fromarray(pixels.astype(np.uint8)).save(project.folder / "my" / path)
            split = "test" if place % 2 else "train"
            lines.append(f"{path},class {place:02},{split},g{place // 4},f{place // 8}")
    (project.folder / "my/images.csv").write_text("\n".join(lines))
    entry = {"type": "csv", "file": "my/images.csv", "levels": ["genus", "family"]}
    tiny["datasets"] = {f"squares_{rung}": {**entry, "holdout": rung} for rung in RUNGS}
    tiny["plan"] |= {"datasets": [*tiny["datasets"]], "controls": ["untrained"]}
    tiny["plan"]["losses"] = ["normalized_softmax"]
    tiny["recipe"] |= {"batch_size": 8, "images_per_class": 2}
    tiny["tracking"] = True
    project.write(tiny)
    return project


def test_a_ladder_of_the_users_images_reaches_the_page(ladder, tmp_path):
    jobs = {"pack_store": 1, "find_duplicates": 1, "train": 6, "evaluate": 6}
    ladder.diff(jobs | {"build_leaderboard": 1, "track": 1, "verdict": 1})
    ladder.run(timeout=900)
    ladder.diff({})
    (folder,) = (tmp_path / "data/stores").glob("csv-32-*")
    assert [file.name for file in folder.glob("near_duplicates/*.json")] == ["holdout.json"]
    store = Store(folder)

    # the embeddings of every rung are of the same test images, and none of them trained
    results = ladder.folder / "results/tiny"
    expected = store.split("test", Part(holdout="class")).rows.tolist()
    rows = {}
    for rung in RUNGS:
        run = results / f"runs/squares_{rung}/tiny/normalized_softmax/seed0"
        with np.load(run / "embeddings.npz") as content:
            assert content["id"].tolist() == expected
        result = json.loads((run / "run.json").read_text())
        assert result["settings"]["dataset"]["holdout"] == rung
        metrics = json.loads((run / "metrics.json").read_text())
        assert metrics["near_duplicates"]["test_images"] == len(expected)
        rows[rung] = {row["metric"]: row["value"] for row in metrics["metrics"]}
        assert rows[rung]["queries"] == len(expected)
        queries = pq.ParquetFile(run / "queries.parquet").read().to_pydict()
        assert sorted(queries["id"]) == expected

    page = (results / "leaderboard/leaderboard.md").read_text()
    assert "Taxonomy ladder: squares · tiny · zero_shot" in page
    assert "genus unseen (squares_level_1): no class of its genus trains, but other" in page
    names = ["class unseen", "genus unseen", "family unseen", "fall"]
    columns = [f"{metric}, {name}" for metric in ("MAP@R", "Recall@1") for name in names]
    assert f"| loss | {' | '.join(columns)} |" in page
    untrained = next(
        line for line in page.split("Taxonomy ladder")[1].splitlines() if "untrained" in line
    )
    scores = [cell.strip() for cell in untrained.split("|")[2:6]]
    assert scores[0] == scores[1] == scores[2]  # the same images and the same model
    assert scores[3] == "0.00"
    for kind in ("png", "svg", "pdf"):
        assert (results / f"leaderboard/plots/ladder.{kind}").stat().st_size > 1000
    assert "Taxonomy ladder: MAP@R and Recall@1 against what is unseen" in (
        results / "leaderboard/leaderboard.html"
    ).read_text("utf-8")

    with closing(sqlite3.connect(ladder.folder / "results/mlflow.db")) as database:
        profiles = [
            json.loads(profile)
            for (profile,) in database.execute("select dataset_profile from datasets")
        ]
    assert {profile["holdout"] for profile in profiles} == {*RUNGS}
