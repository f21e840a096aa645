"""Where the CPU time of a study goes, besides the arithmetic of training and evaluation.

These are imports, files, tables, plots, MLflow and Snakemake. It runs a small study with the real
Snakemake, one job at a time, in a temporary folder, and prints a Markdown table of CPU seconds.

    python benchmarks/overhead.py

Each Python process of the study finds a `sitecustomize` that forks. The child becomes the process,
and records its seconds in imports (by package) and in the functions named in PARTS. The parent
records the CPU time of the whole child, including what Python does after the last line. The package
itself has no hooks. CPU seconds are user and system; they grow with other work on the machine,
because two threads share a core.
"""

from __future__ import annotations

import argparse
import compileall
import datetime
import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

from dmlbench.training.provenance import processor

ROOT = Path(__file__).parents[1]
RUN_TARGET, STUDY_TARGET = 8.0, 40.0
"""Most CPU seconds."""
STUDY = {
    "study": "overhead",
    "plan": {
        "datasets": ["letters"],
        "backbones": ["test_resnet"],
        "losses": ["softtriple", "htl", "proxy_anchor", "triplet"],
        "seeds": [0, 1],
    },
    "datasets": {"letters": {"type": "glyphs", "class_fraction": 0.1}},
    "backbones": {"test_resnet": {"dim": 128, "image_size": 32}},
    "recipe": {"epochs": 2, "batch_size": 80, "images_per_class": 4},
}
WRAPPED = {"triplet"}
"""Losses that import pytorch-metric-learning."""

ARITHMETIC = "arithmetic (not counted)"
BUILD, FILES = "model, loss, optimizer created", "files read and written"
PARTS = {
    "dmlbench.study.study.read_study": "study read and checked",
    "dmlbench.study.study.check_study": "study read and checked",
    "dmlbench.training.train.train": ARITHMETIC,
    "dmlbench.training.embedding.embed_test": ARITHMETIC,
    "dmlbench.training.controls.control_embeddings": ARITHMETIC,
    "dmlbench.evaluation.evaluate.evaluate": ARITHMETIC,
    "dmlbench.backbones.timm.create_trunk": BUILD,
    "dmlbench.losses.create_loss": BUILD,
    "dmlbench.training.train.create_optimizer": BUILD,
    "dmlbench.training.train.set_up": BUILD,
    "dmlbench.training.inputs.EmbeddingModel": BUILD,
    "dmlbench.training.provenance.provenance": "provenance",
    "dmlbench.training.provenance.measurements": "provenance",
    "dmlbench.training.job.TrainJob.write": FILES,
    "dmlbench.training.checkpoint.Checkpoint.save": FILES,
    "dmlbench.training.progress.Progress.step": FILES,
    "dmlbench.training.progress.Progress.epoch": FILES,
    "dmlbench.datasets.store.reader.Store": FILES,
    "dmlbench.utils.files.write_json": FILES,
    "dmlbench.evaluation.job._score": FILES,
    "dmlbench.datasets.store.pack.pack": "images made and packed",
    "dmlbench.leaderboard.build.build": "table and pages",
    "dmlbench.leaderboard.plots.figure.save": "plots",
    "dmlbench.leaderboard.plots.recall.recall": "plots",
    "dmlbench.leaderboard.plots.recall_curves.recall_curves": "plots",
    "dmlbench.leaderboard.plots.time.time": "plots",
    "dmlbench.leaderboard.plots.training.training": "plots",
    "dmlbench.leaderboard.plots.tree.tree": "plots",
    "dmlbench.tracking.sync.track": "results to MLflow",
}
"""Functions and classes, with the name of the part that their time belongs to. The time of imports
and of other functions of this list that they call is not included."""
PACKAGES = (
    "torch",
    "torch._dynamo",
    "torchvision",
    "timm",
    "pytorch_metric_learning",
    "numpy",
    "faiss",
    "pyarrow",
    "pandas",
    "matplotlib",
    "mlflow",
    "snakemake",
)
"""An import counts for the one of these that caused it: sympy counts for torch._dynamo."""

