"""The result files of a study as one table in long format."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from dmlbench.study.result_files import RunFiles, StudyFiles
from dmlbench.utils.errors import MissingResult
from dmlbench.utils.text import literal
from dmlbench.utils.workers import SentWithoutCache

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = [
    "study",
    "dataset",
    "tested_on",
    "backbone",
    "loss",
    "seed",
    "protocol",
    "metric",
    "value",
    "status",
    "error",
    "train_key",
    "eval_key",
    "git_commit",
    "device",
    "driver",
    "train_seconds",
    "peak_memory_mb",
    "images_per_second",
]
NUMBERS = ("value", "train_seconds", "peak_memory_mb", "images_per_second")
"""Columns of floats."""
NAMES = ("dataset", "tested_on", "backbone", "loss", "seed")
"""Columns that name a run."""
RETRIEVAL = {
    "map@r": "MAP@R",
    "r_precision": "R-Precision",
    "map": "MAP",
    "mrr": "MRR",
    "h_ap": "H-AP",
    "asi": "ASI",
    "ndcg": "NDCG",
    "nmi": "NMI",
    "ami": "AMI",
}
"""Names of the metrics of retrieval and clustering. The first one ranks losses. H-AP, ASI and NDCG
need super-classes."""
VERIFICATION = {"verification_accuracy": "Verification accuracy"}
"""Names of the metrics where pairs are verified. The first one ranks losses."""
VERSION = "version_"
"""Prefix of the columns of library versions."""
RECALL = re.compile(r"recall@\d+")


@dataclass(frozen=True)
class Result(SentWithoutCache):
    """The result files of one planned run."""

    planned: Mapping[str, Any]
    """Names, path and keys of the run in the plan; see `read_results`."""
    run: Mapping[str, Any]
    """The content of run.json."""
    metrics: Mapping[str, Any]
    """The content of metrics.json."""
    files: RunFiles

    @cached_property
    def epochs(self) -> pd.DataFrame:
        """history.parquet: a row for each epoch."""
        from pyarrow.parquet import ParquetFile

        # pandas' own reader takes three times as long, and a study may have 10,000 of these files
        with ParquetFile(self.files.history) as file:
            return file.read().to_pandas()


class Hole(NamedTuple):
    """Why a planned run has no result."""

    status: str
    message: str


NO_HOLES: Mapping[str, Hole] = MappingProxyType({})


class HoleResult(Result):
    """A planned run that has no result: it counts as one that failed. No file of it is read."""

    @cached_property
    def epochs(self) -> pd.DataFrame:
        """No rows."""
        import pandas as pd

        return pd.DataFrame({"epoch": [], "loss": []})


class Panel(NamedTuple):
    """The rows of one data set, test data set, backbone and protocol.

    A failed run has no protocol and is in every panel of its data set and backbone.
    """

    dataset: str
    tested_on: str
    backbone: str
    protocol: str | None
    rows: pd.DataFrame

    @property
    def title(self) -> str:
        """For example "cub200 · tiny · zero_shot", or "mine → lfw · tiny · verification"."""
        other = f" → {self.tested_on}" if self.tested_on != self.dataset else ""
        parts = (self.dataset + other, self.backbone, self.protocol)
        return " · ".join(part for part in parts if part)

    @property
    def metrics(self) -> dict[str, str]:
        """Names of the metrics of its task. The first one sorts the table and ranks losses."""
        return VERIFICATION if VERIFICATION.keys() & set(self.rows["metric"]) else RETRIEVAL

    @property
    def main_metric(self) -> str:
        return next(iter(self.metrics))

    def holds(self, result: Result) -> bool:
        """Whether `result` is of this data set, test data set and backbone."""
        names = ("dataset", "tested_on", "backbone")
        return all(result.planned[name] == getattr(self, name) for name in names)


def read_results(
    runs: Sequence[Mapping[str, Any]], study: StudyFiles, holes: Mapping[str, Hole] = NO_HOLES
) -> list[Result]:
    """Read run.json and metrics.json of each planned run.

    Args:
        runs: the planned runs, as `Study.rows` gives them. Each has "dataset", "tested_on",
            "backbone", "loss", "seed", "path", "train_key", "eval_key" and "settings".
        holes: path of a run that has no result -> why. Its files are not read.

    Raises:
        MissingResult: files are missing, damaged or have other keys than planned; the text names
            them all.
    """
    results: list[Result] = []
    problems: list[str] = []
    for planned in runs:
        files = study.run(planned["path"])
        if hole := holes.get(planned["path"]):
            results.append(_make_hole(planned, study, files, hole))
            continue
        try:
            run, metrics = files.load_run(), files.load_metrics()
        except MissingResult as error:
            problems.append(str(error))
            continue
        results.append(Result(planned, run, metrics, files))
        problems += [
            f"{file}: {key} is {content[key]}, the study expects {planned[key]}"
            for file, content, key in [
                (files.run, run, "train_key"),
                (files.metrics, metrics, "train_key"),
                (files.metrics, metrics, "eval_key"),
            ]
            if content[key] != planned[key]
        ]
        if metrics["training"] != run["digest"]:
            problems.append(f"{files.metrics}: these are the scores of another training")
        for content in (run, metrics):
            problems += [f"{file}: {problem}" for file, problem in files.find_problems(content)]
    if problems:
        raise MissingResult("results that are not this study's:\n" + "\n".join(problems))
    return results


def read_available_results(runs: Iterable[Mapping[str, Any]], study: StudyFiles) -> list[Result]:
    """The results of planned runs, in their order, without missing and outdated ones."""
    results: list[Result] = []
    for planned in runs:
        with suppress(MissingResult):
            results += read_results([planned], study)
    return results


def _make_hole(
    planned: Mapping[str, Any], study: StudyFiles, files: RunFiles, hole: Hole
) -> HoleResult:
    """What stands for a result that is not there."""
    ending = {"status": hole.status, "error": {"message": hole.message, "tail": []}}
    settings = {"study": study.folder.name, "settings": planned["settings"], "provenance": {}}
    keys = {key: planned[key] for key in ("train_key", "eval_key")}
    return HoleResult(planned, settings | ending, keys | ending | {"metrics": []}, files)


def tabulate(results: Sequence[Result]) -> pd.DataFrame:
    """The long table: one row for each run, protocol and metric, in the order of the plan.

    A failed run has one row, with its status and error, and without protocol, metric and value.
    The columns are COLUMNS and one for each library version. `value` is a fraction, not percent;
    `peak_memory_mb` is in MB.
    """
    import pandas as pd

    rows = []
    for result in results:
        provenance, metrics = result.run["provenance"], result.metrics
        error = metrics.get("error") or {}
        versions = provenance.get("versions", {})
        shared = {
            **{key: result.planned[key] for key in NAMES},
            **{key: provenance[key] for key in COLUMNS if key in provenance},
            **{VERSION + name: version for name, version in versions.items()},
            "study": result.run["study"],
            "status": metrics["status"],
            "error": _plain(error.get("message")),
            "train_key": metrics["train_key"],
            "eval_key": metrics["eval_key"],
        }
        rows += [shared | row for row in (metrics["metrics"] or [{}])]
    version_columns = sorted({key for row in rows for key in row if key.startswith(VERSION)})
    columns = [*COLUMNS, *version_columns]
    return pd.DataFrame(rows, columns=columns).astype(dict.fromkeys(NUMBERS, "float64"))


def _plain(message: str | None) -> str | None:
    """An error's message, whose lines no terminal obeys."""
    return message and "\n".join(map(literal, message.splitlines()))


