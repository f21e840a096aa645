"""How long `dmlbench track` takes for 300 runs x 50 points x 10 metrics.

They go into a new SQLite file, then again without a change, and again with one changed run. It
prints a Markdown table.

    python benchmarks/tracking.py
"""

from __future__ import annotations

import os
import platform
import resource
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from dmlbench.study.run import Run
from dmlbench.study.study import Study, read_study
from dmlbench.utils.files import write_json
from dmlbench.utils.modules import PACKAGE

POINTS, STATISTICS = 50, 6  # with epoch, loss, lr and images_per_second: ten curves per run
TARGETS = {"new database": 60, "again, nothing changed": 2, "one run of the 300 changed": None}
SETTINGS = {
    "study": "many",
    "plan": {
        "datasets": ["glyphs", "omniglot"],
        "backbones": ["resnet18", "resnet34", "resnet50"],
        "losses": [f"loss{i}" for i in range(10)],
        "seeds": list(range(5)),
        "controls": [],
    },
    "losses": {f"loss{i}": {"type": "proxy_anchor", "alpha": 16 + i} for i in range(10)},
    "recipe": {"epochs": POINTS, "batch_size": 80},
}


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        Path("study.yaml").write_text(yaml.safe_dump(SETTINGS))
        study = read_study("study.yaml")
        for number, run in enumerate(study.runs.values()):
            write_result(study, run, number)
        seconds = {"new database": track()}
        with sqlite3.connect("results/mlflow.db") as database:
            (stored,) = database.execute("select count(*) from metrics").fetchone()
        seconds["again, nothing changed"] = track()
        write_result(study, next(iter(study.runs.values())), 1000)
        seconds["one run of the 300 changed"] = track()
        size = Path("results/mlflow.db").stat().st_size / 2**20
    print(
        f"{len(study.runs)} runs x {POINTS} points x {STATISTICS + 4} curves: {stored:,} values, "
        f"{size:.0f} MiB; {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, "
        f"Python {platform.python_version()}\n"
    )
    print("| import | seconds | of a processor | target |\n| --- | ---: | ---: | ---: |")
    for name, (wall, cpu) in seconds.items():
        target = f"{TARGETS[name]} s" if TARGETS[name] else ""
        print(f"| {name} | {wall:.1f} s | {cpu:.1f} s | {target} |")


def track() -> tuple[float, float]:
    """Seconds of the whole command by the clock, and of the processors.

    Other work on this machine changes the second number less.
    """
    environment = {name: os.environ[name] for name in os.environ if name != "MLFLOW_TRACKING_URI"}
    environment["PYTHONPATH"] = str(PACKAGE.parent)
    command = [sys.executable, "-m", "dmlbench", "track", "study.yaml"]
    start, cpu_before = time.perf_counter(), children()
    answer = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    print(answer.stdout, end="", file=sys.stderr)
    return time.perf_counter() - start, children() - cpu_before


def children() -> float:
    """CPU seconds of the processes that this one has started."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def write_result(study: Study, run: Run, number: int) -> None:
    """Write the files of a successful run, with numbers that depend on `number`."""
    files, random = study.files.run(run.path), np.random.default_rng(number)
    names = {"dataset": run.dataset, "backbone": run.backbone, "loss": run.loss, "seed": run.seed}
    success = {"train_key": run.train_key, "status": "ok", "error": None}
    scores = ["recall@1", "recall@2", "recall@4", "recall@8", "map@r", "r_precision", "nmi"]
    origin = {
        "git_commit": "c0ffee" * 6,
        "versions": {"python": "3.12.1", "torch": "2.15.0", "timm": "1.0.31", "numpy": "2.5.5"},
        "host": "here",
        "started": "2026-01-01T00:00:00+00:00",
        "finished": "2026-01-01T00:10:00+00:00",
        "device": "cpu",
        "train_seconds": 500.0,
        "peak_memory_mb": 1000.0,
        "images_per_second": 2000.0,
    }
    write_json(
        files.run,
        {"study": study.name, **names, **success, "settings": run.settings, "provenance": origin},
    )
    metrics = [{"protocol": "zero_shot", "metric": m, "value": random.random()} for m in scores]
    write_json(files.metrics, {"eval_key": run.eval_key, **success, "metrics": metrics})
    curves = ["loss", "lr", "images_per_second", *(f"statistic{i}" for i in range(STATISTICS))]
    table = {
        "epoch": np.arange(1, POINTS + 1),
        "step": 100 * np.arange(1, POINTS + 1),
        "seconds": np.full(POINTS, 10.0),
        **{name: random.random(POINTS) for name in curves},
    }
    pq.write_table(pa.table(table), files.history)


if __name__ == "__main__":
    main()
