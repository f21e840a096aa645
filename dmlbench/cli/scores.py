"""The command `score`: the numbers of a file of embeddings, as several codes would compute them."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dmlbench.cli.arguments import AddCommand, count, use_threads
from dmlbench.utils.errors import InvalidArgument
from dmlbench.utils.text import error_reason

if TYPE_CHECKING:
    from dmlbench.evaluation.conventions import Convention, Number

NEEDED, QUERIES = ("embeddings", "labels"), ("query_embeddings", "query_labels")
ALL = "all"


def add_commands(add_command: AddCommand) -> None:
    score = add_command(
        "score",
        _score,
        "print the retrieval scores of embeddings, as dmlbench or as other codes compute them",
    )
    score.add_argument(
        "file",
        type=Path,
        help=f".npz with {' and '.join(NEEDED)}, and perhaps {' and '.join(QUERIES)}",
    )
    score.add_argument(
        "--as",
        dest="conventions",
        nargs="+",
        default=["dmlbench"],
        metavar="NAME",
        help="dmlbench, pml, musgrave, oml, rdml, mieb or sklearn: one or several; or all",
    )
    score.add_argument(
        "--recall-at", type=count, nargs="+", default=[1, 2, 4, 8], metavar="K", help="the K"
    )


def _score(options: argparse.Namespace) -> int:
    use_threads(1)
    from dmlbench.evaluation.conventions import CONVENTIONS
    from dmlbench.library.translating import score_as

    arrays = _read(options.file)
    names = [*CONVENTIONS] if ALL in options.conventions else [*dict.fromkeys(options.conventions)]
    try:
        numbers = score_as(**arrays, conventions=names, recall_at=options.recall_at)
    except InvalidArgument as error:
        raise InvalidArgument(f"{options.file}: {error}") from None
    for name in names:
        print(*_lines(name, CONVENTIONS[name], numbers[name]), sep="\n")
    return 0


def _read(file: Path) -> Mapping[str, Any]:
    """The arrays of the file.

    Raises:
        InvalidArgument: it is no .npz, or it has not the arrays that are needed.
    """
    import numpy as np

    keys = (*NEEDED, *QUERIES)
    try:
        with np.load(file, allow_pickle=False) as content:
            present = [*content]
            arrays = {key: content[key] for key in keys if key in content}
    except Exception as error:  # parsers raise nearly anything for a damaged file
        raise InvalidArgument(
            f"{file}: it cannot be read as .npz ({error_reason(error)}). Write it with "
            "numpy.savez(file, embeddings=..., labels=...); labels that are names need dtype=str."
        ) from None
    if missing := [key for key in NEEDED if key not in arrays]:
        raise InvalidArgument(
            f"{file}: it has {', '.join(present) or 'nothing'}, and no {' and no '.join(missing)}. "
            "Write it with numpy.savez(file, embeddings=..., labels=...)."
        )
    return arrays


def _lines(name: str, convention: Convention, numbers: list[Number]) -> list[str]:
    """A convention, its numbers in percent, and what moves them away from dmlbench's."""
    from dmlbench.evaluation.conventions import DMLBENCH, FIELDS

    lines = [f"{name}: {convention.source}"]
    different = [
        f"{field} {getattr(convention, field)!r}, not {getattr(DMLBENCH, field)!r}"
        for field in FIELDS
        if getattr(convention, field) != getattr(DMLBENCH, field)
    ]
    if different:
        lines.append(f"  differs from dmlbench in {'; '.join(different)}")
    width = max((len(number.name) for number in numbers), default=0)
    for number in numbers:
        line = f"  {number.name:{width}}  {100 * number.value:6.2f}"
        if convention is not DMLBENCH:
            line += f"  dmlbench's {number.ours} {100 * number.our_value:.2f}{_reasons(number)}"
        lines.append(line)
    return [*lines, ""]


def _reasons(number: Number) -> str:
    """What each difference of convention does to a number, in points of a percent."""
    moved = {field: 100 * effect for field, effect in number.effects.items() if effect}
    rest = 100 * number.rest
    if abs(rest) >= 0.005:
        moved["together"] = rest
    reasons = [f"{field} {points:+.2f}" for field, points in moved.items()]
    return f": {', '.join(reasons)}" if reasons else ", the same"
