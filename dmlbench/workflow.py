"""What the Snakefile needs beside the study itself."""

from __future__ import annotations

import fcntl
import os
import platform
from datetime import datetime
from pathlib import Path
from typing import TextIO

from dmlbench.cost import images
from dmlbench.datasets import DatasetError, load
from dmlbench.files import read_json_if_whole, write_json
from dmlbench.gpus import SCORED_FROM
from dmlbench.problems import StudyError
from dmlbench.run import Run
from dmlbench.study import SNAPSHOT, Study

GPU_CORES = 9
"""Cores of a training on a GPU, at most: one drives it, the others prepare images (ahead.py)."""
_held: list[TextIO] = []  # open for as long as this process lives


def look_for_images(study: Study, stores: Path) -> None:
    """Look whether the images of the data sets of one's own are there where they are to be packed,
    and are those of the store where they are packed.

    Raises:
        StudyError: with what is missing.
    """
    problems = {}
    for run in study.stores.values():
        if not run.data.options:
            continue
        dataset = load(run.data.type, run.data.options)
        try:
            manifest = read_json_if_whole(stores / run.store / "manifest.json")
            if manifest is None:
                dataset.check()
            else:
                _same_place(stores / run.store, manifest["settings"]["place"], dataset.place)
        except DatasetError as error:
            problems[f"datasets.{run.dataset}: {error}"] = True
    if problems:
        raise StudyError(study.name, problems)


def _same_place(store: Path, packed: str, named: Path) -> None:
    """A folder that was moved holds the same images; two folders with equal lists need not."""
    if Path(packed) != named.resolve() and Path(packed).exists():
        raise DatasetError(
            f"{store} was packed from {packed}, which is still there, and {named} is named. If "
            "they hold other images, give the entry another name or `revision`; if the same, name "
            "the former, or remove it."
        )


def training_threads(run: Run, cores: int, at_once: int) -> int:
    """Cores of a training of which `at_once` run on GPUs, on a machine with `cores` for jobs: its
    share, for the threads that prepare its images. What is left is for those that score. On a CPU
    (`at_once` 0) as many as the recipe says.

    No number depends on it: arithmetic on the CPU has `recipe.cpu_threads`.
    """
    threads = run.recipe.cpu_threads
    if not (at_once and run.uses_model):
        return threads
    return max(threads, min(GPU_CORES, (cores - run.evaluation.threads) // at_once))


def scoring_gpus(run: Run, store: Path) -> int:
    """GPUs of the scoring of `run`, whose test images are in `store`: 1 where they are many."""
    count = (images(run.tested, store) or {}).get("test", 0)
    return int(count * run.tested.data.class_fraction >= SCORED_FROM)


def claim(study: Study) -> None:
    """Work on `study` alone, and note its settings in study.json, which the jobs read.

    A kernel lock in place of Snakemake's own, which outlives a killed process and then wants an
    unlock by hand.

    Raises:
        StudyError: another process works on this study.
    """
    try:
        study.folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        message = f"there can be no folder of this name ({error.strerror}): rename the study."
        raise StudyError(str(study.folder), [message]) from None
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
    snapshot, settings = study.folder / SNAPSHOT, study.settings.model_dump(mode="json")
    if read_json_if_whole(snapshot) != settings:
        write_json(snapshot, settings)
