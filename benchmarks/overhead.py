"""Where the processor's time of a study goes, beside the arithmetic of training and evaluation:
imports, files, tables, plots, MLflow, Snakemake. Runs a small study with the real Snakemake, one
job at a time, in a folder of its own, and prints a Markdown table of CPU seconds by part.

    python benchmarks/overhead.py

Each Python process of the study finds a `sitecustomize` that forks: the child is the process, and
notes its seconds in imports (by package) and in the functions named in PARTS; its parent notes
what it took as a whole, to the end that Python makes after the last line. The package itself has
no hooks. CPU seconds are user and system; beside other work they grow, as a core's two threads
share it.
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
BAR_RUN, BAR_STUDY = 8.0, 40.0
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
WRAPPED = {"triplet"}  # losses that import pytorch-metric-learning

ARITHMETIC = "arithmetic (not counted)"
BUILD, FILES = "model, loss, optimiser made", "files read and written"
PARTS = {
    "dmlbench.study.read": "study read and checked",
    "dmlbench.study.check": "study read and checked",
    "dmlbench.training.train.train": ARITHMETIC,
    "dmlbench.training.train.embed_test": ARITHMETIC,
    "dmlbench.training.controls.control_embeddings": ARITHMETIC,
    "dmlbench.evaluation.evaluate": ARITHMETIC,
    "dmlbench.backbones.timm.create_trunk": BUILD,
    "dmlbench.losses.create_loss": BUILD,
    "dmlbench.training.train.create_optimizer": BUILD,
    "dmlbench.training.train.set_up": BUILD,
    "dmlbench.training.train.EmbeddingModel": BUILD,
    "dmlbench.training.provenance.provenance": "provenance",
    "dmlbench.training.provenance.measured": "provenance",
    "dmlbench.training.job._write": FILES,
    "dmlbench.training.checkpoint.Checkpoint.save": FILES,
    "dmlbench.training.progress.Progress.step": FILES,
    "dmlbench.training.progress.Progress.epoch": FILES,
    "dmlbench.datasets.store.Store": FILES,
    "dmlbench.files.write_json": FILES,
    "dmlbench.evaluation.job._score": FILES,
    "dmlbench.datasets.pack.pack": "images made and packed",
    "dmlbench.leaderboard.build": "table and pages",
    "dmlbench.leaderboard.plots.figure.save": "plots",
    "dmlbench.leaderboard.plots.recall.recall": "plots",
    "dmlbench.leaderboard.plots.recall_curves.recall_curves": "plots",
    "dmlbench.leaderboard.plots.time.time": "plots",
    "dmlbench.leaderboard.plots.training.training": "plots",
    "dmlbench.leaderboard.plots.tree.tree": "plots",
    "dmlbench.tracking.track": "results to MLflow",
}
"""Functions and classes, and what their time counts as, less that of others of this list and of
imports that they call."""
PACKAGES = (
    *("torch", "torch._dynamo", "torchvision", "timm", "pytorch_metric_learning"),
    *("numpy", "faiss", "pyarrow", "pandas", "matplotlib", "mlflow", "snakemake"),
)
"""An import counts for the one of these that asked for it: sympy counts for torch._dynamo."""

PROBE = """
import json, os, sys, time

PARTS, PACKAGES, FOLDER = json.loads(os.environ["OVERHEAD_PROBE"])
began = time.process_time()  # with that of the shell that this process was
child = os.fork()
if child:
    _, status, used = os.wait4(child, 0)
    total = began + used.ru_utime + used.ru_stime
    if os.path.exists(path := f"{FOLDER}/{child}.json"):  # not of one that was killed
        with open(path) as file:
            noted = json.load(file)
        with open(path, "w") as file:
            json.dump(noted | {"argv": sys.orig_argv, "total": total, "began": began}, file)
    os._exit(os.waitstatus_to_exitcode(status) & 255)

import atexit, resource
from importlib import _bootstrap

last = time.process_time()
seconds, names = {}, ["rest"]

def tick(name):
    "Give the time since the last tick to `name`."
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
        if isinstance(found := vars(holder).get(name) if holder else None, type):
            found.__init__ = timed(found.__init__, part)
        elif found:
            setattr(holder, name, timed(found, part))

find_and_load = _bootstrap._find_and_load