def panels(table: pd.DataFrame) -> Iterator[Panel]:
    """The parts of the long `table` inside which scores can be compared."""
    for names, runs in table.groupby(["dataset", "tested_on", "backbone"], sort=False):
        dataset, tested_on, backbone = map(str, names)
        protocols = runs["protocol"].dropna().unique()
        for protocol in protocols if len(protocols) else [None]:
            rows = runs[(runs["protocol"] == protocol) | runs["protocol"].isna()]
            yield Panel(dataset, tested_on, backbone, protocol, rows)


def recalls(rows: pd.DataFrame) -> list[str]:
    """The metrics recall@K among `rows` of the long table, in the order of K.

    >>> import pandas as pd
    >>> recalls(pd.DataFrame({"metric": ["recall@10", "map@r", "recall@2"]}))
    ['recall@2', 'recall@10']
    """
    metrics = rows["metric"].dropna().unique()
    return sorted((m for m in metrics if RECALL.fullmatch(m)), key=lambda m: int(m[7:]))


def write_csv(table: pd.DataFrame, path: Path) -> None:
    """Write the long `table`; pandas' `float_precision="round_trip"` reads every float exactly.

    The message of an error is the one text that a study does not check. If it begins as a formula
    does, a ' is before it: a spreadsheet would run it.
    """
    errors = table["error"].map(_not_a_formula, na_action="ignore")
    table.assign(error=errors).to_csv(path, index=False, lineterminator="\n")


def _not_a_formula(text: str) -> str:
    """
    >>> _not_a_formula("=1+1"), _not_a_formula("no = sign")
    ("'=1+1", 'no = sign')
    """
    return f"'{text}" if text.startswith(("=", "+", "-", "@")) else text
