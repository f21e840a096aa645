"""A copy of the project that tests run as a user does, with real Snakemake."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import yaml

ROOT = Path(__file__).parents[1]
PARTS = ("Snakefile", "dmlbench", "workflow", "profiles", "config", "envs")
STUDY = "results/tiny"
RUNS = f"{STUDY}/runs/letters/tiny"
TARGETS = ("total", "all", "default")


class Project:
    """A copy of the project in a folder of its own, with a study and what it has computed."""

    def __init__(self, folder, data_folder):
        self.folder = folder
        self.environment = {
            **os.environ,
            "DMLBENCH_DATA": str(data_folder),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        }

    def write(self, study):
        (self.folder / "study.yaml").write_text(yaml.safe_dump(study))

    def edit(self, file, old, new):
        path = self.folder / file
        text = path.read_text()
        assert text.count(old) == 1, f"{file}: {text.count(old)} x {old}"
        path.write_text(text.replace(old, new))

    def start(self, *arguments, cores=2, study="study.yaml"):
        """`snakemake` in a process group of its own, as a terminal gives it one."""
        command = ["snakemake", "--configfile", study, "--cores", str(cores), *arguments]
        return subprocess.Popen(
            command,
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(self, *arguments, expect=0, timeout=300, **options):
        """Output of a call that must end with the exit code `expect`."""
        process = self.start(*arguments, **options)
        try:
            output, _ = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise
        assert process.returncode == expect, output
        return output

    def planned(self, *arguments):
        """Jobs that a call would run now, by rule: {} when there is nothing to be done."""
        output = self.run("--dry-run", *arguments)
        if "Nothing to be done" in output:
            return {}
        table = output.rpartition("Job stats:")[2]
        jobs = {rule: int(n) for rule, n in re.findall(r"^(\w+) +(\d+)$", table, re.MULTILINE)}
        return {rule: n for rule, n in jobs.items() if rule not in TARGETS}

    def diff(self, expected):
        """What `dmlbench plan --diff` says, once it agrees with Snakemake and with `expected`."""
        output = self.dmlbench("plan", "--diff", "study.yaml")
        counted = output.splitlines()[0].partition("; to do: ")[2]
        jobs = {rule: int(count) for rule, count in re.findall(r"(\w+) (\d+)", counted)}
        planned = self.planned()
        assert (jobs, planned) == (expected, expected), output
        return output

    def dmlbench(self, *arguments):
        """Output of a command that must succeed."""
        command = [sys.executable, "-m", "dmlbench", *arguments]
        own = {"PYTHONPATH": str(self.folder)}
        return subprocess.run(
            command, cwd=self.folder, env=self.environment | own, stdout=-1, text=True, check=True
        ).stdout

    def failed_jobs(self):
        """The part of `dmlbench status` about jobs that failed; empty without one."""
        return self.dmlbench("status", "study.yaml").partition("These jobs failed")[2]

    def json(self, path):
        return json.loads((self.folder / path).read_text())

    def metrics(self):
        """The metrics of all runs, by their file."""
        files = sorted((self.folder / RUNS).glob("*/*/metrics.json"))
        return {
            str(f.relative_to(self.folder)): json.loads(f.read_text())["metrics"] for f in files
        }

    def embeddings(self, loss):
        with np.load(self.folder / RUNS / loss / "seed0/embeddings.npz") as file:
            return file["embeddings"]

    def wait_for_step(self, loss, step, timeout=120):
        """Wait until the training of `loss` says that it has done `step` steps; its process."""
        path = self.folder / STUDY / "state/letters/tiny" / loss / "seed0/progress.json"
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            if path.is_file() and (state := json.loads(path.read_text()))["step"] >= step:
                return state["pid"]
            time.sleep(0.02)
        raise TimeoutError(path)


def copy_project(folder):
    """Copy what Snakemake needs of the project into the new folder `folder`."""
    folder.mkdir(parents=True)
    for part in PARTS:
        if (ROOT / part).is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / part, folder / part, ignore=ignored)
        else:
            shutil.copy2(ROOT / part, folder)
    return folder
