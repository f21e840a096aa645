"""Result files of a study's runs -> one table in long format."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from dmlbench.files import MissingResult, read_result

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = [
    *("study", "dataset", "tested_on", "backbone", "loss", "seed", "protocol", "metric", "value"),
    *("status", "error", "train_key", "eval_key", "git_commit", "device", "driver"),
    *("train_seconds", "peak_memory_mb", "images_per_second"),
]
VERSION = "version_"
RECALL = re.compile(r"recall@\d+")
CONTROL = "control_"
EMBEDDINGS = "embeddings_"
NAMES = ("dataset", "tested_on", "backbone", "loss", "seed")


@dataclass(frozen=True)
class Result:
    """The files of one planned run."""

    plan: Mapping[str, Any]
    run: Mapping[str, Any]
    metrics: Mapping[str, Any]
    folder: Path

    @property
    def history(self) -> Path:
        return self.folder / "history.parquet"

    @cached_property
    def epochs(self) -> pd.DataFrame:
        """The history, a row an epoch."""
        import pandas as pd

        return pd.read_parquet(self.history)


class Panel(NamedTuple):
    """One data set, with the one that it is tested on, backbone and protocol. Failed runs, which
    have no protocol, are in each."""

    dataset: str
    tested_on: str
    backbone: str
    protocol: str | None
    rows: pd.DataFrame

    @property
    def title(self) -> str:
        """As "cub200 · tiny · zero_shot", or "mine → lfw · tiny · verification"."""
        other = f" → {self.tested_on}" if self.tested_on != self.dataset else ""
        return " · ".join(p for p in (self.dataset + other, self.backbone, self.protocol) if p)


def is_control(loss: str) -> bool:
    """Whether `loss` names a row that needs no training: random, untrained, oracle."""
    return loss.startswith(CONTROL)


def is_trained(loss: str) -> bool:
    """Whether `loss` was trained by the study: no control, and no embeddings made elsewhere."""
    return not loss.startswith((CONTROL, EMBEDDINGS))


def label(loss: str) -> str:
    """`loss` as people read it."""
    if loss.startswith(EMBEDDINGS):
        return f"{loss.removeprefix(EMBEDDINGS)} (embeddings)"
    return loss.removeprefix(CONTROL)


def read(runs: Sequence[Mapping[str, Any]], results: Path) -> list[Result]:
    """Read run.json and metrics.json of each planned run.

    `runs` holds {"dataset", "tested_on", "backbone", "loss", "seed", "path", "train_key",
    "eval_key"} each, with the run's folder `path` under `results`. Raises MissingResult, naming
    all of them, if files are missing or carry other keys than planned.
    """
    found, problems = [], []
    for plan in runs:
        folder = results / plan["path"]
        try:
            run, metrics = (read_result(folder / name) for name in ("run.json", "metrics.json"))
        except MissingResult as error:
            problems.append(str(error))
            continue
        found.append(Result(plan, run, metrics, folder))
        problems += [
            f"{folder / name}: {key} is {content.get(key)}, the study expects {plan[key]}"
            for name, content, key in [
                ("run.json", run, "train_key"),
                ("metrics.json", metrics, "train_key"),
                ("metrics.json", metrics, "eval_key"),
            ]
            if content.get(key) != plan[key]
        ]
    if problems:
        raise MissingResult("results that are not this study's:\n" + "\n".join(problems))
    return found


def tabulate(results: Sequence[Result]) -> pd.DataFrame:
    """One row a (run, protocol, metric), in the order of the plan; a failed run has one row, with
    its status and error and without protocol, metric and value."""
    import pandas as pd

    rows = []
    for result in results:
        origin, metrics = result.run["provenance"], result.metrics
        error = metrics.get("error") or {}
        shared = {
            **{key: result.plan[key] for key in NAMES},
            **{key: origin[key] for key in COLUMNS if key in origin},
            **{VERSION + name: version for name, version in origin.get("versions", {}).items()},
            "study": result.run["study"],
            "status": metrics["status"],
            "error": error.get("message"),
            "train_key": metrics["train_key"],
            "eval_key": metrics["eval_key"],
        }
        rows += [shared | row for row in (metrics["metrics"] or [{}])]
    versions = sorted({key for row in rows for key in row if key.startswith(VERSION)})
    numbers = dict.fromkeys(
        ["value", "train_seconds", "peak_memory_mb", "images_per_second"], "float64"
    )
    return pd.DataFrame(rows, columns=[*COLUMNS, *versions]).astype(numbers)


def panels(table: pd.DataFrame) -> Iterator[Panel]:
    """The parts of the long table whose scores compare."""
    for names, runs in table.groupby(["dataset", "tested_on", "backbone"], sort=False):
        dataset, tested_on, backbone = map(str, names)
        protocols = runs["protocol"].dropna().unique()
        for protocol in protocols if len(protocols) else [None]:
            rows = runs[(runs["protocol"] == protocol) | runs["protocol"].isna()]
            yield Panel(dataset, tested_on, backbone, protocol, rows)


def recalls(rows: pd.DataFrame) -> list[str]:
    """The metrics recall@K among `rows`, by K."""
    found = rows["metric"].dropna().unique()
    return sorted((m for m in found if RECALL.fullmatch(m)), key=lambda m: int(m[7:]))


def write_csv(table: pd.DataFrame, path: Path) -> None:
    """Write `table` so that every float reads back exactly (`float_precision="round_trip"`)."""
    table.to_csv(path, index=False, lineterminator="\n")
