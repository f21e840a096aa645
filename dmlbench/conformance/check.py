"""What a check is, and what comes of it."""

from __future__ import annotations

import textwrap
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from dmlbench.conformance.subject import Subject

Verdict = Literal["ok", "declared", "warning", "FAILED", "-"]
WIDTH = 100
HERE = Path(__file__).parent


class Broken(Exception):
    """What a check did with the loss, and what it saw that must not be; `excusable` where a loss
    may be meant so; `fix` where what to do is known better than the check has it."""

    def __init__(self, did: str, saw: str, *, excusable: bool = True, fix: str = "") -> None:
        super().__init__(did, saw)
        self.did, self.saw, self.excusable, self.fix = did, saw, excusable, fix


@dataclass(frozen=True)
class Check:
    """A demand on losses. `run` raises Broken, or says in a few words what it saw."""

    name: str
    demand: str
    why: str
    """What a training suffers otherwise."""
    fix: str
    """What usually causes it, and what to do."""
    run: Callable[[Subject], str | None]
    skipped: frozenset[str] = frozenset()
    """Kinds of losses that it is not for."""
    warned: frozenset[str] = frozenset()
    """Kinds of losses for which it is advice."""
    may_be_meant: bool = False
    """Whether a loss may declare in BY_DESIGN that it does otherwise."""

    def __call__(self, subject: Subject) -> Result:
        if subject.kind in self.skipped:
            return Result(self, "-", f"not for {KINDS[subject.kind]}")
        try:
            return Result(self, "ok", self.run(subject) or self.demand)
        except Broken as error:
            broken = error
        except Exception as error:  # whatever the loss raises
            did = "It was called with the made batch of this check."
            broken = Broken(did, raised(error), excusable=False)
        excusable = self.may_be_meant and broken.excusable
        if excusable and self.name in subject.by_design:
            return Result(self, "declared", subject.by_design[self.name])
        verdict: Verdict = "warning" if subject.kind in self.warned else "FAILED"
        parts = {
            "Did": broken.did,
            "Saw": broken.saw,
            "Why": self.why,
            "Fix": broken.fix or self.fix,
        }
        if excusable and subject.kind != "library":
            parts["Or"] = (
                "if the loss is meant so, declare it in its class, which the check then shows: "
                f'BY_DESIGN = {{"{self.name}": "the reason"}}'
            )
        return Result(self, verdict, self.demand, parts)


@dataclass(frozen=True)
class Result:
    check: Check
    verdict: Verdict
    line: str
    lesson: dict[str, str] | None = None

    def __str__(self) -> str:
        lines = [f"{self.verdict:9} {self.check.name:14} {self.line}"]
        for word, text in (self.lesson or {}).items():
            lines += textwrap.wrap(
                text,
                WIDTH,
                initial_indent=f"          {word}: ",
                subsequent_indent=" " * 15,
                break_on_hyphens=False,
            )
        return "\n".join(lines)


def check(
    name: str, demand: str, **said: Any
) -> Callable[[Callable[[Subject], str | None]], Check]:
    """The function below it becomes this check."""
    return lambda run: Check(name, demand, run=run, **said)


def raised(error: BaseException) -> str:
    """An exception in one line, with the last place in code that is no library's."""
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if "site-packages" not in (path := Path(frame.filename)).parts
        and path.parent != HERE
        and path.is_file()
    ]
    where = ""
    if frames:
        last = frames[-1]
        where = f", at {Path(last.filename).name}:{last.lineno}: {last.line}"
    message = " ".join(str(error).split())
    return f"{type(error).__name__}: {message[:300]}{where}"


KINDS = {
    "native": "losses written here",
    "wrapped": "losses of pytorch-metric-learning",
    "library": "losses of pytorch-metric-learning by their name",
    "own": "losses outside of dmlbench/losses",
}
