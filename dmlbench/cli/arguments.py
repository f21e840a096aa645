"""What several commands share: types of arguments, the study, the threads."""

from __future__ import annotations

import argparse
import json
import math
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dmlbench.utils.numerals import parse_count
from dmlbench.utils.text import short_repr

if TYPE_CHECKING:
    from dmlbench.study.study import Study

MAX_SHOWN = 200
"""Characters of an argument that a message shows."""
AddCommand = Callable[[str, object, str], argparse.ArgumentParser]
"""Adds a command by its name, its function and its help."""


def add_study(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Give a command the argument `study`, which `read` reads."""
    parser.add_argument("study", type=Path, help="study file, or name of a study with results")
    return parser


def read(options: argparse.Namespace) -> Study:
    """The study that a command was given."""
    from dmlbench.study.study import read_study

    return read_study(options.study)


def count(text: str, most: int = 100_000) -> int:
    """A whole number from 1 to `most`."""
    try:
        return parse_count(text, most)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def side(text: str) -> int:
    """The short side of images in pixels."""
    return count(text, 10_000)


def seconds(text: str) -> float:
    """Seconds between two looks."""
    return _number(text, 0.1, 86_400)


def minutes(text: str) -> float:
    """Minutes of a time limit: at most a year."""
    return _number(text, 0.01, 525_600)


def _number(text: str, least: float, most: float) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not least <= number <= most:
        raise argparse.ArgumentTypeError(
            f"{short_repr(text)} is not a number from {least:,} to {most:,}"
        )
    return number


def _shorten(text: str) -> str:
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}..."


def json_object(text: str) -> dict[str, Any]:
    """A JSON object, {"name": value, ...}, without a name that is there twice."""

    def build(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        for name, count in Counter(name for name, _ in pairs).items():
            if count > 1:
                raise argparse.ArgumentTypeError(f"{name!r} is there twice in {_shorten(text)}")
        return dict(pairs)

    try:
        value = json.loads(text, object_pairs_hook=build)
    except (ValueError, RecursionError) as error:
        problem = f"{_shorten(text)} is not JSON ({error})"
    else:
        if isinstance(value, dict):
            return value
        problem = f"{_shorten(text)} is no JSON object"
    raise argparse.ArgumentTypeError(f'{problem}. Quote it for the shell: \'{{"name": "value"}}\'')


def cores(text: str) -> str:
    """A number above 0, or `all`."""
    return text if text == "all" else str(count(text))


def output_file(text: str) -> Path:
    """A file that can be written: its folder exists, or can be made."""
    path = Path(text)
    folder = path.absolute().parent
    while not folder.exists():
        folder = folder.parent
    if path.is_dir():
        problem = "is a folder, and a file is to be written"
    elif not folder.is_dir():
        problem = f"cannot be written: {folder} is no folder"
    elif not os.access(path if path.exists() else folder, os.W_OK):
        problem = "cannot be written: there is no permission"
    else:
        return path
    raise argparse.ArgumentTypeError(f"{text} {problem}")


def time(text: str) -> float:
    """Seconds."""
    from dmlbench.planning.budget import parse_time

    try:
        return parse_time(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def use_threads(number: int) -> None:
    """Use as many threads as the study says, however many cores there are.

    Another number of threads gives other bits. The libraries of numpy and faiss read the number
    when they are imported.
    """
    for library in ("OMP", "OPENBLAS", "MKL"):
        os.environ[f"{library}_NUM_THREADS"] = str(number)
