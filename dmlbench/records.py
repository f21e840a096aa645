"""Result files of a study -> what MLflow is told of them, as plain records; see tracking.py."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from hashlib import sha256
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from dmlbench import source

if TYPE_CHECKING:
    from dmlbench.leaderboard.table import Result
    from dmlbench.study import Run, Study

COSTS = ("train_seconds", "peak_memory_mb", "images_per_second")
COUNTS = ("queries", "lone_queries")
SPLITS = ("train", "test")
NOTE, LONGEST = "mlflow.note.content", 8000  # characters of a tag


class Point(NamedTuple):
    """One value of a metric."""

    name: str
    value: float
    time: int
    """Milliseconds since 1970."""
    step: int


@dataclass(frozen=True)
class Record:
    """All that MLflow is told of one run."""

    name: str
    start: int
    end: int
    failed: bool = False
    tags: dict[str, str] = field(default_factory=dict)
    params: dict[str, str] = field(default_factory=dict)
    points: list[Point] = field(default_factory=list)
    datasets: list[dict[str, str]] = field(default_factory=list)
    artefacts: list[tuple[Path, str]] = field(default_factory=list)
    """Files, each with its folder among the run's artefacts."""


class Entry(NamedTuple):
    """A run that MLflow must hold: what it is, and how to make it if that is another."""

    path: str
    parent: str | None
    """Path of the run that it stands under."""
    digest: str
    record: Callable[[], Record]


def read_results(study: Study) -> list[Result]:
    from dmlbench.files import MissingResult
    from dmlbench.leaderboard.table import read

    found: list[Result] = []
    for row in study.rows:
        with contextlib.suppress(MissingResult):
            found += read([row], study.folder / "runs")
    return found


def entries(study: Study, results: Sequence[Result]) -> Iterator[Entry]:
    """What MLflow must hold of `results`, a cell before its seeds."""
    yield from _leaderboard(study, results)
    yield from _cells(study, results)


def _leaderboard(study: Study, results: Sequence[Result]) -> Iterator[Entry]:
    """The table, the page and the plots, where there are any: a run beside the cells'."""
    folder = study.folder / "leaderboard"
    files = sorted(path for path in folder.rglob("[!.]*") if path.is_file())

    def record() -> Record:
        spans = [_span(result.run["provenance"]) for result in results]
        return Record(
            name="leaderboard",
            start=min(start for start, _ in spans),
            end=max(end for _, end in spans),
            tags={"dmlbench.kind": "leaderboard", **_page(folder), **_source(folder)},
            artefacts=[(file, "/".join(file.relative_to(folder).parts[:-1])) for file in files],
        )

    if files and results:
        yield Entry("leaderboard", None, _digest(*files), record)


def _cells(study: Study, results: Sequence[Result]) -> Iterator[Entry]:
    """An entry for each cell of the grid, and after it one for each of its seeds."""
    for path, group in groupby(results, key=lambda result: str(Path(result.plan["path"]).parent)):
        seeds = list(group)
        below = [_seed(study, path, result) for result in seeds]
        means = source.digest("dmlbench.leaderboard.statistics")
        digest = _digest(means, *(entry.digest for entry in below))
        yield Entry(path, None, digest, partial(_cell_record, study, seeds))
        yield from below


def _seed(study: Study, cell: str, result: Result) -> Entry:
    plan = study.runs[result.plan["path"]]
    folder = study.folder / "runs" / plan.path
    files = [folder / "run.json", folder / "metrics.json"]
    learnt = (folder / "artefacts" / name for name in result.run.get("artefacts", []))
    files += [file for file in learnt if file.is_file()]
    if study.settings.track_embeddings and result.metrics["status"] == "ok":
        files.append(folder / "embeddings.npz")
    digest = _digest(plan.eval_key, plan.store, plan.tested.dataset, result.history, *files)
    return Entry(plan.path, cell, digest, partial(_seed_record, plan, result, folder, files))


