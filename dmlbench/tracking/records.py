"""The MLflow runs of a study as plain records, made from its result files; see sync.py."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from hashlib import sha256
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from dmlbench.tracking.costs import costs_of_cell, costs_of_run
from dmlbench.utils.fingerprint import code_digest, module_digest
from dmlbench.utils.nested import flatten

if TYPE_CHECKING:
    from dmlbench.leaderboard.table import Result
    from dmlbench.study.run import Run
    from dmlbench.study.study import Study

CODE = ("dmlbench.tracking.records", "dmlbench.tracking.costs", "dmlbench.tracking.sync")
"""The modules that make MLflow runs. A change of their code replaces all runs."""
COUNTS = ("queries", "lone_queries", "pairs")
"""Metrics that count images: they have no interval."""
SPLITS = ("train", "test")
NOTE_TAG = "mlflow.note.content"
"""The tag that MLflow shows as the description of a run."""
MAX_NOTE = 8000
"""Characters; a tag of MLflow cannot be longer."""


class Point(NamedTuple):
    """One value of a metric."""

    name: str
    value: float
    time: int
    """Milliseconds since 1970."""
    step: int


@dataclass(frozen=True)
class Record:
    """The whole content of an MLflow run."""

    name: str
    start: int
    """Milliseconds since 1970."""
    end: int
    """Milliseconds since 1970."""
    failed: bool = False
    tags: dict[str, str] = field(default_factory=dict)
    params: dict[str, str] = field(default_factory=dict)
    points: list[Point] = field(default_factory=list)
    datasets: list[dict[str, str]] = field(default_factory=list)
    """The training split and the test split."""
    artefacts: list[tuple[Path, str]] = field(default_factory=list)
    """Files, each with its folder among the run's artefacts."""


class Entry(NamedTuple):
    """A run that MLflow must hold."""

    path: str
    """The identity of the run."""
    parent: str | None
    """The path of its parent run."""
    digest: str
    """The run is replaced when this changes."""
    make_record: Callable[[], Record]


def entries(study: Study, results: Sequence[Result]) -> Iterator[Entry]:
    """The runs that MLflow must hold for `results`; a cell comes before its seeds."""
    yield from _leaderboard_entry(study, results)
    yield from _cell_entries(study, results)


def _leaderboard_entry(study: Study, results: Sequence[Result]) -> Iterator[Entry]:
    """A run with the table, the page and the plots, if there are any."""
    folder = study.files.leaderboard
    files = sorted(path for path in folder.rglob("[!.]*") if path.is_file())

    def make_record() -> Record:
        times = [_start_and_end(result.run["provenance"]) for result in results]
        return Record(
            name="leaderboard",
            start=min(start for start, _ in times),
            end=max(end for _, end in times),
            tags={"dmlbench.kind": "leaderboard", **_page_tag(folder), **_source_tags(folder)},
            artefacts=[(file, "/".join(file.relative_to(folder).parts[:-1])) for file in files],
        )

    if files and results:
        yield Entry("leaderboard", None, _digest(*files), make_record)


def _cell_entries(study: Study, results: Sequence[Result]) -> Iterator[Entry]:
    """An entry for each cell of the grid, and after it one for each of its seeds."""
    statistics_code = code_digest("dmlbench.leaderboard.statistics.means")
    by_cell = groupby(results, key=lambda result: str(Path(result.planned["path"]).parent))
    for path, group in by_cell:
        seeds = list(group)
        seed_entries = [_seed_entry(study, path, result) for result in seeds]
        pictures = _pictures(study, seeds[0])
        digest = _digest(statistics_code, *(entry.digest for entry in seed_entries), *pictures)
        yield Entry(path, None, digest, partial(_cell_record, study, seeds, pictures))
        yield from seed_entries


def _pictures(study: Study, result: Result) -> list[Path]:
    """The page of pictures of the cell of `result`, and the thumbnails of its map, if there are."""
    if not (group := result.planned["gallery"]):
        return []
    files = study.files.gallery(group)
    page = files.page(result.planned["loss"])
    return [file for file in (page, files.thumbnails) if file.is_file()] if page.is_file() else []


def _seed_entry(study: Study, cell: str, result: Result) -> Entry:
    run, paths = study.runs[result.planned["path"]], result.files
    files = [paths.run, paths.metrics]
    written = [paths.folder / name for name in result.run["files"]]
    files += [file for file in written if file.parent == paths.artefacts]
    if study.settings.track_embeddings and result.metrics["status"] == "ok":
        files.append(paths.embeddings)
    digest = _digest(run.eval_key, run.store, run.tested.dataset, paths.history, *files)
    return Entry(run.path, cell, digest, partial(_seed_record, run, result, files))


