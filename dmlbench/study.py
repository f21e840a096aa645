"""A study: a checked settings file, and the grid of its runs.

A study file defines in mappings (`losses`, `backbones`, `datasets`) and selects in lists
(`plan`), because Snakemake merges mappings and replaces lists. Loading one imports no torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from dmlbench import source
from dmlbench.grid import grid
from dmlbench.problems import StudyError, describe, did_you_mean
from dmlbench.remarks import Remarks, remarks, wrong_remarks
from dmlbench.run import Run, key
from dmlbench.settings import Settings

RESULTS = Path("results")
TABLES = "dmlbench.leaderboard"
"""The module that makes the table."""
SNAPSHOT = "study.json"
"""The settings of a study as it was last run, in its folder of results."""


@dataclass(frozen=True)
class Study:
    settings: Settings
    runs: dict[str, Run]
    """By their path `dataset/backbone/loss/seed<k>`, in the order of the plan."""

    @property
    def name(self) -> str:
        return self.settings.study

    @property
    def folder(self) -> Path:
        return RESULTS / self.name

    @cached_property
    def stores(self) -> dict[str, Run]:
        """A run of each packed store, by the store's name."""
        both = (each for run in self.runs.values() for each in (run, run.tested))
        return {run.store: run for run in both}

    @cached_property
    def leaderboard_key(self) -> str:
        """Digest of all results and remarks that the leaderboard shows, and of its code."""
        return key(
            {path: (run.eval_key, run.tested.dataset) for path, run in self.runs.items()},
            self.remarks,
            self.remarks.published,
            source.digest(TABLES),
        )

    @cached_property
    def remarks(self) -> Remarks:
        return remarks(self.settings)

    def tracking_key(self, uri: str) -> str:
        """Digest of all results that MLflow at `uri` is told of, and of the code that does."""
        return key(
            self.leaderboard_key,
            uri,
            self.settings.track_embeddings,
            source.digest("dmlbench.tracking"),
        )

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The runs as the leaderboard's rows: their names, path and keys."""
        return [
            {
                "dataset": run.dataset,
                "tested_on": run.tested.dataset,
                "backbone": run.backbone,
                "loss": run.loss,
                "seed": run.seed,
                "path": path,
                "train_key": run.train_key,
                "eval_key": run.eval_key,
            }
            for path, run in self.runs.items()
        ]

    def run(self, path: str) -> Run:
        try:
            return self.runs[path]
        except KeyError:
            hint = did_you_mean(path, self.runs)
            raise StudyError(self.name, [f"{path}: no such run in the plan. {hint}"]) from None


def read(path: str | Path) -> Study:
    """Read and check the study file `path` (YAML, or JSON as the workflow resolves it); a study's
    name, or its folder of results, means the settings that it was last run with."""
    try:
        settings = yaml.safe_load(_file(Path(path)).read_text("utf-8"))
    except FileNotFoundError:
        known = sorted(snapshot.parent.name for snapshot in RESULTS.glob(f"*/{SNAPSHOT}"))
        hint = f" Studies with results here: {', '.join(known)}." if known else ""
        raise StudyError(str(path), [f"there is no such file.{hint}"]) from None
    except OSError as error:
        raise StudyError(str(path), [f"it cannot be read: {error.strerror}."]) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise StudyError(str(path), [f"this is not YAML: {error}"]) from None
    return check(settings, str(path))


def _file(named: Path) -> Path:
    if not named.is_file():
        for folder in (named, RESULTS / named):
            if (folder / SNAPSHOT).is_file():
                return folder / SNAPSHOT
    return named


def check(settings: Any, file: str) -> Study:
    """Check `settings`, as read from `file`.

    Raises:
        StudyError: with all that is wrong in one message.
    """
    if not isinstance(settings, dict):
        raise StudyError(file, [f"it holds {type(settings).__name__}, and a study is a mapping."])
    try:
        checked = Settings.model_validate(settings)
    except ValidationError as error:
        raise StudyError(file, describe(error, Settings)) from None
    problems: list[str] = []
    runs = {run.path: run for run in grid(checked, settings.get("recipe") or {}, problems)}
    problems += wrong_remarks(settings, checked)
    if problems:
        raise StudyError(file, dict.fromkeys(problems))  # each once, in order
    return Study(checked, runs)
