"""What a loss says of itself: its header, its options, the space they are searched in."""

from __future__ import annotations

import inspect
import sys
from typing import Any

from dmlbench import source
from dmlbench.conformance.check import Broken, check
from dmlbench.conformance.subject import Subject
from dmlbench.installed import UnusableLoss, own_loss
from dmlbench.losses import _headers

MEANT = ("gradient", "order", "numbering", "length", "refresh")
"""Checks that a loss may declare not to be for it."""


@check(
    "header",
    "title, paper, and what differs from it",
    skipped=frozenset({"library"}),
    warned=frozenset({"own"}),
    why="Whoever reads a leaderboard must know which paper a row is, and where it departs from it. "
    "The table of all losses is written from the headers.",
    fix="Begin the file with a docstring of paragraphs: the paper's title with a full stop; "
    "'Authors; Venue; arXiv 1234.56789. What it does.'; 'Defaults: where they come from.'; and "
    "last 'Differs: what differs from the original.'",
)
def header(subject: Subject) -> str:
    if subject.path is None:
        return "is a file's, and this class is named by its import path"
    try:
        found = _headers.parse(subject.path.stem, subject.title, source.docstring_in(subject.path))
    except ValueError as error:
        raise Broken(f"The docstring of {subject.path.name} was read.", f"{error}.") from None
    return f"{found.title}; {found.venue}"


@check(
    "options",
    "keyword-only, annotated, with literal defaults",
    skipped=frozenset({"library"}),
    why="A study is checked without importing the loss, from its source alone; a wrong option is "
    "then refused before any job, and not after an hour in a queue.",
    fix="Write `def __init__(self, num_classes: int, embedding_dim: int, parents: Tensor | None = "
    "None, *, sharpness: float = 2.0)`: options after the star, each with an annotation of "
    "float, int, bool, str or Literal[...] (| None) and a default that is a literal.",
)
def options(subject: Subject) -> str:
    did = "The arguments of the constructor were read."
    cls = type(subject.create())
    try:
        if subject.path:
            names = list(source.declarations_in(subject.path).options)
        else:
            names = list(own_loss(subject.title))
    except (TypeError, UnusableLoss) as error:
        raise Broken(did, f"{error}") from None
    arguments = list(inspect.signature(cls).parameters.values())
    placed = [a.name for a in arguments if a.kind == a.POSITIONAL_OR_KEYWORD]
    if placed[2:3] not in ([], ["parents"]):
        raise Broken(did, f"The third is '{placed[2]}'; there it is given the classes' parents.")
    if extra := placed[3:]:
        raise Broken(did, f"{', '.join(extra)}: before the star, so no study can name it.")
    unknown = subject.by_design.keys() - set(MEANT)
    if unknown:
        raise Broken(
            "The declarations in BY_DESIGN were read.",
            f"{', '.join(sorted(unknown))}: what may be declared is {', '.join(MEANT)}.",
        )
    return ", ".join(names) or "none"


@check(
    "search_space",
    "literal ranges of declared options, within their bounds",
    skipped=frozenset({"library"}),
    why="Losses are compared after as many trials each; a range that leads out of what an option "
    "allows wastes trials on settings that are refused, and a missing one tunes nothing.",
    fix="SEARCH_SPACE = {'margin': {'low': 0.05, 'high': 1.0, 'log': True}} at the top level of "
    "the file: numbers, low below high, an option each, within LEAST and ABOVE.",
)
def search_space(subject: Subject) -> str:
    if subject.path is None:
        return "is a file's, and this class is named by its import path"
    declared, did = subject.declared, "The constants SEARCH_SPACE, LEAST and ABOVE were read."
    space = declared.constants.get("SEARCH_SPACE")
    if space is None:
        if hasattr(sys.modules[type(subject.create()).__module__], "SEARCH_SPACE"):
            if not declared.constants:
                return "not read; see the options"
            raise Broken(did, "SEARCH_SPACE is not literal: it cannot be read without an import.")
        if subject.in_zoo and declared.options:
            raise Broken(did, "there is no SEARCH_SPACE.")
        return "none: it will not be tuned"
    for name, bound in space.items():
        if fault := _fault(name, bound, declared):
            raise Broken(did, f"{name}: {bound}: {fault}.")
    return ", ".join(space) or "empty: it will not be tuned"


def _fault(name: str, bound: Any, declared: source.Declarations) -> str | None:
    if name not in declared.options:
        return f"is no option; those are {', '.join(declared.options) or 'none'}"
    if not isinstance(bound, dict) or not {"low", "high"} <= bound.keys() <= {"low", "high", "log"}:
        return "has not the form {'low': number, 'high': number, 'log': True}"
    low, high, log = bound["low"], bound["high"], bound.get("log", False)
    least = declared.constants.get("LEAST", {}).get(name, float("-inf"))
    above = declared.constants.get("ABOVE", {}).get(name, float("-inf"))
    if not low < high:
        return "low is not below high"
    if low < least:
        return f"low is below what LEAST allows, {least}"
    if low <= above:
        return f"low must be above {above}, as ABOVE says"
    if log and low <= 0:
        return "a logarithmic range must begin above 0"
    return None