def _seed_record(plan: Run, result: Result, folder: Path, files: Sequence[Path]) -> Record:
    origin, metrics = result.run["provenance"], result.metrics
    start, end = _span(origin)
    curves = _curves(result.history, start, end)
    last = max((point.step for point in curves), default=0)
    scores = {_named(row): row["value"] for row in metrics["metrics"]}
    scores |= {f"cost/{name}": origin[name] for name in COSTS if origin.get(name) is not None}
    return Record(
        name=" · ".join([plan.loss, plan.backbone, plan.dataset, f"seed{plan.seed}"]),
        start=start,
        end=end,
        failed=metrics["status"] != "ok",
        tags={
            "dmlbench.kind": "seed",
            "dmlbench.train_key": metrics["train_key"],
            "dmlbench.eval_key": metrics["eval_key"],
            "dmlbench.folder": folder.as_posix(),
            **_tested_on(plan),
            **_failure(metrics),
            **_source(folder / "run.json"),
            **_commit(origin.get("git_commit")),
            **{name: origin[name] for name in ("device", "driver", "host") if origin.get(name)},
            **{f"version.{name}": text for name, text in origin.get("versions", {}).items()},
        },
        params=_params(plan, result),
        points=[*curves, *(Point(name, scores[name], end, last) for name in scores)],
        datasets=_datasets(plan),
        artefacts=[(file, "") for file in files],
    )


def _cell_record(study: Study, seeds: Sequence[Result]) -> Record:
    """Mean and interval over the seeds, under the names that the seeds' own values have."""
    plan = study.runs[seeds[0].plan["path"]]
    spans = [_span(result.run["provenance"]) for result in seeds]
    end = max(end for _, end in spans)
    done = sum(result.metrics["status"] == "ok" for result in seeds)
    params = _params(plan, seeds[0])
    del params["seed"]
    return Record(
        name=" · ".join([plan.loss, plan.backbone, plan.dataset]),
        start=min(start for start, _ in spans),
        end=end,
        failed=not done,
        tags={
            "dmlbench.kind": "cell",
            "dmlbench.seeds": f"{done} of {len(seeds)}",
            **_tested_on(plan),
            **_source(study.folder / "runs" / plan.path / "run.json"),
            **_commit(seeds[0].run["provenance"].get("git_commit")),
        },
        params=params,
        points=[Point(name, value, end, 0) for name, value in _summary(seeds).items()],
        datasets=_datasets(plan),
    )


def _summary(seeds: Sequence[Result]) -> dict[str, float]:
    """Mean of each metric over the seeds of a cell, and half the width of its 95 % interval as
    `<metric>_ci95`, where there are two seeds or more and it is no count of images."""
    from dmlbench.leaderboard.statistics import summarise
    from dmlbench.leaderboard.table import panels, tabulate

    found: dict[str, float] = {}
    for panel in panels(tabulate(seeds)):
        for _, row in summarise(panel.rows).reset_index().iterrows():
            name = _named({"protocol": panel.protocol, "metric": row["metric"]})
            found[name] = float(row["mean"])
            if row["seeds"] > 1 and row["metric"] not in COUNTS:
                found[f"{name}_ci95"] = float(row["half_width"])
    return found


def _digest(*parts: str | Path) -> str:
    """16 hex digits over texts, the contents of files, and the code that makes runs of them."""
    total = sha256()
    for part in (Path(__file__), Path(__file__).with_name("tracking.py"), *parts):
        content = part.encode() if isinstance(part, str) else part.read_bytes()
        total.update(sha256(content).digest())
    return total.hexdigest()[:16]


def _params(plan: Run, result: Result) -> dict[str, str]:
    """The names, and all settings that decided the numbers."""
    names = {"dataset": plan.dataset, "backbone": plan.backbone, "loss": plan.loss}
    settings = {**result.run["settings"], "evaluation": plan.metric_settings}
    return {**names, **_flat(settings)}


