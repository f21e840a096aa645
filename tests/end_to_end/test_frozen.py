"""A study whose backbone is frozen: its features are one job, and each run trains a head."""

import re

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def frozen(project, tiny, tmp_path):
    """The tiny study with a frozen backbone, in a data folder without features."""
    data = tmp_path / "data"
    data.mkdir()
    stores = project.environment["DMLBENCH_DATA"]
    (data / "stores").symlink_to(f"{stores}/stores")
    project.environment["DMLBENCH_DATA"] = str(data)
    tiny["backbones"]["tiny"] |= {"trunk": "frozen", "views": 2}
    tiny["plan"] |= {"seeds": [0, 1], "controls": ["untrained", "frozen", "untrained_pca"]}
    tiny |= {"tracking": True, "keep_model": True}
    project.write(tiny)
    project.data = data
    return project


def test_features_are_computed_once_and_every_run_trains_a_head_on_them(frozen, tiny):
    planned = frozen.diff(
        {
            "compute_features": 2,
            "train": 7,
            "evaluate": 7,
            "build_leaderboard": 1,
            "track": 1,
            "verdict": 1,
        }
    )
    assert re.search(r"compute_features: 2\n  glyphs-\S+/test_resnet-\w+, \S+-2-views-", planned)
    frozen.run()
    frozen.diff({})
    page = (frozen.folder / "results/tiny/leaderboard/leaderboard.md").read_text()
    assert "Head only: tiny: the backbone is frozen" in page
    features = sorted((frozen.data / "features").glob("*/*.npy"))
    assert len(features) == 2
    dims = {row: frozen.embeddings(row).shape[1] for row in ("proxy_anchor", "control_frozen")}
    stored = np.load(features[0], mmap_mode="r")
    assert dims == {"proxy_anchor": 16, "control_frozen": stored.shape[-1]}

    run = "letters/tiny/proxy_anchor/seed0"
    Image.new("L", (32, 32), 77).save(frozen.folder / "gray.png")
    frozen.dmlbench("embed", "study.yaml", run, "gray.png", "--output", "gray.npz")
    with np.load(frozen.folder / "gray.npz") as file:
        assert file["embeddings"].shape == (1, 16)
    for file in features:  # they are needed for a training alone
        file.with_suffix(".json").unlink()
    frozen.diff({})
    tiny["plan"]["seeds"] = [0, 1, 2]
    frozen.write(tiny)
    after = {"train": 2, "evaluate": 2, "build_leaderboard": 1, "track": 1, "verdict": 1}
    frozen.diff({"compute_features": 2, **after})
    before = frozen.embeddings("proxy_anchor")
    frozen.run()
    assert np.array_equal(frozen.embeddings("proxy_anchor"), before)
    frozen.diff({})


@pytest.mark.slow
def test_a_tuned_study_and_four_models_of_a_run_train_heads_too(frozen, tiny):
    tiny["plan"] |= {"seeds": [0], "losses": ["triplet"], "controls": []}
    tiny["tuning"] = {"trials": 2, "folds": 2}
    frozen.write(tiny)
    frozen.run()
    frozen.diff({})
    del tiny["tuning"]
    tiny["protocol"] = "reality_check"
    frozen.write(tiny)
    frozen.run()
    assert frozen.embeddings("triplet").shape[1] == 4 * 16
    metrics = frozen.metrics()["results/tiny/runs/letters/tiny/triplet/seed0/metrics.json"]
    protocols = {row["protocol"] for row in metrics}
    assert {"zero_shot separated", "zero_shot concatenated"} <= protocols


def test_a_trunk_that_cannot_be_computed_names_the_job_and_leaves_holes(frozen, tiny):
    file, line = "dmlbench/training/features.py", "    run = features.run\n"
    frozen.edit(file, line, "    raise ValueError\n")
    frozen.run("--keep-going", expect=1)
    failed = frozen.failed_jobs()
    assert "compute_features" in failed
    page = (frozen.folder / "results/tiny/leaderboard/leaderboard.md").read_text()
    assert "the features of its backbone are missing" in page


def test_a_study_without_losses_compares_backbones_as_they_are(frozen, tiny):
    tiny["backbones"] = {
        name: {"type": f"test_{name}", "image_size": 32, "dim": 16} for name in ("resnet", "vit")
    }
    tiny["plan"] |= {"backbones": ["resnet", "vit"], "losses": [], "controls": ["frozen"]}
    tiny["keep_model"] = False
    frozen.write(tiny)
    frozen.run()
    frozen.diff({})
    page = (frozen.folder / "results/tiny/leaderboard/leaderboard.md").read_text()
    assert "## Backbones as they are: letters · zero_shot" in page
    assert page.count("none: random weights") == 2