def importing(name, import_):
    tick(names[-1])
    words = name.split(".")
    known = [p for n in range(len(words)) if (p := ".".join(words[:n + 1])) in PACKAGES]
    asked = names[-1].removeprefix("imports: ") if names[-1].startswith("imports: ") else "others"
    if known and not asked.startswith(known[-1] + "."):  # torch by torch._dynamo is of the latter
        asked = known[-1]
    names.append("imports: " + asked)
    try:
        module = find_and_load(name, import_)
    finally:
        tick(names.pop())
    if name.startswith("dmlbench"):
        wrap(name)
    return module

def note():
    tick(names[-1])
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    with open(f"{FOLDER}/{os.getpid()}.json", "w") as file:
        json.dump({"seconds": seconds, "started": used.ru_utime + used.ru_stime}, file)

def leave(code, leave=os._exit):
    note()
    leave(code)

_bootstrap._find_and_load = importing
atexit.register(note)
os._exit = leave
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--keep", type=Path, help="folder that keeps what each process noted")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        load = os.getloadavg()[0]
        planning, study = run_study(folder)
        if options.keep:
            shutil.copytree(folder / "notes", options.keep, dirs_exist_ok=True)
    show(planning, study, load)


def run_study(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a dry run noted, and what the study's run did."""
    compileall.compile_dir(ROOT / "dmlbench", quiet=1)  # as after the first call
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

    def snakemake(notes: Path, *arguments: str) -> dict[str, Any]:
        notes.mkdir(parents=True)
        probe = {"OVERHEAD_PROBE": json.dumps([PARTS, PACKAGES, str(notes)])}
        command = ["snakemake", "--snakefile", str(ROOT / "Snakefile"), *arguments]
        command += ["--configfile", "study.yaml", "--cores", "1"]
        before = children()
        done = subprocess.run(
            command, cwd=folder, env=environment | probe, capture_output=True, text=True
        )
        if done.returncode:
            sys.exit(done.stdout + done.stderr)
        processes = [json.loads(file.read_text()) for file in notes.glob("*.json")]
        return {"total": children() - before, "processes": processes}

    snakemake(folder / "notes/first", "-n")  # what this machine keeps from the first time on
    return snakemake(folder / "notes/plan", "-n"), snakemake(folder / "notes/run")


def children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def command_of(process: dict[str, Any]) -> str:
    """train, evaluate, ..., snakemake; of a training, by which kind of loss."""
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
    """The tables. What Snakemake takes beside its jobs is what it takes more than a dry run."""
    noted: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for process in study["processes"]:
        noted[command_of(process)].append(process)
    (main,), (dry,) = noted.pop("snakemake"), planning["processes"]
    noted.pop("other", None)  # started by a job, and counted there
    count = {name: len(jobs) for name, jobs in noted.items()}
    share = (main["total"] - main["started"] - dry["total"]) / sum(count.values())
    columns = {name: average(noted[name]) for name in sorted(noted)}
    for parts in columns.values():
        parts["Snakemake, beside the job"] = share
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
    print("Of a run, by the kind of its loss (how many):\n")
    sums = table([*kinds, "evaluate"], columns, count)
    print("\n| a run: training and evaluation | CPU s | bar |\n| --- | ---: | ---: |")
    for kind in kinds:
        print(line(kind.removeprefix("train "), sums[kind] + sums["evaluate"], BAR_RUN))
    print("\nOnce a study:\n")
    sums = table(once, columns, count)
    starts = dry["began"] + sum(s for name, s in dry["seconds"].items() if "imports" in name)
    print("\n| a study, outside its runs | CPU s | bar |\n| --- | ---: | ---: |")
    print(line("Snakemake: start and imports", starts))
    print(line("Snakemake: the study, planning, end", dry["total"] - starts))
    for name in once:
        print(line(name, sums[name]))
    print(line("all of it", dry["total"] + sum(sums[name] for name in once), BAR_STUDY))


def average(processes: list[dict[str, Any]]) -> Counter[str]:
    """CPU seconds a process, by part."""
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
    """Print the parts of the jobs in `kinds`, and give the sums outside arithmetic."""
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


def line(name: str, seconds: float, bar: float | None = None) -> str:
    missed = " **missed**" if bar and seconds > bar else ""
    return f"| {name} | {seconds:.2f}{missed} | {f'<= {bar:g}' if bar else ''} |"


if __name__ == "__main__":
    main()
