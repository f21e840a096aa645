"""The files of the trials of a study, and of what is chosen from them.

results/<study>/tuning/<dataset>/<backbone>/<loss>/
  chosen.json                the settings and the number of epochs for the final runs
  choose.log
  trial<i>/trial.json        settings, key, status, scores and provenance
  trial<i>/curve.parquet     a row for each fold and epoch
  trial<i>/log.txt
state/<dataset>/<backbone>/<loss>/trial<i>/    what an unfinished trial needs to continue
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dmlbench.study.result_shape import load_result
from dmlbench.study.tuning_shape import check_chosen, check_trial
from dmlbench.utils.digests import describe_file, is_unchanged, write_with_digest
from dmlbench.utils.errors import MissingResult

MAKES_NUMBERS = False


@dataclass(frozen=True)
class TrialFiles:
    """The files of a trial."""

    folder: Path
    state: Path
    """The folder of an unfinished trial; removed when it is finished."""

    @property
    def trial(self) -> Path:
        """Settings, key, status, scores and provenance."""
        return self.folder / "trial.json"

    @property
    def curve(self) -> Path:
        """One row for each fold and epoch: `fold`, `epoch`, `step`, `loss`, `lr`, `score`."""
        return self.folder / "curve.parquet"

    @property
    def log(self) -> Path:
        return self.folder / "log.txt"

    @property
    def benchmark(self) -> Path:
        """Snakemake's table of the seconds that the job took."""
        return self.folder / "trial.benchmark.tsv"

    def load_trial(self) -> dict[str, Any]:
        """The content of trial.json.

        Raises:
            MissingResult: it is missing or damaged.
        """
        return load_result(self.trial, check_trial)

    def read_trial(self) -> dict[str, Any] | None:
        """trial.json; None if it is missing or damaged."""
        with contextlib.suppress(MissingResult):
            return self.load_trial()
        return None

    def write_trial(self, content: Mapping[str, Any]) -> None:
        """Write trial.json, the last file of a trial, which also says what the curve is.

        Raises:
            ValueError: it cannot be the result of a trial.
        """
        content = {**content, "files": {self.curve.name: describe_file(self.curve)}}
        check_trial(content)
        write_with_digest(self.trial, content)

    def is_whole(self, trial: Mapping[str, Any]) -> bool:
        """Whether the curve is the one that the trial wrote; `trial` is the content of
        trial.json."""
        try:
            return is_unchanged(self.curve, trial["files"][self.curve.name])
        except OSError:
            return False


@dataclass(frozen=True)
class ChoiceFiles:
    """The files of the choice of a cell."""

    folder: Path

    @property
    def chosen(self) -> Path:
        """What was chosen, from which trials."""
        return self.folder / "chosen.json"

    @property
    def log(self) -> Path:
        return self.folder / "choose.log"

    def load_chosen(self) -> dict[str, Any]:
        """The content of chosen.json.

        Raises:
            MissingResult: it is missing or damaged.
        """
        return load_result(self.chosen, check_chosen)

    def read_chosen(self) -> dict[str, Any] | None:
        """chosen.json; None if it is missing or damaged."""
        with contextlib.suppress(MissingResult):
            return self.load_chosen()
        return None

    def write_chosen(self, content: Mapping[str, Any]) -> None:
        """Write chosen.json.

        Raises:
            ValueError: it cannot be a choice.
        """
        check_chosen({**content})
        write_with_digest(self.chosen, content)
