"""What the Snakefile needs beside the study itself."""

from __future__ import annotations

import fcntl
import os
import platform
from datetime import datetime
from pathlib import Path
from typing import TextIO

from dmlbench.datasets import DatasetError, load
from dmlbench.files import read_json, write_json
from dmlbench.problems import StudyError
from dmlbench.study import Run, Study

_held: list[TextIO] = []  # open for as long as this process lives


def look_for_images(study: Study, stores: Path) -> None:
    """Look whether the images are there, of the data sets of one's own that are to be packed.

    Raises:
        StudyError: with what is missing.
    """
    problems = {}
    for run in study.stores.values():
        try:
            if run.data.options and not is_packed(run, stores):
                load(run.data.type, run.data.options).check()
        except DatasetError as error:
            problems[f"datasets.{run.dataset}: {error}"] = True
    if problems:
        raise StudyError(study.name, problems)


def is_packed(run: Run, stores: Path) -> bool:
    """Whether the store of `run` is there and holds the images that the study expects."""
    try:
        return read_json(stores / run.store / "manifest.json")["facts"] == run.facts
    except FileNotFoundError:
        return False


def claim(study: Study) -> None:
    """Work on `study` alone, and note its settings in study.json, which the jobs read.

    A kernel lock in place of Snakemake's own, which outlives a killed process and then wants an
    unlock by hand.

    Raises:
        StudyError: another process works on this study.
    """
    study.folder.mkdir(parents=True, exist_ok=True)
    lock = (study.folder / "lock").open("a+")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.seek(0)
        raise StudyError(
            str(study.folder), [f"{lock.read().strip()} works on it: wait for it, or stop it."]
        ) from None
    lock.truncate(0)
    now = datetime.now().isoformat(timespec="seconds")
    lock.write(f"process {os.getpid()} on {platform.node()}, since {now},\n")
    lock.flush()
    _held.append(lock)
    snapshot, settings = study.folder / "study.json", study.settings.model_dump(mode="json")
    if not snapshot.is_file() or read_json(snapshot) != settings:
        write_json(snapshot, settings)
