"""`dmlbench merge`: the results of a study that were made in several places, in one folder.

Only results of the planned keys are taken. Where two places have the same run, the first one stays,
and what their scores differ by is said: nothing is averaged.
"""

from __future__ import annotations

import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dmlbench.leaderboard.table import read_available_results
from dmlbench.study.result_files import StudyFiles
from dmlbench.study.study import Study
from dmlbench.study.tuning import Trial, choice_key
from dmlbench.utils.errors import StudyError
from dmlbench.utils.text import count_of, listed

Content = dict[str, Any] | None
"""The content of a result; None if there is none of the planned key."""


@dataclass
class Merged:
    """What `merge` has done."""

    copied: dict[Path, int] = field(default_factory=dict)
    """Folder -> the number of results that were taken from it."""
    not_taken: dict[Path, list[str]] = field(default_factory=dict)
    """Folder -> its results that are not the planned ones, whole and complete."""
    twice: dict[str, float] = field(default_factory=dict)
    """Run that several places have -> the largest difference of a score, as a fraction."""
    differing: list[str] = field(default_factory=list)
    """Trials and choices that several places have, and not alike."""
    missing: list[str] = field(default_factory=list)
    """Planned runs that no place has."""

    def lines(self) -> Iterator[str]:
        """What a person wants to know about it."""
        for folder, count in self.copied.items():
            yield f"{folder}: {count_of(count, 'result')} taken"
        for folder, names in self.not_taken.items():
            yield listed(
                f"{folder}: not taken (other settings or code, unfinished or damaged)", names
            )
        if self.twice:
            yield (
                f"{count_of(len(self.twice), 'run')} in several places, of which the first stays; "
                f"their scores differ by at most {100 * max(self.twice.values()):.4f} points"
            )
            if differing := [f"{run}: {100 * by:.4f}" for run, by in self.twice.items() if by]:
                yield listed("points by which runs differ", differing)
        if self.differing:
            yield listed("not alike in all places, of which the first stays", self.differing)
        if self.missing:
            yield listed("no place has", self.missing)


def merge(study: Study, folders: Sequence[Path]) -> Merged:
    """Copy the results of `study` from `folders` into its own folder, where they are missing.

    Args:
        folders: folders of results, as results/<study>.

    Raises:
        StudyError: a folder holds no results.
    """
    for folder in folders:
        if not (folder / "runs").is_dir():
            raise StudyError(str(folder), ["it has no folder `runs`, so it holds no results."])
    merged = Merged()
    others = [folder for folder in folders if folder.resolve() != study.folder.resolve()]
    for item in _items(study):
        kept = item.read(study.files)
        for folder in others:
            there = StudyFiles(folder)
            found = item.read(there)
            if found is None:
                if item.source(there).exists():
                    merged.not_taken.setdefault(folder, []).append(item.name)
            elif kept is None:
                _copy(item.source(there), item.source(study.files))
                merged.copied[folder] = merged.copied.get(folder, 0) + 1
                kept = found
            else:
                item.compare(kept, found, merged)
        if kept is None and isinstance(item, _RunItem):
            merged.missing.append(item.name)
    return merged


def _items(study: Study) -> Iterator[_Item]:
    """The trials, choices and runs of a study."""
    for path, trial in study.trials.items():
        yield _TrialItem(path, trial)
    for cell, trials in study.tuned_cells.items():
        yield _ChoiceItem(cell, trials)
    for planned in study.rows:
        yield _RunItem(planned["path"], planned)


@dataclass(frozen=True)
class _Item(ABC):
    """A result that is copied as one."""

    name: str

    @abstractmethod
    def source(self, files: StudyFiles) -> Path:
        """Its file or folder."""

    @abstractmethod
    def read(self, files: StudyFiles) -> Content:
        """Its content, if it has the planned key and is whole."""

    def compare(self, kept: Mapping[str, Any], other: Mapping[str, Any], merged: Merged) -> None:
        """Note what the results of two places differ in."""
        names = ("status", "scores", "chosen")
        if any(kept.get(name) != other.get(name) for name in names):
            merged.differing.append(self.name)


@dataclass(frozen=True)
class _TrialItem(_Item):
    trial: Trial

    def source(self, files: StudyFiles) -> Path:
        return files.trial(self.name).folder

    def read(self, files: StudyFiles) -> Content:
        of_trial = files.trial(self.name)
        content = of_trial.read_trial()
        is_planned = content and content["key"] == self.trial.key and of_trial.is_whole(content)
        return content if is_planned else None


@dataclass(frozen=True)
class _ChoiceItem(_Item):
    trials: Sequence[Trial]

    def source(self, files: StudyFiles) -> Path:
        return files.chosen(self.name)

    def read(self, files: StudyFiles) -> Content:
        content = files.choice(self.name).read_chosen()
        return content if content and content["key"] == choice_key(self.trials) else None


@dataclass(frozen=True)
class _RunItem(_Item):
    planned: Mapping[str, Any]
    """The run, as `Study.rows` gives it."""

    def source(self, files: StudyFiles) -> Path:
        return files.run(self.name).folder

    def read(self, files: StudyFiles) -> Content:
        results = read_available_results([self.planned], files)
        return dict(results[0].metrics) if results else None

    def compare(self, kept: Mapping[str, Any], other: Mapping[str, Any], merged: Merged) -> None:
        ours, theirs = (
            {(row["protocol"], row["metric"]): row["value"] for row in content["metrics"]}
            for content in (kept, other)
        )
        by = max((abs(ours[name] - theirs[name]) for name in ours.keys() & theirs), default=0.0)
        merged.twice[self.name] = max(by, merged.twice.get(self.name, 0.0))


def _copy(source: Path, target: Path) -> None:
    """Copy a file or a folder into the place of what is there; a copy that is cut short is none."""
    part = target.with_name(f".{target.name}.part")
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_file():
        shutil.copy2(source, part)
    else:
        shutil.rmtree(part, ignore_errors=True)
        shutil.copytree(source, part)
        shutil.rmtree(target, ignore_errors=True)
    part.replace(target)
