"""`dmlbench submit`: start the driver of a study, or follow the one that works on it.

The driver is always a process of its own, without a terminal. The command that started it shows its
log, and passes Ctrl-C on. So a driver outlives its terminal, and can be followed from another one.
"""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from dmlbench.study.study import Study
from dmlbench.utils.errors import WrongEnvironment
from dmlbench.workflow.driver import find_driver, hold_driver_file
from dmlbench.workflow.launch import workflow_folder
from dmlbench.workflow.scheduler import has_scheduler
from dmlbench.workflow.supervisor import TICK, Orphans, Supervisor

PROFILE_FILES = ("profile.yaml", "config.yaml")
TAIL_BYTES = 10_000
"""How much of the log is shown to somebody who looks later."""
BUILT_IN = frozenset({"local", "dryrun", "touch"})
"""Executors of Snakemake that need no plugin."""


def submit(
    study: Study,
    file: Path,
    profile: str,
    passed_on: Sequence[str],
    orphans: Orphans,
    detach: bool,
) -> int:
    """See `study` through on a cluster, in the background; an exit code.

    Args:
        file: its file.
        profile: a folder with a profile of Snakemake, or the name of one in `profiles/`.
        passed_on: more arguments of Snakemake.
        orphans: what is done with jobs of an earlier call.
        detach: return at once.

    Raises:
        WrongEnvironment: there is no such profile, or its executor is not installed.
    """
    log = study.files.submit_log
    if driver := find_driver(study):
        print(f"{study.name}: `dmlbench submit` works on it already: {driver.describe()}")
        if detach or not log.is_file():
            return 0
        print("This is its log. Ctrl-C ends this view, not the driver.", flush=True)
        _follow_driver(study, log)
        return 0
    folder = find_profile(profile)
    executor = find_executor(folder, passed_on)
    arguments = ["--workflow-profile", str(folder), *passed_on]
    log.parent.mkdir(parents=True, exist_ok=True)
    start = log.stat().st_size if log.is_file() else 0
    log.touch()
    if pid := os.fork():
        if not detach:
            return _accompany(pid, log, start)
        print(f"{study.name}: submitted by process {pid}; log: {log}")
        print(f"`dmlbench status {study.name}` shows how far it is; `dmlbench submit` follows it;")
        print(f"`kill -INT {pid}` stops it.")
        return 0
    _leave_terminal(log)
    with hold_driver_file(study, log) as driver_file, log.open("ab") as output:
        if driver_file is None:  # another call was faster
            return 0
        on_slurm = executor == "slurm"
        supervisor = Supervisor(study, file, arguments, on_slurm, orphans, driver_file, output)
        return supervisor.run()


def find_profile(name: str) -> Path:
    """The folder of a profile: `name`, or the one of this name in the project's `profiles/`.

    Raises:
        WrongEnvironment: there is none.
    """
    shipped = workflow_folder() / "profiles"
    for folder in (Path(name), shipped / name):
        if any((folder / file).is_file() for file in PROFILE_FILES):
            return folder.resolve()
    names = sorted(folder.name for folder in shipped.glob("*") if folder.is_dir())
    raise WrongEnvironment(
        f"--profile {name}: there is no folder {name} with a {PROFILE_FILES[0]}. Name one, or one "
        f"of the profiles here: {', '.join(names)}."
    )


def find_executor(profile: Path, arguments: Sequence[str]) -> str:
    """The executor that Snakemake will use, as `slurm`.

    Raises:
        WrongEnvironment: it is not installed.
    """
    executor = "local"
    for file in PROFILE_FILES:
        # a profile that cannot be read gets Snakemake's own message
        with contextlib.suppress(OSError, UnicodeDecodeError, yaml.YAMLError):
            content = yaml.safe_load((profile / file).read_text("utf-8"))
            if isinstance(content, dict):
                executor = str(content.get("executor", executor))
            break
    for option, value in itertools.pairwise(arguments):
        if option in ("--executor", "-e"):
            executor = value
    plugin = f"snakemake_executor_plugin_{executor.replace('-', '_')}"
    if executor not in BUILT_IN and not importlib.util.find_spec(plugin):
        package = plugin.replace("_", "-")
        raise WrongEnvironment(
            f"{profile}: the executor {executor} is not installed. Run `pip install {package}`."
        )
    if executor == "slurm" and not has_scheduler():
        raise WrongEnvironment(
            f"{profile}: it submits to SLURM, and this machine has no command squeue. Call "
            "`dmlbench submit` where jobs are submitted, or name another --profile."
        )
    return executor


def _leave_terminal(log: Path) -> None:
    """Let this process outlive its terminal, and write to `log`."""
    os.setsid()
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    sys.stdout.flush()
    null, output = os.open(os.devnull, os.O_RDONLY), os.open(log, os.O_WRONLY | os.O_APPEND)
    for number, source in enumerate((null, output, output)):
        os.dup2(source, number)


def _accompany(pid: int, log: Path, start: int) -> int:
    """Show the log of the driver `pid` from `start` on, and pass signals on; its exit code."""

    def pass_on(number: int, _frame: Any) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGINT)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, pass_on)
    with log.open("rb") as file:
        file.seek(start)
        while True:
            ended, state = os.waitpid(pid, os.WNOHANG)
            _show(file.read())
            if ended:
                code = os.waitstatus_to_exitcode(state)
                return code if code >= 0 else 128 - code
            time.sleep(TICK)


def _follow_driver(study: Study, log: Path) -> None:
    """Show the end of the log of the driver of `study`, until it ends or until Ctrl-C."""
    with log.open("rb") as file, contextlib.suppress(KeyboardInterrupt):
        file.seek(max(0, log.stat().st_size - TAIL_BYTES))
        while True:
            works = find_driver(study)
            _show(file.read())
            if not works:
                return
            time.sleep(TICK)


def _show(text: bytes) -> None:
    sys.stdout.buffer.write(text)
    sys.stdout.flush()
