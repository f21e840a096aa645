"""Damaged results are noticed and made again, and results without Snakemake's notes are right."""

import csv
import os
import random
import shutil

import pytest

from dmlbench.planning.pending import find_pending
from dmlbench.study.study import read_study

from ..project import RUNS, STUDY

LOSS, OTHER, CONTROL = (
    f"{RUNS}/{loss}/seed0" for loss in ("proxy_anchor", "normalized_softmax", "control_random")
)
LEADERBOARD = f"{STUDY}/leaderboard"
REST = {"build_leaderboard": 1, "verdict": 1}
TRAIN, SCORE = {"train": 1, "evaluate": 1, **REST}, {"evaluate": 1, **REST}


def truncate(file):
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def flip(file):
    content = bytearray(file.read_bytes())
    content[len(content) // 3] ^= 1
    file.write_bytes(content)


@pytest.fixture
def pending(finished, monkeypatch):
    """The number of pending jobs of each rule, as the files of the project are now."""
    monkeypatch.chdir(finished.folder)
    study = read_study("study.yaml")

    def count():
        return find_pending(study, finished.folder / "no_stores").counts

    return count


FILES = {
    f"{LOSS}/run.json": (TRAIN, f"{OTHER}/run.json"),
    f"{LOSS}/history.parquet": (TRAIN, f"{OTHER}/history.parquet"),
    f"{LOSS}/embeddings.npz": (TRAIN, f"{OTHER}/embeddings.npz"),
    f"{LOSS}/metrics.json": (SCORE, f"{OTHER}/metrics.json"),
    f"{LOSS}/queries.parquet": (SCORE, f"{OTHER}/queries.parquet"),
    f"{LEADERBOARD}/leaderboard.csv": (REST, f"{LEADERBOARD}/leaderboard.md"),
    f"{LEADERBOARD}/leaderboard.md": (REST, f"{LEADERBOARD}/leaderboard.html"),
    f"{LEADERBOARD}/leaderboard.html": (REST, f"{LEADERBOARD}/leaderboard.md"),
    f"{LEADERBOARD}/plots/recall.png": (REST, f"{LEADERBOARD}/plots/time.png"),
    f"{LEADERBOARD}/plots/training.svg": (REST, f"{LEADERBOARD}/plots/time.svg"),
    f"{LEADERBOARD}/made.json": (REST, f"{LOSS}/run.json"),
    f"{STUDY}/verdict.txt": ({"verdict": 1}, "study.yaml"),
}
"""File -> the jobs that make it again, and what it is replaced by."""


def test_every_file_that_is_damaged_or_replaced_is_noticed(finished, pending):
    stores = {"pack_store": 1, "find_duplicates": 1}
    assert pending() == {}
    noticed, expected = {}, {}
    for name, (jobs, other) in FILES.items():
        file = finished.folder / name
        content = file.read_bytes()
        for damage in (truncate, flip, None):
            damage(file) if damage else shutil.copy(finished.folder / other, file)
            kind = damage.__name__ if damage else "replaced"
            noticed[name, kind] = pending()
            expected[name, kind] = jobs | (stores if "evaluate" in jobs else {})
            file.write_bytes(content)
    assert noticed == expected
    assert pending() == {}


def table(project):
    """The table without what differs between two trainings with the same numbers."""
    with (project.folder / LEADERBOARD / "leaderboard.csv").open() as file:
        rows = list(csv.DictReader(file))
    times = ("train_seconds", "peak_memory_mb", "images_per_second")
    return [{key: value for key, value in row.items() if key not in times} for row in rows]


def replace(file):
    """Put the same file of another run in its place, or another study's."""
    if file.suffix == ".txt":
        file.write_text("other: all 3 runs have a result\n")
    else:
        shutil.copy(file.parents[2] / "control_random/seed0" / file.name, file)


@pytest.mark.slow
@pytest.mark.parametrize("damage", [flip, truncate, replace])
def test_the_next_call_gives_the_undamaged_table(finished, damage):
    """One scoring finds its embeddings damaged, as it does if they are too large for a plan."""
    before, embeddings = table(finished), finished.folder / CONTROL / "embeddings.npz"
    whole = embeddings.read_bytes()
    damage(embeddings) if damage != replace else embeddings.write_bytes(b"another")
    finished.dmlbench("evaluate", "study.yaml", CONTROL.removeprefix(f"{STUDY}/runs/"))
    assert finished.json(f"{CONTROL}/metrics.json")["status"] == "damaged"
    shutil.copy(finished.folder / LOSS / "embeddings.npz", embeddings)
    for name in (f"{LOSS}/run.json", f"{OTHER}/metrics.json", f"{STUDY}/verdict.txt"):
        damage(finished.folder / name)
    truncate(finished.folder / STUDY / "study.json")
    (finished.folder / LEADERBOARD / "leaderboard.html").unlink()
    output = finished.diff({"train": 2, "evaluate": 3, **REST})
    assert "damaged: embeddings.npz" in output
    assert ("damaged: run.json" in output) == (damage != replace)
    finished.run()
    assert table(finished) == before
    assert embeddings.read_bytes() == whole
    assert (finished.folder / LEADERBOARD / "leaderboard.html").stat().st_size > 5000
    assert finished.json(f"{STUDY}/study.json")["study"] == "tiny"
    finished.diff({})


def test_without_the_notes_of_snakemake_and_with_any_dates_exactly_what_changed_is_pending(
    finished, tiny
):
    shutil.rmtree(finished.folder / ".snakemake")
    draw = random.Random(0)
    for file in sorted((finished.folder / "results").rglob("*")):
        date = draw.choice([0, 1, 1e9, 2e9])
        os.utime(file, (date, date))
    finished.diff({})
    tiny["losses"] = {"proxy_anchor": {"alpha": 16}}
    tiny["evaluation"] = {"recall_at": [3]}
    finished.write(tiny)
    finished.diff({"train": 1, "evaluate": 3, **REST})


@pytest.mark.slow
def test_without_the_notes_of_snakemake_a_changed_study_is_completed(finished, tiny):
    shutil.rmtree(finished.folder / ".snakemake")
    tiny["losses"] = {"proxy_anchor": {"alpha": 16}}
    finished.write(tiny)
    before = (finished.folder / OTHER / "run.json").read_bytes()
    finished.run()
    assert (finished.folder / OTHER / "run.json").read_bytes() == before
    assert finished.json(f"{LOSS}/run.json")["settings"]["loss"]["alpha"] == 16
    shutil.rmtree(finished.folder / ".snakemake")
    finished.diff({})


@pytest.mark.slow
def test_other_triggers_of_snakemake_run_no_more_than_what_is_pending(finished, tiny):
    triggers = ("--rerun-triggers", "mtime", "params", "code", "software-env")
    assert finished.planned(*triggers) == {}
    tiny["losses"] = {"proxy_anchor": {"alpha": 16}}
    finished.write(tiny)
    assert finished.planned(*triggers) == finished.planned(*triggers[:1], "params") == TRAIN


@pytest.mark.slow
def test_a_single_target_that_is_out_of_date_is_made(finished, tiny):
    tiny["losses"] = {"proxy_anchor": {"alpha": 16}}
    finished.write(tiny)
    assert finished.planned(f"{LOSS}/metrics.json") == {"train": 1, "evaluate": 1}
    assert finished.planned(f"{OTHER}/metrics.json") == {}
    expected = {"train": 1, "evaluate": 1, "build_leaderboard": 1, "leaderboard": 1}
    assert finished.planned("leaderboard") == expected
