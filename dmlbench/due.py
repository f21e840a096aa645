"""What `snakemake` would run now, and why: told from the result files alone.

Snakemake runs a job when its key is another than the one that its output was made under, when an
input of it is newer than its output, or when a job that runs needs its output and it is not there.
A missing file that nobody asks for is no reason to run, as long as verdict.txt stands.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from dmlbench import source
from dmlbench.files import read_json_if_whole
from dmlbench.run import METRICS, Run
from dmlbench.study import TABLES, Study
from dmlbench.tracking import tracking_uri
from dmlbench.unfinished import look
from dmlbench.verdict import all_is_well

LONG = 40  # characters of a setting's value that are shown


class Why(NamedTuple):
    """A reason to run a job: what many runs may share, and what is this run's own."""

    text: str
    detail: str = ""


AFTER_TRAINING = Why("after their training")


@dataclass
class Due:
    """The jobs that are due, by their rule."""

    archives: list[str] = field(default_factory=list)
    """Names of the stores that they are for."""
    store: list[str] = field(default_factory=list)
    weights: list[str] = field(default_factory=list)
    train: dict[str, Why] = field(default_factory=dict)
    evaluate: dict[str, Why] = field(default_factory=dict)
    tables: Why | None = None
    track: Why | None = None
    verdict: Why | None = None
    holes: list[str] = field(default_factory=list)
    """Runs whose result files are gone, and that nobody asks for."""

    @property
    def counts(self) -> dict[str, int]:
        """Number of jobs of each rule that has some."""
        names = {"archives": self.archives, "store": self.store, "weights": self.weights}
        runs = {"train": self.train, "evaluate": self.evaluate}
        counts = {rule: len(jobs) for rule, jobs in {**names, **runs}.items()}
        last = {"tables": self.tables, "track": self.track, "verdict": self.verdict}
        counts |= {rule: int(why is not None) for rule, why in last.items()}
        return {rule: count for rule, count in counts.items() if count}


class _Files:
    """The result files of a run."""

    def __init__(self, study: Study, path: str, run: Run) -> None:
        self.path, self.run = path, run
        self.folder, self.state = study.folder / "runs" / path, study.folder / "state" / path
        self.trained = read_json_if_whole(self.folder / "run.json")
        self.scored = read_json_if_whole(self.folder / "metrics.json")
        names = ("run.json", "metrics.json", "embeddings.npz", "history.parquet")
        self.times = {name: _time(self.folder / name) for name in names}

    @property
    def failed(self) -> dict[str, Any]:
        """The failure that the last verdict put aside, if any."""
        return read_json_if_whole(self.folder / "failed.json") or {}

    def gone(self, *names: str) -> bool:
        return not all(self.times[name] for name in names)

    def retrain(self) -> Why | None:
        """Why the training there is not the one that is planned."""
        if not self.trained or self.trained["train_key"] == self.run.train_key:
            return None
        code = source.code(*self.run.modules)
        old, new = self.trained["settings"], self.run.settings
        return Why(_changes(old, new, self.trained.get("code"), code) or "the training's code")

    def rescore(self) -> Why | None:
        """Why the scores there are not those that are planned."""
        if not self.scored:
            return None
        if self.scored["eval_key"] == self.run.eval_key:
            newest = max(self.times["run.json"], self.times["embeddings.npz"])
            return Why("trained anew since") if newest > self.times["metrics.json"] else None
        if self.scored["train_key"] != self.run.train_key:
            return Why("trained anew since")
        new = {"evaluation": self.run.metric_settings}
        old = {"evaluation": self.scored["settings"]} if "settings" in self.scored else new
        changes = _changes(old, new, self.scored.get("code"), source.code(METRICS))
        return Why(changes or "the metrics' settings or code")

    def untrained(self) -> Why:
        """Why there is no training."""
        if begun := look(self.state, self.run.train_key):
            word = "running now" if begun.state == "running" else "interrupted"
            return Why(word, begun.place)
        if self.gone("run.json"):
            again = self.failed.get("train_key") == self.run.train_key
            return _failure(self.failed) if again else Why("no result yet")
        names = [name for name in ("embeddings.npz", "history.parquet") if self.gone(name)]
        return Why(f"no {' and '.join(names)}")

    def unscored(self) -> Why:
        """Why there are no scores of a training."""
        again = self.failed.get("eval_key") == self.run.eval_key
        return _failure(self.failed) if again else Why("not scored yet")