PROBE = """
import json, os, sys, time

PARTS, PACKAGES, FOLDER = json.loads(os.environ["OVERHEAD_PROBE"])
began = time.process_time()  # includes the time of the shell that this process was before
child = os.fork()
if child:
    _, status, used = os.wait4(child, 0)
    total = began + used.ru_utime + used.ru_stime
    if os.path.exists(path := f"{FOLDER}/{child}.json"):  # not of one that was killed
        with open(path) as file:
            content = json.load(file)
        with open(path, "w") as file:
            json.dump(content | {"argv": sys.orig_argv, "total": total, "began": began}, file)
    os._exit(os.waitstatus_to_exitcode(status) & 255)

import atexit, resource
from importlib import _bootstrap

last = time.process_time()
seconds, names = {}, ["rest"]

def tick(name):
    "Add the time since the last tick to `name`."
    global last
    now = time.process_time()
    seconds[name] = seconds.get(name, 0.0) + now - last
    last = now

def timed(function, part):
    def run(*arguments, **options):
        tick(names[-1])
        names.append(part)
        try:
            return function(*arguments, **options)
        finally:
            tick(names.pop())
    return run

def wrap(module):
    for path, part in PARTS.items():
        if not path.startswith(module + "."):
            continue
        *owner, name = path[len(module) + 1:].split(".")
        if len(owner) > 1:  # of a module below this one
            continue
        holder = vars(sys.modules[module]).get(owner[0]) if owner else sys.modules[module]
        if isinstance(item := vars(holder).get(name) if holder else None, type):
            item.__init__ = timed(item.__init__, part)
        elif item:
            setattr(holder, name, timed(item, part))

find_and_load = _bootstrap._find_and_load

def importing(name, import_):
    tick(names[-1])
    words = name.split(".")
    known = [p for n in range(len(words)) if (p := ".".join(words[:n + 1])) in PACKAGES]
    cause = names[-1].removeprefix("imports: ") if names[-1].startswith("imports: ") else "others"
    if known and not cause.startswith(known[-1] + "."):  # torch by torch._dynamo is of the latter
        cause = known[-1]
    names.append("imports: " + cause)
    try:
        module = find_and_load(name, import_)
    finally:
        tick(names.pop())
    if name.startswith("dmlbench"):
        wrap(name)
    return module

def record():
    tick(names[-1])
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    with open(f"{FOLDER}/{os.getpid()}.json", "w") as file:
        json.dump({"seconds": seconds, "started": used.ru_utime + used.ru_stime}, file)

def leave(code, leave=os._exit):
    record()
    leave(code)

_bootstrap._find_and_load = importing
atexit.register(record)
os._exit = leave
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--keep", type=Path, help="folder for the records of all processes")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        load = os.getloadavg()[0]
        planning, study = run_study(folder)
        if options.keep:
            shutil.copytree(folder / "records", options.keep, dirs_exist_ok=True)
    show(planning, study, load)


def run_study(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The records of a dry run, and of the run of the study."""
    compileall.compile_dir(ROOT / "dmlbench", quiet=1)  # as it is after the first call
    (folder / "probe").mkdir()
    (folder / "probe/sitecustomize.py").write_text(PROBE)
    (folder / "study.yaml").write_text(yaml.safe_dump(STUDY))
    environment = {name: os.environ[name] for name in os.environ if name != "MLFLOW_TRACKING_URI"}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    environment |= {
        "DMLBENCH_DATA": str(folder / "data"),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join([str(folder / "probe"), str(ROOT)]),
    }

    def snakemake(records: Path, *arguments: str) -> dict[str, Any]:
        records.mkdir(parents=True)
        probe = {"OVERHEAD_PROBE": json.dumps([PARTS, PACKAGES, str(records)])}
        command = ["snakemake", "--snakefile", str(ROOT / "Snakefile"), *arguments]
        command += ["--configfile", "study.yaml", "--cores", "1"]
        before = children()
        done = subprocess.run(
            command, cwd=folder, env=environment | probe, capture_output=True, text=True
        )
        if done.returncode:
            sys.exit(done.stdout + done.stderr)
        processes = [json.loads(file.read_text()) for file in records.glob("*.json")]
        return {"total": children() - before, "processes": processes}

    snakemake(folder / "records/first", "-n")  # the first run fills caches of this machine
    return snakemake(folder / "records/plan", "-n"), snakemake(folder / "records/run")