def _span(origin: Mapping[str, Any]) -> tuple[int, int]:
    """Start and end in milliseconds. A training that was interrupted began before its last
    attempt: at the latest as long before its end as it trained."""
    start, end = (
        round(1000 * datetime.fromisoformat(origin[name]).timestamp())
        for name in ("started", "finished")
    )
    return min(start, end - round(1000 * origin.get("train_seconds", 0))), end


def _curves(history: Path, start: int, end: int) -> list[Point]:
    """The columns of the history by step, each at the time when its epoch ended: the seconds
    trained until then, from the start."""
    import pyarrow.parquet as pq

    columns = pq.ParquetFile(history).read().to_pydict()
    steps, seconds = columns.pop("step", []), columns.pop("seconds", [])
    elapsed, points = 0.0, []
    for row, step in enumerate(steps):
        elapsed += seconds[row]
        time = min(start + round(1000 * elapsed), end)
        points += [
            Point(f"training/{name}", float(values[row]), time, step)
            for name, values in columns.items()
            if values[row] is not None
        ]
    return points


def _named(row: Mapping[str, Any]) -> str:
    """The metric's name in MLflow, which has no @: zero_shot/recall_at_1, zero_shot/map_at_r,
    zero_shot/recall_at_1_level_1."""
    return f"{row['protocol']}/{row['metric'].replace('@', '_at_').replace(' ', '_')}"


def _page(folder: Path) -> dict[str, str]:
    """The leaderboard's page as MLflow's description, as far as a tag may be long, and without
    the plots, which are not beside it there; all of it is among the artefacts."""
    file = folder / "leaderboard.md"
    lines = file.read_text("utf-8").splitlines() if file.is_file() else []
    text = "\n".join(line for line in lines if not line.startswith("!["))
    return {NOTE: text[:LONGEST]} if text else {}


def _tested_on(run: Run) -> dict[str, str]:
    """The data set that it is tested on, where that is another one."""
    return {"dmlbench.tested_on": run.tested.dataset} if run.elsewhere else {}


def _failure(metrics: Mapping[str, Any]) -> dict[str, str]:
    """Status, and what MLflow shows as the description of a run that failed."""
    tags = {"dmlbench.status": metrics["status"]}
    if error := metrics.get("error"):
        tags["dmlbench.error"] = error["message"]
        tail = "\n".join(error["tail"])
        tags[NOTE] = f"**{metrics['status']}**: {error['message']}\n\n```\n{tail}\n```"
    return tags


def _source(file: Path) -> dict[str, str]:
    """What made the run, and who: the owner of its files."""
    tags = {"mlflow.source.name": "dmlbench", "mlflow.source.type": "LOCAL"}
    with contextlib.suppress(KeyError):  # an owner without a name on this machine
        tags["mlflow.user"] = file.owner()
    return tags


def _commit(described: str | None) -> dict[str, str]:
    if not described:
        return {}
    dirty = str(described.endswith("-dirty")).lower()
    commit = described.removesuffix("-dirty")
    return {"mlflow.source.git.commit": commit, "mlflow.source.git.dirty": dirty}


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """{"recipe.augmentation.flip": "false", ...}: values as the study file writes them."""
    flat: dict[str, str] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value if isinstance(value, str) else json.dumps(value)
    return flat


def _datasets(run: Run) -> list[dict[str, str]]:
    """The two splits, by the facts that are in the run's key."""
    datasets = []
    for split, of in zip(SPLITS, (run, run.tested), strict=True):
        identity = f"{of.store} {of.data.class_fraction}"
        datasets.append(
            {
                "name": f"{of.data.type}-{split}",
                "digest": sha256(f"{split} {identity}".encode()).hexdigest()[:16],
                "source_type": "local",
                "source": json.dumps({"uri": f"data/stores/{of.store}"}),
                "profile": json.dumps({**of.facts, "class_fraction": of.data.class_fraction}),
            }
        )
    return datasets
