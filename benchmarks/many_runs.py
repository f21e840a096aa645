"""What a study of many runs costs besides its jobs: planning, status, table and page.

    python benchmarks/many_runs.py                  # 10,060 runs
    python benchmarks/many_runs.py --losses 25 --seeds 4 --workflow      # 2,060 runs
    python benchmarks/many_runs.py --study config/leaderboard.yaml       # only the planning

It makes a study with results in a temporary folder, and prints a Markdown table of seconds, memory
and sizes. The results are written by the real jobs; only the arithmetic is replaced, by numbers
that are drawn. With `--workflow` it also drives the whole workflow with an executor that answers at
once (benchmarks/plugins/): what remains is the time that Snakemake itself needs.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import multiprocessing
import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from math import inf
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
import yaml
from scipy.cluster.hierarchy import linkage

from dmlbench.evaluation import job as scoring
from dmlbench.evaluation.evaluate import QueryScores, Scores
from dmlbench.losses import list_losses
from dmlbench.study.run import Run
from dmlbench.study.study import Study, read_study
from dmlbench.training import job as training
from dmlbench.training import resumable_job
from dmlbench.training.provenance import processor, provenance

ROOT = Path(__file__).parents[1]
EPOCHS, STEPS, CLASSES = 40, 50, 80
K = (1, 2, 4, 8)
SNAKEMAKE = ["snakemake", "--snakefile", str(ROOT / "Snakefile"), "--configfile", "study.yaml"]
QUERIES = 3784.0
IMAGES = {"class_fraction": 0.2}
LIMITS = {
    "snakemake -n, nothing is there": (60, 1000),
    "snakemake -n, everything is there": (60, 1000),
    "dmlbench status": (3, None),
    "dmlbench leaderboard": (120, 2000),
}
"""Command -> the most seconds and MB that we allow it at 10,060 runs."""
LIMITS_OF_STUDY = {"snakemake -n, nothing is there": (30, 1000)}
"""The same for config/leaderboard.yaml, which tunes every loss."""


class Cost(NamedTuple):
    """What a command needed."""

    seconds: float
    cpu_seconds: float
    memory_mb: float
    """The largest of its processes."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    for axis, count in {"datasets": 4, "backbones": 5, "losses": 50, "seeds": 10}.items():
        parser.add_argument(f"--{axis}", type=int, default=count)
    parser.add_argument("--workflow", action="store_true", help="drive the workflow, too")
    parser.add_argument("--study", type=Path, help="only plan this study, as if nothing were there")
    parser.add_argument("--keep", type=Path, help="work in this folder, and leave it")
    options = parser.parse_args()
    planned = options.study and options.study.resolve()
    with contextlib.ExitStack() as stack:
        if options.keep:
            options.keep.mkdir(parents=True, exist_ok=True)
        folder = options.keep or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        stack.enter_context(contextlib.chdir(folder.resolve()))
        stack.enter_context(mock.patch.dict(os.environ, environment(Path.cwd())))
        load = os.getloadavg()[0]
        if planned:
            shutil.copy(planned, "study.yaml")
            study = read_study("study.yaml")
            show(study, *measure_planning(study), load, LIMITS_OF_STUDY)
            return
        settings = make_settings(options.datasets, options.backbones, options.losses, options.seeds)
        Path("study.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))
        study = read_study("study.yaml")
        costs, facts = measure_all(study)
        if options.workflow:
            costs["snakemake, with jobs that end at once"] = measure_workflow(facts)
    show(study, costs, facts, load, LIMITS)


def make_settings(datasets: int, backbones: int, losses: int, seeds: int) -> dict[str, Any]:
    """A study of datasets x backbones x (losses x seeds + 3 controls) runs."""
    native = [name for name in list_losses() if "." not in name]
    types = {f"{native[i % len(native)]}_{i // len(native)}": native[i % len(native)]
             for i in range(losses)}  # fmt: skip
    models = [f"resnet_{i}" for i in range(backbones)]
    images = [f"letters_{i}" for i in range(datasets)]
    return {
        "study": "many",
        "plan": {
            "datasets": images,
            "backbones": models,
            "losses": [*types],
            "seeds": [*range(seeds)],
        },
        "datasets": {name: {"type": "glyphs", **IMAGES} for name in images},
        "backbones": {
            name: {
                "type": "test_resnet",
                "dim": 128,
                "image_size": 32,
                "recipe": {"lr": 0.001 + 0.001 * i},
            }
            for i, name in enumerate(models)
        },
        "losses": {name: {"type": kind} for name, kind in types.items()},
        "recipe": {"epochs": EPOCHS, "batch_size": 80, "images_per_class": 4},
    }


def environment(folder: Path) -> dict[str, str]:
    """The variables of the commands: this Python, this package, data in `folder`."""
    return {
        "DMLBENCH_DATA": str(folder / "data"),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join(
            [str(ROOT), str(ROOT / "benchmarks"), str(ROOT / "benchmarks/plugins")]
        ),
    }


@contextlib.contextmanager
def drawn_numbers() -> Iterator[None]:
    """Replace the arithmetic of the jobs by numbers that are drawn, and write without waiting."""
    with (
        mock.patch.object(training, "_compute", _draw_output),
        mock.patch.object(scoring, "_score", _draw_scores),
        mock.patch.object(resumable_job, "lease_gpu", return_value=contextlib.nullcontext()),
        mock.patch.object(resumable_job, "provenance", provenance().copy),  # asks git
        mock.patch("os.fsync"),
    ):
        yield


def write_results(study: Study) -> None:
    """Write the results of all runs of `study`."""
    with drawn_numbers():
        for run in study.runs.values():
            write_training(study, run)
            write_scores(study, run)


def write_training(study: Study, run: Run) -> None:
    """Write the result of a training of `run`; `drawn_numbers` must be active."""
    with contextlib.redirect_stdout(io.StringIO()):
        training.train_job(study, run, Path("data/stores"), None)


def write_scores(study: Study, run: Run) -> None:
    """Write the scores of `run`; `drawn_numbers` must be active."""
    scoring.evaluate_job(study, run, Path("data/stores"))


def _draw_output(
    study: Study, run: Run, _stores: Path, _stop: Any, origin: dict[str, Any]
) -> training.Output:
    origin |= {"device": f"cpu ({processor()})", "driver": None}
    rng = np.random.default_rng([run.seed, len(run.loss)])
    curve = rng.uniform(1, 5) * np.exp(-np.arange(EPOCHS) / 8) * rng.normal(1, 0.02, EPOCHS)
    history = [
        {
            "epoch": epoch,
            "step": STEPS * epoch,
            "loss": float(loss),
            "lr": 0.001,
            "images_per_second": 3000.0,
            "seconds": 2.5,
        }
        for epoch, loss in enumerate(curve, 1)
    ]
    if run.tree:
        training.write_json(study.files.run(run.path).loss_artefact, _draw_tree(run, rng))
    ids = np.arange(20, dtype=np.int32)
    return training.Output(history if run.trains else [], np.ones((20, 8), np.float32), ids)


def _draw_tree(run: Run, rng: np.random.Generator) -> dict[str, Any]:
    merges = linkage(rng.normal(size=(CLASSES, 8)), "average").tolist()
    return {
        "train_key": run.train_key,
        "loss": run.loss_type,
        "classes": [f"class {number}" for number in range(CLASSES)],
        "super_classes": {"level_1": [f"group {number % 7}" for number in range(CLASSES)]},
        "learnt": {"merges": merges, "thresholds": [0.5, 1.0, 2.0]},
    }


def _draw_scores(*args: Any) -> tuple[scoring._Scored, str]:
    run = next(argument for argument in args if isinstance(argument, Run))
    rng = np.random.default_rng([run.seed, *run.loss.encode(), *run.dataset.encode()])
    level = 1.0 if run.control == "oracle" else rng.uniform(0.4, 0.6)
    scores = {f"recall@{k}": 1 - (1 - level) ** (1 + i / 2) for i, k in enumerate(K)}
    scores |= {"map@r": level / 2, "r_precision": level / 1.7, "map": level / 1.8, "mrr": level}
    scores |= {"nmi": 0.3 + level / 2, "ami": level / 2, "queries": QUERIES, "lone_queries": 0.0}
    rows = [{"protocol": "zero_shot", "metric": name, "value": scores[name]} for name in scores]
    count = int(QUERIES)
    queries = QueryScores(
        "zero_shot",
        repetition=np.zeros(count, np.int64),
        ids=np.arange(count),
        labels=np.arange(count) // 20,
        map_at_r=np.clip(scores["map@r"] + 0.2 * rng.normal(size=count), 0, 1),
        recall_at_1=(rng.uniform(size=count) < scores["recall@1"]).astype(float),
    )
    return scoring._Scored(Scores(rows, [queries]), [], {}), "cpu"


def measure_all(study: Study) -> tuple[dict[str, Cost], dict[str, str]]:
    """The costs of the commands, and facts about what they wrote."""
    dmlbench = [sys.executable, "-m", "dmlbench"]
    costs = {}
    if not study.files.snapshot.exists():
        run_command([*SNAKEMAKE, "--cores", "2", "--until", "pack_store"])  # images; caches
    if not study.files.table.exists():
        costs["snakemake -n, nothing is there"] = run_command([*SNAKEMAKE, "-n"])
        costs["dmlbench status, nothing is there"] = run_command([*dmlbench, "status", study.name])
        # in another process: the memory of this one would count for the commands that it starts
        writer = multiprocessing.get_context("fork").Process(target=write_results, args=(study,))
        writer.start()
        writer.join()
    costs["dmlbench leaderboard"] = run_command([*dmlbench, "leaderboard", study.name])
    costs["dmlbench status"] = run_command([*dmlbench, "status", study.name])
    costs["dmlbench plan --diff"] = run_command([*dmlbench, "plan", "study.yaml", "--diff"])
    # without Snakemake's records of jobs, all of this is up to date by its keys and dates
    costs["snakemake -n, everything is there"] = run_command([*SNAKEMAKE, "-n"])
    page = study.files.page
    plots = [file for file in (study.files.leaderboard / "plots").rglob("*") if file.is_file()]
    facts = {
        "leaderboard.html": f"{page.stat().st_size / 1e6:.1f} MB",
        "plots": f"{len(plots)} files, {sum(f.stat().st_size for f in plots) / 1e6:.1f} MB",
    }
    return costs, facts


def measure_planning(study: Study) -> tuple[dict[str, Cost], dict[str, str]]:
    """The costs of planning a study of which nothing is there, and the number of its jobs."""
    dmlbench = [sys.executable, "-m", "dmlbench"]
    plan = [*dmlbench, "plan", "study.yaml"]
    run_command(plan)  # what timm offers, and how large models are, is asked once
    costs = {
        "snakemake -n, nothing is there": run_command([*SNAKEMAKE, "-n"]),
        "dmlbench plan, nothing is there": run_command(plan),
        "dmlbench plan --diff, nothing is there": run_command([*plan, "--diff"]),
        "dmlbench status, nothing is there": run_command([*dmlbench, "status", "study.yaml"]),
    }
    return costs, {"trials": f"{len(study.trials):,}", "tuned cells": f"{len(study.tuned_cells):,}"}


def run_command(command: list[str]) -> Cost:
    """Run `command` and measure it; its output goes to log.txt."""
    start = time.perf_counter()
    with Path("log.txt").open("a") as log:
        print("$", *command, file=log, flush=True)
        streams = [(os.POSIX_SPAWN_DUP2, log.fileno(), number) for number in (1, 2)]
        child = os.posix_spawnp(command[0], command, os.environ, file_actions=streams)
        _, status, used = os.wait4(child, 0)
    seconds = time.perf_counter() - start
    if status:
        sys.exit(f"{' '.join(command)} failed:\n{Path('log.txt').read_text()[-3000:]}")
    cost = Cost(seconds, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)
    print(" ".join(command), cost, file=sys.stderr)
    return cost


def measure_workflow(facts: dict[str, str]) -> Cost:
    """The cost of the whole workflow without that of its jobs.

    The table and the verdict are local jobs, as on a cluster; they are not counted either.
    """
    shutil.rmtree("results")
    shutil.rmtree(".snakemake")
    start = time.perf_counter()
    arguments = ["--executor", "instant", "--jobs", "200", "--latency-wait", "0", "--retries", "0"]
    run_command([*SNAKEMAKE, *arguments])
    report = json.loads(Path("instant.json").read_text())
    facts["submissions"] = f"{report['submissions']:,}"
    return Cost(time.perf_counter() - start, report["seconds"], report["memory_mb"])


def show(
    study: Study,
    costs: dict[str, Cost],
    facts: dict[str, str],
    load: float,
    limits: Mapping[str, tuple[int, int | None]],
) -> None:
    machine = f"{processor()}, {os.cpu_count()} cores, {platform.system()}"
    print(f"{len(study.runs):,} runs. {machine}; load {load:.1f}.\n")
    print("| command | seconds | CPU seconds | MB | asked for |\n|---|---:|---:|---:|---|")
    for name, cost in costs.items():
        seconds, memory = limits.get(name, (None, None))
        asked = [f"{seconds} s"] * (seconds is not None) + [f"{memory} MB"] * (memory is not None)
        missed = cost.seconds > (seconds or inf) or cost.memory_mb > (memory or inf)
        limit = ", ".join(asked) + " **missed**" * missed
        numbers = f"{cost.seconds:.1f} | {cost.cpu_seconds:.1f} | {cost.memory_mb:.0f}"
        print(f"| {name} | {numbers} | {limit} |")
    print("\n" + "; ".join(f"{name}: {fact}" for name, fact in facts.items()) + ".")


if __name__ == "__main__":
    main()
