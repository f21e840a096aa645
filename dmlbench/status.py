"""`dmlbench status`: how far a study is, told from its files alone - while it runs and after, here
and on a cluster."""

from __future__ import annotations

import shutil
import sys
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from dmlbench.files import read_json_if_whole
from dmlbench.run import Run
from dmlbench.study import Study
from dmlbench.unfinished import Unfinished, look

STATES = {
    "done": "done",
    "running": "running",
    "unscored": "trained and not scored yet",
    "waiting": "waiting",
    "stopped": "stopped, to be continued",
    "silent": "without a sign of life",
    "dead": "dead, to be continued",
    "stale": "waiting, with a result of other settings or code",
    "failed": "failed",
}
ENDED = frozenset({"done", "failed"})
SHOWN = 20  # rows of a table
PATIENCE = 10  # looking takes at most one part in so many of a watcher's time


class Standing(NamedTuple):
    """Where a run stands."""

    run: Run
    state: str
    """One of STATES."""
    failure: str = ""
    begun: Unfinished | None = None
    seconds: float = 0.0
    """That a finished training took."""


def show_status(study: Study, every: float | None) -> None:
    """Print how far `study` is; with `every`, again and again in so many seconds, until all runs
    have ended. On a terminal in place of the last one."""
    redraw = every is not None and sys.stdout.isatty()
    while True:
        started = time.monotonic()
        standings = survey(study)
        took = time.monotonic() - started
        lines = describe(study, standings)
        if redraw:
            # home, each line cleared to its end, and all below: nothing flickers
            size = shutil.get_terminal_size()
            body = "".join(f"{line[: size.columns]}\033[K\n" for line in lines[: size.lines - 1])
            print(f"\033[H{body}\033[J", end="", flush=True)
        else:
            print(*lines, sep="\n", flush=True)
        if every is None or all(standing.state in ENDED for standing in standings):
            return
        time.sleep(max(every, PATIENCE * took))
        if not redraw:
            print()


def survey(study: Study) -> list[Standing]:
    """Where each run stands, in the order of the plan."""
    state = study.folder / "state"
    begun = {str(lock.parent.relative_to(state)) for lock in state.glob("*/*/*/*/lock")}
    return [
        _standing(run, study.folder / "runs" / path, state / path if path in begun else None)
        for path, run in study.runs.items()
    ]


def _standing(run: Run, results: Path, state: Path | None) -> Standing:
    """`state` is the folder of a training that was begun, if there is one."""
    begun = look(state, run.train_key) if state else None
    if begun and begun.state == "running":
        return Standing(run, "running", begun=begun)
    scored = read_json_if_whole(results / "metrics.json")
    trained = read_json_if_whole(results / "run.json")
    failed = {} if scored else read_json_if_whole(results / "failed.json") or {}
    if scored and scored["eval_key"] == run.eval_key:
        if scored["status"] != "ok":
            return Standing(run, "failed", _reason(scored))
        return Standing(run, "done", seconds=_seconds(trained))
    if trained and trained["train_key"] == run.train_key:
        if trained["status"] != "ok":
            return Standing(run, "failed", _reason(trained))
        if failed.get("eval_key") == run.eval_key:
            return Standing(run, "failed", _reason(failed))
        return Standing(run, "unscored", seconds=_seconds(trained))
    if begun:
        return Standing(run, begun.state, begun=begun)
    if failed.get("train_key") == run.train_key and not trained:
        return Standing(run, "failed", _reason(failed))
    return Standing(run, "stale" if trained else "waiting")


def _reason(result: dict[str, Any]) -> str:
    return f"{result['status']}: {result['error']['message']}"


def _seconds(result: dict[str, Any] | None) -> float:
    """Of all attempts, where the last one's own time is not all."""
    origin = result["provenance"] if result else {}
    return max(origin.get("wall_seconds") or 0.0, origin.get("train_seconds") or 0.0)