def _seed_record(run: Run, result: Result, files: Sequence[Path]) -> Record:
    provenance, metrics, paths = result.run["provenance"], result.metrics, result.files
    if paths.embeddings in files:
        paths.check_file(paths.embeddings, result.run)
    start, end = _start_and_end(provenance)
    history = _history_points(result.files.history, start, end)
    last_step = max((point.step for point in history), default=0)
    values = {
        metric_name(row["protocol"], row["metric"]): row["value"] for row in metrics["metrics"]
    }
    values |= {f"cost/{name}": value for name, value in costs_of_run(run, provenance).items()}
    machine = {name: provenance.get(name) for name in ("device", "driver", "host")}
    return Record(
        name=" · ".join([run.loss, run.backbone, run.dataset, f"seed{run.seed}"]),
        start=start,
        end=end,
        failed=metrics["status"] != "ok",
        tags={
            "dmlbench.kind": "seed",
            "dmlbench.train_key": metrics["train_key"],
            "dmlbench.eval_key": metrics["eval_key"],
            "dmlbench.folder": result.files.folder.as_posix(),
            **_tested_on_tag(run),
            **_status_tags(metrics),
            **_source_tags(result.files.run),
            **_commit_tags(provenance.get("git_commit")),
            **{name: text for name, text in machine.items() if text},
            **{f"version.{name}": text for name, text in provenance.get("versions", {}).items()},
        },
        params=_params(run, result),
        points=[*history, *(Point(name, values[name], end, last_step) for name in values)],
        datasets=_datasets(run),
        artefacts=[(file, "") for file in files],
    )


def _cell_record(study: Study, seeds: Sequence[Result], pictures: Sequence[Path]) -> Record:
    """Mean and interval over the seeds, under the same metric names as those of a seed; and the
    files `pictures`."""
    run = study.runs[seeds[0].planned["path"]]
    times = [_start_and_end(result.run["provenance"]) for result in seeds]
    end = max(end for _, end in times)
    succeeded = sum(result.metrics["status"] == "ok" for result in seeds)
    params = _params(run, seeds[0])
    params.pop("seed", None)  # external embeddings have none
    runs = [study.runs[result.planned["path"]] for result in seeds]
    costs = costs_of_cell(runs, [result.run["provenance"] for result in seeds])
    values = _means(seeds) | {f"cost/{name}": value for name, value in costs.items()}
    return Record(
        name=" · ".join([run.loss, run.backbone, run.dataset]),
        start=min(start for start, _ in times),
        end=end,
        failed=not succeeded,
        tags={
            "dmlbench.kind": "cell",
            "dmlbench.seeds": f"{succeeded} of {len(seeds)}",
            **_tested_on_tag(run),
            **_source_tags(seeds[0].files.run),
            **_commit_tags(seeds[0].run["provenance"].get("git_commit")),
        },
        params=params,
        points=[Point(name, value, end, 0) for name, value in values.items()],
        datasets=_datasets(run),
        artefacts=[(file, "") for file in pictures],
    )


def _means(seeds: Sequence[Result]) -> dict[str, float]:
    """The mean of each metric over the seeds of a cell, and half the width of its 95 % interval.

    The latter is `<metric>_ci95`. Counts of images and single seeds have none.
    """
    from dmlbench.leaderboard.statistics.means import summarise
    from dmlbench.leaderboard.table import panels, tabulate

    means: dict[str, float] = {}
    for panel in panels(tabulate(seeds)):
        for _, row in summarise(panel.rows).reset_index().iterrows():
            name = metric_name(panel.protocol, row["metric"])
            means[name] = float(row["mean"])
            if row["seeds"] > 1 and row["metric"] not in COUNTS:
                means[f"{name}_ci95"] = float(row["half_width"])
    return means


def _digest(*parts: str | Path) -> str:
    """16 hex digits over texts, the contents of files, and the code of CODE."""
    total = sha256()
    for part in (*map(module_digest, CODE), *parts):
        content = part.encode() if isinstance(part, str) else _read_if_there(part)
        total.update(sha256(content).digest())
    return total.hexdigest()[:16]


def _read_if_there(file: Path) -> bytes:
    """The content of `file`; without it, its record cannot be made: that is said for each run."""
    try:
        return file.read_bytes()
    except OSError:
        return b""


def _params(run: Run, result: Result) -> dict[str, str]:
    """The names of the run, and all settings that decided its numbers."""
    names = {"dataset": run.dataset, "backbone": run.backbone, "loss": run.loss}
    settings = {**result.run["settings"], "evaluation": run.metric_settings}
    return {**names, **_setting_texts(settings)}


