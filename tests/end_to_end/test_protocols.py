"""`protocol: reality_check` and `report_optimism` in real Snakemake runs."""

import os
import signal
import time

import numpy as np
import pytest

from ..project import RUNS, STUDY

pytestmark = pytest.mark.slow

LOSS = "normalized_softmax"


@pytest.fixture
def small(tiny):
    """A study of one loss, with two epochs of the glyphs."""
    tiny["plan"] |= {"losses": [LOSS], "controls": ["untrained"]}
    tiny["recipe"] |= {"epochs": 2, "batch_size": 32}
    return tiny


def page(project):
    return (project.folder / STUDY / "leaderboard/leaderboard.md").read_text()


def test_a_tuned_reality_check_ends_with_the_same_bits_though_a_training_is_killed(project, small):
    small |= {"protocol": "reality_check", "keep_model": True}
    small["tuning"] = {"trials": 2, "folds": 4, "use_folds": 1, "classes": "contiguous"}
    small["recipe"]["patience"] = 1
    project.write(small)
    jobs = {"trial": 2, "choose": 1, "train": 2, "evaluate": 2, "build_leaderboard": 1}
    assert project.planned().items() >= jobs.items()
    project.run(timeout=900)
    unbroken = project.embeddings(LOSS)
    trained = project.json(f"{RUNS}/{LOSS}/seed0/run.json")
    assert len(trained["models"]) == 4
    assert trained["chosen"]["recipe"].keys() == {"lr", "head_lr_factor"}
    assert "last_epoch" not in trained["settings"]
    text = page(project)
    for way in ("concatenated", "separated"):
        assert f"## letters · tiny · zero_shot {way}" in text
    assert "- Protocol: reality" in text
    assert project.planned() == {}

    folder = project.folder / RUNS / LOSS / "seed0"
    (folder / "run.json").unlink()
    (folder / "metrics.json").unlink()
    state = project.folder / STUDY / f"state/letters/tiny/{LOSS}/seed0"
    snakemake = project.start()
    deadline = time.monotonic() + 600
    while not (state / "fold2").is_dir() and time.monotonic() < deadline:
        time.sleep(0.02)
    os.killpg(snakemake.pid, signal.SIGKILL)
    snakemake.wait()
    project.run(timeout=900)
    assert np.array_equal(project.embeddings(LOSS), unbroken)
    assert project.json(f"{RUNS}/{LOSS}/seed0/run.json")["models"] == trained["models"]

    images = project.folder / "images"
    images.mkdir()
    from PIL import Image

    Image.fromarray(np.arange(64 * 64).reshape(64, 64).astype(np.uint8)).save(images / "a.png")
    path = f"letters/tiny/{LOSS}/seed0"
    project.dmlbench("embed", "study.yaml", path, "images", "--output", "mine.npz")
    with np.load(project.folder / "mine.npz") as content:
        assert content["embeddings"].shape == (1, 4 * 16)


def test_the_optimism_gap_is_on_the_page_and_trains_again_once(project, small):
    small["plan"]["controls"] = []
    project.write(small)
    project.run(timeout=900)
    before = project.embeddings(LOSS)
    small["report_optimism"] = True
    project.write(small)
    again = {"train": 1, "evaluate": 1, "build_leaderboard": 1, "verdict": 1}
    assert "report_optimism: it was trained without" in project.diff(again)
    project.run(timeout=900)
    assert np.array_equal(project.embeddings(LOSS), before)
    assert "## Optimism gap: letters · tiny · zero_shot" in page(project)
    rows = project.json(f"{RUNS}/{LOSS}/seed0/metrics.json")["optimism"]
    assert {row["metric"] for row in rows} == {"map@r", "recall@1"}
    assert project.planned() == {}
    small["report_optimism"] = False
    project.write(small)
    project.diff({"evaluate": 1, "build_leaderboard": 1, "verdict": 1})
    project.run(timeout=900)
    assert "Optimism gap" not in page(project)