def due(study: Study, stores: Path) -> Due:
    """The jobs of `study` that are due; `stores` is the folder of the packed images."""
    files = [_Files(study, path, run) for path, run in study.runs.items()]
    found = Due()
    for one in files:
        if why := one.retrain():
            found.train[one.path], found.evaluate[one.path] = why, AFTER_TRAINING
        elif why := one.rescore():
            found.evaluate[one.path] = why
    newest = max(max(one.times["run.json"], one.times["metrics.json"]) for one in files)
    found.tables = _tables(study, newest) or _after(found.evaluate)
    table = study.folder / "leaderboard/leaderboard.md"
    tracked = study.folder / "tracked.txt"
    if study.settings.tracking:
        found.track = _track(study, tracked, _time(table)) or _after(found.tables)
    newest = max(newest, _time(table), _time(tracked) if study.settings.tracking else 0)
    found.verdict = _verdict(study, newest) or _after(found.tables or found.track)

    if found.verdict:  # it asks for what is missing, and that for what it needs
        for one in files:
            if not one.scored:
                found.evaluate.setdefault(one.path, one.unscored())
        missing = None if table.is_file() else Why("there is none")
        found.tables = found.tables or missing or _after(found.evaluate)
        if study.settings.tracking:
            missing = None if tracked.is_file() else Why("not done yet")
            found.track = found.track or missing or _after(found.tables)
    for one in files:
        needed = ["run.json", "history.parquet"] if found.tables or found.track else []
        needed += ["run.json", "embeddings.npz"] if one.path in found.evaluate else []
        if one.gone(*needed) and one.path not in found.train:
            found.train[one.path], found.evaluate[one.path] = one.untrained(), AFTER_TRAINING
            found.tables = found.tables or _after(found.evaluate)
        elif one.path not in found.evaluate and (not one.scored or not one.trained):
            found.holes.append(one.path)
    at_work = {name for path in found.train for name in study.runs[path].stores}
    at_work |= {study.runs[path].tested.store for path in found.evaluate}
    found.store = [
        name
        for name in study.stores
        if name in at_work and not (stores / name / "manifest.json").is_file()
    ]
    found.archives = [
        name
        for name in found.store
        if not (stores / name / "archives.json").is_file() and study.stores[name].has_archives
    ]
    starts = {study.runs[path].weights for path in found.train if study.runs[path].uses_model}
    folder = stores.parent / "weights"
    found.weights = [
        name for name in starts if name and not (folder / f"{name}.safetensors").is_file()
    ]
    return found


def _after(due: Any) -> Why | None:
    return Why("after the others") if due else None


def _tables(study: Study, newest: int) -> Why | None:
    """Why the table there is not the one that is planned, `newest` being the last result's time."""
    folder = study.folder / "leaderboard"
    made = read_json_if_whole(folder / "made.json")
    if not (folder / "leaderboard.md").is_file():
        return None
    if not made:
        return Why("it does not say what it was made of")
    if made["key"] != study.leaderboard_key:
        changed = _changed_code(made["code"], source.code(TABLES))
        return Why("; ".join(changed) or "other runs or results")
    return Why("results are newer") if newest > _time(folder / "leaderboard.md") else None


def _track(study: Study, tracked: Path, table: int) -> Why | None:
    """Why what MLflow was told is not what is planned."""
    if not tracked.is_file():
        return None
    if f"key {study.tracking_key(tracking_uri())}" not in tracked.read_text("utf-8"):
        return Why("other results, code or place")
    return Why("the table is newer") if table > _time(tracked) else None


def _verdict(study: Study, newest: int) -> Why | None:
    """Why the verdict there is not on what is planned, `newest` being the last result's time."""
    verdict = study.folder / "verdict.txt"
    if not verdict.is_file():
        return Why("there is none")
    if all_is_well(study) not in verdict.read_text("utf-8").splitlines():
        return Why("other runs, or tracking")
    return Why("results are newer") if newest > _time(verdict) else None


def _time(path: Path) -> int:
    """Nanoseconds; 0 of a file that is not there."""
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def _failure(result: Mapping[str, Any]) -> Why:
    return Why(f"failed: {result['status']}", result["error"]["message"])


def _changes(
    old: dict[str, Any],
    settings: dict[str, Any],
    old_code: dict[str, str] | None,
    code: dict[str, str],
) -> str:
    """What differs between a result file and what is planned; empty where the file cannot say."""
    found = [*_changed_settings(old, json.loads(json.dumps(settings)))]  # as the file has them
    return "; ".join(found + _changed_code(code if old_code is None else old_code, code))


def _changed_settings(old: dict[str, Any], new: dict[str, Any]) -> Iterator[str]:
    """`recipe.lr: 0.003 -> 0.001`, one a setting. Where a type is another, its options are too."""
    before, after = _flat(old), _flat(new)
    names = [
        name
        for name in {**before, **after}
        if name not in before or name not in after or before[name] != after[name]
    ]
    others = tuple(name.removesuffix("type") for name in names if name.endswith(".type"))
    for name in names:
        if name.endswith(".type") or not name.startswith(others):
            yield f"{name}: {_short(before, name)} -> {_short(after, name)}"


def _changed_code(old: Mapping[str, str], new: Mapping[str, str]) -> list[str]:
    names = [name for name in sorted({**old, **new}) if old.get(name) != new.get(name)]
    return [f"code of {', '.join(map(source.shown, names))}"] if names else []


def _flat(value: Any, path: str = "") -> dict[str, Any]:
    """Leaves of nested mappings by their dotted paths."""
    if not isinstance(value, Mapping) or not value:
        return {path: value} if path else {}
    parts = [_flat(inner, f"{path}.{name}".lstrip(".")) for name, inner in value.items()]
    return {name: leaf for part in parts for name, leaf in part.items()}


def _short(values: Mapping[str, Any], name: str) -> str:
    if name not in values:
        return "(none)"
    value = values[name]
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= LONG else text[: LONG - 3] + "..."
