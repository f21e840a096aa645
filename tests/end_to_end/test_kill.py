"""SIGKILL at any moment costs time and nothing else: the same command again completes, by
itself, with the same bits."""

import os
import random
import signal
import time
from base64 import urlsafe_b64encode
from pathlib import Path

import numpy as np
import pytest

LOSS = "htl"  # the one with most state: a tree, its epoch, batches drawn by the tree


@pytest.fixture
def long(project, tiny):
    """A study of one training of some seconds."""
    tiny["recipe"]["epochs"] = 25
    tiny["plan"] |= {"losses": [LOSS], "controls": []}
    project.write(tiny)
    return project


@pytest.fixture(scope="module")
def whole():
    return {}


def uninterrupted(long, whole):
    """Embeddings of a training that nobody disturbs; made once."""
    if not whole:
        long.run()
        whole["embeddings"] = long.embeddings(LOSS)
        for path in ("results", ".snakemake"):
            (long.folder / path).rename(long.folder / f"{path}.whole")
    return whole["embeddings"]


@pytest.mark.slow
@pytest.mark.parametrize("orphan", [False, True], ids=["both killed", "trainer lives on"])
def test_a_killed_study_that_is_called_again_gives_the_same_bits(long, whole, orphan):
    expected = uninterrupted(long, whole)
    step = random.randint(40, 150)
    print("killed after step", step)
    first = long.start()
    trainer = long.wait_for_step(LOSS, step)
    os.kill(first.pid, signal.SIGKILL)
    if not orphan:
        os.kill(trainer, signal.SIGKILL)
    first.wait()
    long.run()
    run = f"results/tiny/runs/letters/tiny/{LOSS}/seed0"
    log = (long.folder / run / "log.txt").read_text()
    if orphan:
        assert "waiting for it" in log
        assert "finished under this key already" in log
    else:
        assert "resumed at step" in log
    assert np.array_equal(long.embeddings(LOSS), expected)
    assert long.planned() == {}


@pytest.mark.slow
def test_a_run_that_the_orphan_of_a_killed_call_finished_is_not_trained_again(long, whole):
    expected = uninterrupted(long, whole)
    first = long.start()
    long.wait_for_step(LOSS, 5)
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    result = long.folder / f"results/tiny/runs/letters/tiny/{LOSS}/seed0"
    deadline = time.monotonic() + 120
    while not (result / "run.json").is_file() and time.monotonic() < deadline:
        time.sleep(0.1)
    long.run()
    log = (result / "log.txt").read_text()
    assert log.count("attempt of") == log.count("epoch 25/25") == 1  # by the orphan
    assert np.array_equal(long.embeddings(LOSS), expected)
    assert long.planned() == {}


def test_images_that_were_packed_after_snakemake_was_killed_are_used_by_the_whole_study(
    project, store_name
):
    manifest = Path(project.environment["DMLBENCH_DATA"]) / "stores" / store_name / "manifest.json"
    note = urlsafe_b64encode(str(manifest).encode()).decode()  # Snakemake's, of a job that began
    incomplete = project.folder / ".snakemake/incomplete"
    incomplete.mkdir(parents=True)
    (incomplete / note).write_text("{}")
    rest = {"train": 3, "evaluate": 3, "build_leaderboard": 1, "verdict": 1}
    assert project.planned() == rest
    assert project.planned("--forcerun", "pack_store") == {"pack_store": 1, **rest}
