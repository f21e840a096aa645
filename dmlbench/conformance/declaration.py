"""Checks of what a loss declares: its header, its options, and their search space."""

from __future__ import annotations

import inspect
import sys
from typing import Any

from dmlbench.conformance.check import LIBRARY, Broken, check
from dmlbench.conformance.subject import Subject
from dmlbench.losses import _docs_page
from dmlbench.losses._bounds import option_bounds
from dmlbench.losses._catalogue import own_loss
from dmlbench.utils.declarations import Declarations, read_declarations_of, read_docstring_of
from dmlbench.utils.errors import UnusableLoss

DECLARABLE = (
    *("gradient", "order", "numbering", "length", "growth"),
    *("repeats", "random", "refresh", "host"),
)
"""Checks that a loss may fail by design, if its class says why."""


@check(
    "header",
    "title, paper, and what differs from it",
    skipped=LIBRARY,
    warned=frozenset({"own"}),
    why="Readers of a leaderboard must know which paper a row is, and where it departs from it. "
    "The table of all losses is written from the headers.",
    fix="Begin the file with a docstring of paragraphs: the paper's title with a full stop; "
    "'Authors; Venue; arXiv 1234.56789. What it does.'; 'Defaults: where they come from.'; and "
    "last 'Differs: what differs from the original.'",
)
def header(subject: Subject) -> str:
    if subject.path is None:
        return "not checked: only a file has one, and this class is named by its import path"
    try:
        parsed = _docs_page.parse(subject.path.stem, subject.title, read_docstring_of(subject.path))
    except ValueError as error:
        raise Broken(f"The docstring of {subject.path.name} was read.", f"{error}.") from None
    return f"{parsed.title}; {parsed.venue}"


@check(
    "options",
    "keyword-only, annotated, with literal defaults",
    skipped=LIBRARY,
    why="A study is checked from the source of the loss, without importing it. So a wrong option "
    "is refused before any job, and not after an hour in a queue.",
    fix="Write `def __init__(self, num_classes: int, embedding_dim: int, parents: Tensor | None = "
    "None, *, sharpness: float = 2.0)`: options after the star, each with an annotation of "
    "float, int, bool, str or Literal[...] (| None) and a default that is a literal.",
)
def options(subject: Subject) -> str:
    did = "The arguments of the constructor were read."
    cls = type(subject.create())
    try:
        if subject.path:
            names = list(read_declarations_of(subject.path).options)
        else:
            names = list(own_loss(subject.title))
    except (TypeError, UnusableLoss) as error:
        raise Broken(did, f"{error}") from None
    arguments = list(inspect.signature(cls).parameters.values())
    placed = [a.name for a in arguments if a.kind == a.POSITIONAL_OR_KEYWORD]
    if placed[2:3] not in ([], ["parents"]):
        raise Broken(did, f"The third is '{placed[2]}', but it gets the parents of the classes.")
    if extra := placed[3:]:
        raise Broken(did, f"{', '.join(extra)}: before the star, so no study can set it.")
    unknown = subject.by_design.keys() - set(DECLARABLE)
    if unknown:
        raise Broken(
            "The declarations in BY_DESIGN were read.",
            f"{', '.join(sorted(unknown))}: what may be declared is {', '.join(DECLARABLE)}.",
        )
    return ", ".join(names) or "none"


@check(
    "search_space",
    "literal ranges of declared options, within their bounds",
    skipped=LIBRARY,
    why="Losses are compared after equally many trials. A range with values that an option does "
    "not allow wastes trials on settings that are refused; without a range nothing is tuned.",
    fix="Write SEARCH_SPACE = {'margin': {'low': 0.05, 'high': 1.0, 'log': True}} at the top level "
    "of the file: an entry per option, numbers, low below high, within LEAST, ABOVE and MOST.",
)
def search_space(subject: Subject) -> str:
    if subject.path is None:
        return "not checked: only a file has one, and this class is named by its import path"
    declared, did = subject.declared, "The constants SEARCH_SPACE, LEAST, ABOVE and MOST were read."
    space = declared.constants.get("SEARCH_SPACE")
    if space is None:
        if hasattr(sys.modules[type(subject.create()).__module__], "SEARCH_SPACE"):
            if not declared.constants:
                return "not read: see the check of the options"
            raise Broken(did, "SEARCH_SPACE is not literal: it cannot be read without an import.")
        if subject.in_package and declared.options:
            raise Broken(did, "There is no SEARCH_SPACE.")
        return "none: it will not be tuned"
    for name, bounds in space.items():
        if fault := _find_fault(name, bounds, declared):
            raise Broken(did, f"{name}: {bounds}: {fault}.")
    return ", ".join(space) or "empty: it will not be tuned"


def _find_fault(name: str, bounds: Any, declared: Declarations) -> str | None:
    """The fault of an entry of SEARCH_SPACE; None if it has none."""
    if name not in declared.options:
        return f"is no option; those are {', '.join(declared.options) or 'none'}"
    allowed = {"low", "high", "log"}
    if not isinstance(bounds, dict) or not {"low", "high"} <= bounds.keys() <= allowed:
        return "must have the form {'low': number, 'high': number, 'log': True}"
    low, high, log = bounds["low"], bounds["high"], bounds.get("log", False)
    least, above, most = option_bounds(name, declared.constants)
    if not low < high:
        return "low is not below high"
    if least is not None and low < least:
        return f"low is below what LEAST allows, {least}"
    if above is not None and low <= above:
        return f"low must be above {above}, as ABOVE says"
    if high > most:
        return f"high is above what MOST allows, {most}"
    if log and low <= 0:
        return "a logarithmic range must begin above 0"
    return None