def describe(study: Study, standings: list[Standing]) -> list[str]:
    """The lines that are shown."""
    counts = Counter(standing.state for standing in standings)
    parts = [f"{counts[state]} {text}" for state, text in STATES.items() if counts[state]]
    lines = [f"{study.name}: {len(standings)} runs: {', '.join(parts)}"]
    of = {state: [s for s in standings if s.state == state] for state in STATES}
    lines += [line for line in (_time_left(standings),) if line]
    if of["running"]:
        header = ("running", "step", "loss", "images/s", "left", "device", "host")
        lines += ["", *_table([header, *map(_running, of["running"][:SHOWN])])]
        lines += _more(of["running"])
    if broken := of["stopped"] + of["silent"] + of["dead"]:
        rows = [("not running", "", ""), *map(_broken, broken[:SHOWN])]
        lines += ["", *_table(rows), *_more(broken)]
    if of["failed"]:
        rows = [("failed", "reason"), *((s.run.path, s.failure) for s in of["failed"][:SHOWN])]
        lines += ["", *_table(rows), *_more(of["failed"])]
    if of["stale"]:
        lines += ["", "What changed: dmlbench plan STUDY --diff"]
    page = study.folder / "leaderboard/leaderboard.md"
    if page.is_file():
        old = "" if counts.keys() <= ENDED else " (of before)"
        lines += ["", f"The leaderboard{old}: {page}"]
    return lines


def _time_left(standings: Iterable[Standing]) -> str:
    """An estimate: what the running trainings say, and the mean of the finished ones for each of
    those that wait, by as many at once as are running now."""
    trainings = [standing for standing in standings if standing.run.trains]
    running = [s.begun.progress for s in trainings if s.state == "running" and s.begun]
    waiting = sum(s.state not in {"running", "unscored"} | ENDED for s in trainings)
    took = [s.seconds for s in trainings if s.seconds]
    if not took:  # none has finished: what the running ones will have taken
        took = [p["steps"] / p["steps_per_second"] for p in running if p.get("steps_per_second")]
    if not took or not (running or waiting):
        return ""
    mean = sum(took) / len(took)
    left = waiting * mean + sum(_left(progress, mean) for progress in running)
    if not running:
        return f"about {duration(left)} of training left, one at a time; none is running"
    return f"about {duration(left / len(running))} left, {len(running)} at a time"


def _left(progress: dict[str, Any], mean: float) -> float:
    """Seconds that a running training still takes; `mean` before its first step."""
    if (left := progress.get("seconds_left")) is None:
        return mean
    return max(0.0, left - (time.time() - progress["time"]))


def _running(standing: Standing) -> tuple[str, ...]:
    assert standing.begun
    progress = standing.begun.progress
    if not progress:
        return (standing.run.path, "starts", *[""] * 5)
    left = progress["seconds_left"]
    return (
        standing.run.path,
        f"{progress['step']}/{progress['steps']}",
        f"{progress['loss']:.4g}",
        f"{progress['steps_per_second'] * standing.run.recipe.batch_size:.0f}",
        "" if left is None else duration(_left(progress, 0.0)),
        progress["device"],
        progress["host"],
    )


def _broken(standing: Standing) -> tuple[str, ...]:
    begun = standing.begun
    assert begun
    host = begun.progress.get("host", "another machine")
    how = {
        "stopped": f"stopped {begun.place}",
        "silent": f"no sign for {duration(begun.quiet)} of {host}, {begun.place}",
        "dead": f"killed {begun.place}",
    }[begun.state]
    idle = f"{begun.idle} attempt{'s' * (begun.idle > 1)} before it made no progress"
    return standing.run.path, how, idle if begun.idle else ""


def _table(rows: list[tuple[str, ...]]) -> list[str]:
    """Columns in line, the first one to the left."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def _more(standings: list[Standing]) -> list[str]:
    return [f"... and {len(standings) - SHOWN} more"] if len(standings) > SHOWN else []


def duration(seconds: float) -> str:
    """`12 s`, `3 min`, `2 h 05 min`, `3 d 4 h`."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"