def children() -> float:
    """CPU seconds of the processes that this one has started."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def command_of(process: dict[str, Any]) -> str:
    """train, evaluate, ..., snakemake; for a training with the kind of its loss."""
    words = process["argv"]
    if "dmlbench" not in words:
        return "snakemake" if any(word.endswith("/snakemake") for word in words) else "other"
    command = words[words.index("dmlbench") + 1]
    if command != "train":
        return command
    loss = words[words.index("dmlbench") + 3].split("/")[2]
    kind = "control" if loss.startswith("control_") else "wrapped" if loss in WRAPPED else "native"
    return f"train {kind}"


def show(planning: dict[str, Any], study: dict[str, Any], load: float) -> None:
    """Print the tables.

    The time of Snakemake besides its jobs is the difference from a dry run.
    """
    by_command: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for process in study["processes"]:
        by_command[command_of(process)].append(process)
    (main,), (dry,) = by_command.pop("snakemake"), planning["processes"]
    by_command.pop("other", None)  # a job has started it, and counts it
    count = {name: len(jobs) for name, jobs in by_command.items()}
    share = (main["total"] - main["started"] - dry["total"]) / sum(count.values())
    columns = {name: average(by_command[name]) for name in sorted(by_command)}
    for parts in columns.values():
        parts["Snakemake, besides the job"] = share
    kinds = [name for name in columns if name.startswith("train")]
    once = [name for name in columns if name not in kinds and name != "evaluate"]
    arithmetic = sum(columns[name][ARITHMETIC] * count[name] for name in count)
    packages = ("torch", "torchvision", "timm", "pytorch-metric-learning", "snakemake", "mlflow")
    print(
        f"{datetime.date.today()}, {os.cpu_count()} cores of {processor()}, load {load:.1f} "
        f"before, Python {platform.python_version()}, "
        + ", ".join(f"{name} {version(name)}" for name in packages)
        + f"; {sum(count[kind] for kind in kinds)} runs, {sum(count.values())} jobs, one at a "
        f"time; CPU seconds, user and system. The whole call took {study['total']:.1f} of them, "
        f"{arithmetic:.1f} in the arithmetic of training and evaluation.\n"
    )
    print("Per run, by the kind of its loss (number of runs):\n")
    sums = table([*kinds, "evaluate"], columns, count)
    print("\n| a run: training and evaluation | CPU s | target |\n| --- | ---: | ---: |")
    for kind in kinds:
        print(line(kind.removeprefix("train "), sums[kind] + sums["evaluate"], RUN_TARGET))
    print("\nOnce per study:\n")
    sums = table(once, columns, count)
    starts = dry["began"] + sum(s for name, s in dry["seconds"].items() if "imports" in name)
    print("\n| a study, outside its runs | CPU s | target |\n| --- | ---: | ---: |")
    print(line("Snakemake: start and imports", starts))
    print(line("Snakemake: the study, planning, end", dry["total"] - starts))
    for name in once:
        print(line(name, sums[name]))
    print(line("all of these", dry["total"] + sum(sums[name] for name in once), STUDY_TARGET))


def average(processes: list[dict[str, Any]]) -> Counter[str]:
    """CPU seconds per process, by part."""
    parts: Counter[str] = Counter()
    for process in processes:
        for name, seconds in process["seconds"].items():
            parts[name] += seconds / len(processes)
        parts["interpreter's start"] += process["began"] / len(processes)
        parts["programs it starts"] += process["started"] / len(processes)
        parts["interpreter's end"] += process["total"] / len(processes)
    parts["interpreter's end"] -= sum(parts.values()) - parts["interpreter's end"]
    return parts


def table(
    kinds: list[str], columns: dict[str, Counter[str]], jobs: dict[str, int]
) -> dict[str, float]:
    """Print the parts of the jobs in `kinds`; return the sums outside arithmetic."""
    parts = {
        name: max(columns[kind][name] for kind in kinds) for kind in kinds for name in columns[kind]
    }
    shown = [n for n in sorted(parts, key=lambda n: -parts[n]) if parts[n] >= 0.01]
    shown = [name for name in shown if name != ARITHMETIC]
    head = [f"{kind} ({jobs[kind]})" for kind in kinds]
    print("| CPU s a job | " + " | ".join(head) + " |\n| --- |" + " ---: |" * len(kinds))
    for name in shown:
        print(row(name, [columns[kind][name] for kind in kinds]))
    sums = {kind: sum(columns[kind].values()) - columns[kind][ARITHMETIC] for kind in kinds}
    small = [sums[kind] - sum(columns[kind][name] for name in shown) for kind in kinds]
    print(row("less than 0.01 each", small))
    print(row("**outside arithmetic**", [*sums.values()]))
    if parts.get(ARITHMETIC):
        print(row(ARITHMETIC, [columns[kind][ARITHMETIC] for kind in kinds]))
    return sums


def row(name: str, values: list[float]) -> str:
    return f"| {name} | " + " | ".join(f"{value:.2f}" if value else "" for value in values) + " |"


def line(name: str, seconds: float, target: float | None = None) -> str:
    missed = " **missed**" if target and seconds > target else ""
    return f"| {name} | {seconds:.2f}{missed} | {f'<= {target:g}' if target else ''} |"


if __name__ == "__main__":
    main()
