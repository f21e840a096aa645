"""A check of a loss, and its result."""

from __future__ import annotations

import textwrap
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from dmlbench.conformance.subject import Subject
from dmlbench.utils.errors import UnusableGpu, WrongEnvironment

Verdict = Literal["ok", "declared", "warning", "FAILED", "-"]
WIDTH = 100
HERE = Path(__file__).parent
LIBRARY = frozenset({"library"})
"""Losses of another library: some checks only warn about them, or leave them out."""


class Broken(Exception):
    """The loss does not do what a check demands.

    Args:
        did: what the check did with the loss.
        saw: what it saw that must not be.
        excusable: whether the loss may declare this as its design, if the check allows that.
        fails: whether it is a failure even where the check only warns about this kind of loss.
        fix: what to do; empty: the text of the check itself says it.
    """

    def __init__(
        self, did: str, saw: str, *, excusable: bool = True, fails: bool = False, fix: str = ""
    ) -> None:
        super().__init__(did, saw)
        self.did, self.saw, self.fix = did, saw, fix
        self.excusable, self.fails = excusable, fails


@dataclass(frozen=True)
class Check:
    """A demand on losses. `run` raises Broken, or returns a few words on what it saw."""

    name: str
    demand: str
    why: str
    """What happens in a training if the demand is not met."""
    fix: str
    """The usual cause, and what to do."""
    run: Callable[[Subject], str | None]
    skipped: frozenset[str] = frozenset()
    """Kinds of losses that are not checked."""
    warned: frozenset[str] = frozenset()
    """Kinds of losses that get a warning, not a failure."""
    declarable: bool = False
    """Whether a loss may declare in BY_DESIGN that it does something else."""

    def __call__(self, subject: Subject) -> Result:
        if subject.kind in self.skipped:
            return Result(self, "-", f"not for {KINDS[subject.kind]}")
        try:
            return Result(self, "ok", self.run(subject) or self.demand)
        except Broken as error:
            broken = error
        except (UnusableGpu, WrongEnvironment):  # no fault of the loss
            raise
        except Exception as error:  # the loss may raise anything
            did = "It was called with the batch of this check."
            broken = Broken(did, describe_error(error), excusable=False)
        excusable = self.declarable and broken.excusable
        if excusable and self.name in subject.by_design:
            return Result(self, "declared", subject.by_design[self.name])
        warns = subject.kind in self.warned and not broken.fails
        verdict: Verdict = "warning" if warns else "FAILED"
        parts = {
            "Did": broken.did,
            "Saw": broken.saw,
            "Why": self.why,
            "Fix": broken.fix or self.fix,
        }
        if excusable and subject.kind != "library":
            parts["Or"] = (
                "if this is the loss's design, declare it in its class; the check then shows it: "
                f'BY_DESIGN = {{"{self.name}": "the reason"}}'
            )
        return Result(self, verdict, self.demand, parts)


@dataclass(frozen=True)
class Result:
    """The verdict of a check. `str` gives one line and, if the loss failed, a lesson below it."""

    check: Check
    verdict: Verdict
    line: str
    lesson: dict[str, str] | None = None
    """Texts by the words Did, Saw, Why, Fix and Or."""

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
    name: str, demand: str, **fields: Any
) -> Callable[[Callable[[Subject], str | None]], Check]:
    """Decorate a function: it becomes the `run` of a Check with these fields."""
    return lambda run: Check(name, demand, run=run, **fields)


def describe_error(error: BaseException) -> str:
    """An exception in one line, with the innermost place outside of libraries and of the kit."""
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if "site-packages" not in (path := Path(frame.filename)).parts
        and path.parent != HERE
        and path.is_file()
    ]
    place = ""
    if frames:
        last = frames[-1]
        place = f", at {Path(last.filename).name}:{last.lineno}: {last.line}"
    message = " ".join(str(error).split())
    return f"{type(error).__name__}: {message[:300]}{place}"


KINDS = {
    "native": "losses written here",
    "wrapped": "losses of pytorch-metric-learning",
    "library": "losses of pytorch-metric-learning by their name",
    "own": "losses outside of dmlbench/losses",
}
