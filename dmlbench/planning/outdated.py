"""Lets Snakemake run what is pending, without its own notes of earlier calls.

Snakemake runs a job if an input is newer than its output. Dates of files say nothing about results
that were copied or moved, and its notes, the folder .snakemake/, may be lost. So a pending job gets
one more input, which is always newer; and for every other job, the dates of its inputs are ignored.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from dmlbench.planning.pending import Pending, find_pending
from dmlbench.planning.reasons import why_track
from dmlbench.study.study import Study

MARKER = Path(".snakemake/outdated")
"""The input of pending jobs: a link to a folder with a date in the future.

Snakemake follows the link when it looks what to run. It does not when it checks, after a job, that
no input is newer than the output. Of a folder it notes no content, by which it could find later
that the input is the same as before.
"""
FUTURE = 2**31 - 2**20
"""A date in 2038: nearly the latest that every file system can hold."""


class Inputs:
    """The inputs of the jobs of a study, as Snakemake gets them."""

    def __init__(
        self,
        study: Study,
        stores: Path,
        ignore_date: Callable[[str], Any],
        is_asked: bool = True,
        is_forced: bool = False,
    ) -> None:
        """
        Args:
            stores: the folder of the packed images.
            ignore_date: Snakemake's `ancient`.
            is_asked: whether to look what is pending. If not, nothing is.
            is_forced: whether the user forces jobs to run. Then what comes after them runs too.
        """
        self.study, self.stores, self.is_asked = study, stores, is_asked
        self._ancient = ignore_date
        self._runs_pending_alone = is_asked and not is_forced

    @cached_property
    def pending(self) -> Pending:
        """What `dmlbench plan --diff` shows."""
        if not self.is_asked:
            return Pending()
        pending = find_pending(self.study, self.stores)
        for file in self._outputs_of(pending):
            with contextlib.suppress(FileNotFoundError):
                if file.stat().st_mtime == 0:  # some archives; Snakemake takes it for no date
                    os.utime(file)
        return pending

    def _outputs_of(self, pending: Pending) -> Iterator[Path]:
        """The files that the pending jobs will write, except for those of the stores.

        For Snakemake, the table of the seconds that a job took is one of them.
        """
        files = self.study.files
        for path in pending.trials:
            trial = files.trial(path)
            yield from (trial.trial, trial.curve, trial.benchmark)
        for cell in pending.choices:
            yield files.chosen(cell)
        for path in pending.train:
            yield from (*files.run(path).training_files, files.run(path).train_benchmark)
        for path in pending.evaluate:
            yield from (files.run(path).metrics, files.run(path).evaluate_benchmark)
        for group in pending.galleries:
            yield files.gallery(group).made_of
        if pending.last:
            yield from (files.tracked, files.verdict, *files.leaderboard.rglob("*"))
            yield from files.logs.glob("*.benchmark.tsv")

    @cached_property
    def marker(self) -> str:
        """The file that makes a job run. Several processes may make it, all the same."""
        folder = MARKER.with_name(f"{MARKER.name}.since")
        folder.mkdir(parents=True, exist_ok=True)
        if not MARKER.is_symlink():
            shutil.rmtree(MARKER, ignore_errors=True)  # a copy of this folder has no links
            with contextlib.suppress(FileExistsError):
                MARKER.symlink_to(folder.name)
        for path, date in {folder: FUTURE, MARKER: 0}.items():
            if path.lstat().st_mtime != date:  # another user, who may own it, has not set it
                os.utime(path, (date, date), follow_symlinks=False)
        return str(MARKER)

    def made_if_missing(self, files: Sequence[str], is_pending: bool) -> list[Any]:
        """Inputs that are made if they are missing, and are never a reason to run a job again: its
        key says which they are.

        A pending job has them as they are: Snakemake does not run what comes after an `ancient`
        file that is there and is made again all the same. Any other job has those that are there:
        what is missing may be made for a pending job, and then Snakemake would run this one too.
        """
        if is_pending:
            return [*files]
        if self._runs_pending_alone:
            files = [file for file in files if Path(file).is_file()]
        return [self._ancient(file) for file in files]

    def of_trial(self, path: str) -> list[Any]:
        """Beside the images and the weights or the features."""
        return self._inputs([], path in self.pending.trials)

    def of_choice(self, cell: str) -> list[Any]:
        trials = self.study.tuned_cells[cell]
        files = [self.study.files.trial(trial.path).trial for trial in trials]
        return self._inputs(files, cell in self.pending.choices)

    def of_training(self, path: str) -> list[Any]:
        """Beside the images and the weights."""
        run = self.study.runs[path]
        files = [self.study.files.chosen(run.cell)] if run.tuning else []
        return self._inputs(files, path in self.pending.train)

    def of_search(self, trained: str, tested: str) -> list[str]:
        """Beside the images."""
        return [self.marker] if (trained, tested) in self.pending.duplicates else []

    def of_features(self, path: str) -> list[str]:
        """Beside the images and the weights."""
        return [self.marker] if path in self.pending.features else []

    def of_scoring(self, path: str) -> list[Any]:
        files = self.study.files.run(path)
        return self._inputs([files.run, files.embeddings], path in self.pending.evaluate)

    def of_leaderboard(self) -> list[Any]:
        return self._inputs(self._results(), bool(self.pending.leaderboard))

    def of_pictures(self, group: str) -> list[Any]:
        """Beside the images. Embeddings that are missing are no reason to train: a page says so."""
        runs = [self.study.files.run(run.path) for run in self.study.galleries[group]]
        files = [file for run in runs for file in (run.run, run.metrics)]
        return self._inputs(files, group in self.pending.galleries)

    def of_tracking(self, leaderboard: Iterable[object]) -> list[Any]:
        """`leaderboard`: its files."""
        pending = self.pending
        is_written_again = bool(pending.leaderboard or pending.galleries)
        is_pending = is_written_again or (self.is_asked and bool(why_track(self.study)))
        return self._inputs([*self._results(), *leaderboard, *self._galleries()], is_pending)

    def of_verdict(self) -> list[Any]:
        files = self.study.files
        runs = [files.run(path).metrics for path in self.study.runs]
        # before failed runs lose their files
        tracked = [files.tracked] if self.study.settings.tracking else []
        made = [*runs, files.table, *self._galleries(), *tracked]
        return self._inputs(made, bool(self.pending.verdict))

    def _galleries(self) -> list[Path]:
        return [self.study.files.gallery(group).made_of for group in self.study.galleries]

    def _results(self) -> list[Path]:
        files = self.study.files
        runs = [files.run(path) for path in self.study.runs]
        of_runs = [file for run in runs for file in (run.run, run.metrics, run.history)]
        return [*map(files.chosen, self.study.tuned_cells), *of_runs]

    def _inputs(self, files: Iterable[object], is_pending: bool) -> list[Any]:
        if is_pending:
            return [*map(str, files), self.marker]
        ignore_date = self._ancient if self._runs_pending_alone else str
        return [ignore_date(str(file)) for file in files]