def _start_and_end(provenance: Mapping[str, Any]) -> tuple[int, int]:
    """When a training started and ended, in milliseconds since 1970.

    `started` is the start of the last attempt. A training that was interrupted started before it,
    so the start is moved back until the span is at least as long as the training.
    """
    start, end = (
        round(1000 * datetime.fromisoformat(provenance[name]).timestamp())
        for name in ("started", "finished")
    )
    return min(start, end - round(1000 * provenance.get("train_seconds", 0))), end


def _history_points(history: Path, start: int, end: int) -> list[Point]:
    """The columns of the file `history` by step.

    The time of a point is the start plus the seconds of training until the end of its epoch.
    """
    import pyarrow.parquet as pq

    columns = pq.ParquetFile(history).read().to_pydict()
    steps, seconds = columns.pop("step", []), columns.pop("seconds", [])
    elapsed, points = 0.0, []
    for row, step in enumerate(steps):
        elapsed += seconds[row]
        time = min(start + round(1000 * elapsed), end)
        points += [
            Point(f"training/{_allowed(name)}", float(values[row]), time, step)
            for name, values in columns.items()
            if values[row] is not None
        ]
    return points


def _allowed(name: str) -> str:
    """`name`, which a loss may choose freely, without the characters that MLflow refuses."""
    return re.sub(r"[^\w\-. :/]", "_", name)


def metric_name(protocol: str | None, metric: str) -> str:
    """The name of a metric in MLflow, which allows no @.

    >>> metric_name("zero_shot", "recall@1 level_1")
    'zero_shot/recall_at_1_level_1'
    """
    return f"{protocol}/{metric.replace('@', '_at_').replace(' ', '_')}"


def _page_tag(folder: Path) -> dict[str, str]:
    """The leaderboard's page as the description of its run.

    It is cut to MAX_NOTE, and has no plots: MLflow cannot show them there. The whole page is among
    the run's artefacts.
    """
    file = folder / "leaderboard.md"
    lines = file.read_text("utf-8").splitlines() if file.is_file() else []
    text = "\n".join(line for line in lines if not line.startswith("!["))
    return {NOTE_TAG: text[:MAX_NOTE]} if text else {}


def _tested_on_tag(run: Run) -> dict[str, str]:
    """The data set of the test, if it is not that of the training."""
    return {"dmlbench.tested_on": run.tested.dataset} if run.test_on else {}


def _status_tags(metrics: Mapping[str, Any]) -> dict[str, str]:
    """The status of a run; if it failed, also the error and a description."""
    tags = {"dmlbench.status": metrics["status"]}
    if error := metrics.get("error"):
        tags["dmlbench.error"] = error["message"]
        tail = "\n".join(error["tail"])
        tags[NOTE_TAG] = f"**{metrics['status']}**: {error['message']}\n\n```\n{tail}\n```"
    return tags


def _source_tags(path: Path) -> dict[str, str]:
    """What made the run, and who: the owner of `path`."""
    tags = {"mlflow.source.name": "dmlbench", "mlflow.source.type": "LOCAL"}
    with contextlib.suppress(KeyError):  # the owner has no name on this machine
        tags["mlflow.user"] = path.owner()
    return tags


def _commit_tags(described: str | None) -> dict[str, str]:
    """The git commit of the code; `described` may end in "-dirty"."""
    if not described:
        return {}
    dirty = str(described.endswith("-dirty")).lower()
    commit = described.removesuffix("-dirty")
    return {"mlflow.source.git.commit": commit, "mlflow.source.git.dirty": dirty}


def _setting_texts(settings: Mapping[str, Any]) -> dict[str, str]:
    """{"recipe.augmentation.flip": "false", ...}: values as a study file writes them."""
    flat = flatten(settings)
    return {
        name: value if isinstance(value, str) else json.dumps(value)
        for name, value in flat.items()
        if value != {}
    }


def _datasets(run: Run) -> list[dict[str, str]]:
    """The training split and the test split, described by facts that are in the run's key."""
    datasets = []
    for split, source in zip(SPLITS, (run, run.tested), strict=True):
        identity = f"{source.store} {source.data.class_fraction}"
        profile = {**source.facts, "class_fraction": source.data.class_fraction}
        if holdout := source.data.holdout:
            identity, profile = f"{identity} {holdout}", {**profile, "holdout": holdout}
        datasets.append(
            {
                "name": f"{source.data.type}-{split}",
                "digest": sha256(f"{split} {identity}".encode()).hexdigest()[:16],
                "source_type": "local",
                "source": json.dumps({"uri": f"data/stores/{source.store}"}),
                "profile": json.dumps(profile),
            }
        )
    return datasets
