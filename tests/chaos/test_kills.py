"""Kills at random moments cost time and nothing else: the next call completes, with the same bits.

`DMLBENCH_CHAOS_KILLS` is the number of kills, and `DMLBENCH_CHAOS_SEED` chooses them; the seed is
printed. Kills of one seed are of the same kinds and come after the same waits.
"""

import csv
import os
import random
import re
import secrets
import shutil
import signal
import sqlite3
import subprocess
import time
import zlib
from contextlib import closing
from copy import deepcopy

import numpy as np
import psutil
import pytest

from ..project import RUNS, STUDY, Project, copy_project

KILLS = int(os.environ.get("DMLBENCH_CHAOS_KILLS", "8"))
# The workers of one call of pytest must find the same tests
CALL = os.environ.get("PYTEST_XDIST_TESTRUNUID", secrets.token_hex())
SEED = int(os.environ.get("DMLBENCH_CHAOS_SEED", zlib.crc32(CALL.encode()) % 10**6))
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
JOBS = {
    "packing": "--job data pack",
    "training": "--job train",
    "scoring": "--job evaluate",
    "table": "--job leaderboard",
    "import": "--job track",
}
"""What is killed -> what its command line holds."""
TARGETS = (*JOBS, "snakemake", "everything")
VERDICT = f"{STUDY}/verdict.txt"
REMOVED = {
    "packing": ["data", "results"],
    "training": [VERDICT, f"{RUNS}/htl", f"{RUNS}/proxy_anchor"],
    "scoring": [
        VERDICT,
        f"{RUNS}/htl/seed0/metrics.json",
        f"{RUNS}/control_random/seed0/metrics.json",
    ],
    "table": [VERDICT, f"{STUDY}/leaderboard"],
    "import": [VERDICT, f"{STUDY}/tracked.txt", "results/mlflow.db"],
    "snakemake": ["data", "results"],
    "everything": ["data", "results"],
}
"""What is killed -> what is removed first, so that it is made once more. Snakemake makes a missing
file only if one that needs it is missing too: the verdict is the last."""
PROVENANCE = (
    "git_commit",
    "device",
    "driver",
    "train_seconds",
    "peak_memory_mb",
    "images_per_second",
)
PATIENCE = 120.0
"""Seconds for a call to end after a signal, or for a job to begin."""


@pytest.fixture(scope="module")
def study(tmp_path_factory, tiny_settings):
    """A study with all of its results, which every test uses: two trainings of 60 steps."""
    folder = copy_project(tmp_path_factory.mktemp("chaos") / "project")
    project = Project(folder, folder / "data")
    project.environment.pop("MLFLOW_TRACKING_URI", None)
    settings = deepcopy(tiny_settings)  # all modules share it
    settings["tracking"] = True
    settings["plan"]["losses"] = ["htl", "proxy_anchor"]
    settings["recipe"]["epochs"] = 12
    project.write(settings)
    started = time.monotonic()
    project.run()
    project.seconds = time.monotonic() - started
    for loss in ("htl", "proxy_anchor"):
        log = (folder / RUNS / loss / "seed0/log.txt").read_text()
        assert "resumed" not in log
    project.expected = results(project)
    project.files = files(project)
    return project


def results(project):
    """All that must not depend on what happened before: the table without provenance, the
    embeddings, and the number of runs in MLflow."""
    with (project.folder / STUDY / "leaderboard/leaderboard.csv").open() as file:
        rows = list(csv.DictReader(file))
    table = [
        {
            name: value
            for name, value in row.items()
            if name not in PROVENANCE and not name.startswith("version_")
        }
        for row in rows
    ]
    embeddings = {}
    for path in (project.folder / STUDY / "runs").rglob("embeddings.npz"):
        with np.load(path) as file:
            embeddings[path] = file["embeddings"]
    with closing(sqlite3.connect(project.folder / "results/mlflow.db")) as database:
        query = "select name from runs where lifecycle_stage = 'active' order by name"
        tracked = database.execute(query).fetchall()
    return table, embeddings, tracked


def files(project):
    """All files of the results and of the data; MLflow's random ids are replaced by `*`.

    Snakemake's measurements of jobs do not count: they are lost if a kill comes after the output of
    a job, and before Snakemake has seen its end.
    """
    paths = [path for name in ("results", "data") for path in (project.folder / name).rglob("*")]
    names = (str(path.relative_to(project.folder)) for path in paths if path.is_file())
    kept = (name for name in names if not name.endswith(".benchmark.tsv"))
    return {re.sub("[0-9a-f]{32}", "*", name) for name in kept}


def processes(project):
    """The processes of the project that live now, and their command lines."""
    alive = {}
    for process in psutil.process_iter():
        try:
            if process.cwd() == str(project.folder):
                alive[process] = " ".join(process.cmdline())
        except psutil.Error:
            continue
    return alive


def kill(project, call, target, number, random):
    """Send the signal `number` to `target` at a random moment of the running `call`."""
    if target not in JOBS:
        time.sleep(random.uniform(0, project.seconds))
        victims = list(processes(project)) if target == "everything" else [psutil.Process(call.pid)]
    else:
        deadline, victims = time.monotonic() + PATIENCE, []
        while not victims and time.monotonic() < deadline and call.poll() is None:
            victims = [p for p, line in processes(project).items() if JOBS[target] in line]
            time.sleep(0.01)
        assert victims, f"no {target} began:\n{call.communicate()[0]}"
        time.sleep(random.choice([random.uniform(0, 1), random.uniform(0, 8)]))
    for victim in victims:
        try:
            victim.send_signal(number)
        except psutil.NoSuchProcess:
            continue  # it ended before its time
    try:
        call.communicate(timeout=PATIENCE)
    except subprocess.TimeoutExpired:  # Snakemake may wait for ever after SIGTERM
        call.kill()
        call.communicate()


def cases():
    """The kills of this seed. Every target comes before one comes again."""
    chosen = random.Random(SEED)
    targets = [target for _ in range(KILLS) for target in chosen.sample(TARGETS, len(TARGETS))]
    return [
        pytest.param(target, number, chosen.random(), id=f"{target}-{number.name}-{turn}")
        for turn, target in enumerate(targets[:KILLS])
        for number in [chosen.choice(SIGNALS)]
    ]


@pytest.mark.slow
@pytest.mark.parametrize(("target", "number", "seed"), cases())
def test_after_a_kill_the_next_call_completes_with_the_same_bits(study, target, number, seed):
    print(f"DMLBENCH_CHAOS_SEED={SEED}: {number.name} to {target}")
    for name in REMOVED[target]:
        path = study.folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    call = study.start()
    kill(study, call, target, number, random.Random(seed))
    study.dmlbench("status", "study.yaml")  # it answers in the middle of everything

    study.run()

    table, embeddings, tracked = results(study)
    expected_table, expected_embeddings, expected_tracked = study.expected
    assert table == expected_table
    assert tracked == expected_tracked
    assert embeddings.keys() == expected_embeddings.keys()
    for path, vectors in expected_embeddings.items():
        assert np.array_equal(embeddings[path], vectors), path
    assert sorted(files(study) - study.files) == []
    assert sorted(study.files - files(study)) == []
    assert study.planned() == {}
    assert "3 runs: 3 done" in study.dmlbench("status", "study.yaml")
