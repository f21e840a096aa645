"""What a leaderboard was made from, and what its files are: leaderboard/made.json."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from dmlbench.study.gallery_files import GALLERIES, GalleryFiles
from dmlbench.study.result_files import StudyFiles
from dmlbench.study.run import json_key
from dmlbench.study.study import TABLES, Study
from dmlbench.utils.digests import (
    describe_file,
    is_unchanged,
    read_with_digest,
    write_with_digest,
)
from dmlbench.utils.fingerprint import code_digests

MAKES_NUMBERS = False
UNKNOWN = "unknown"
"""What stands for the digest of a leaderboard that does not say what it was made from."""

HAS_HOLES = "runs had no result"
"""The key of a leaderboard that was written because jobs failed."""

Content = Mapping[str, Any] | None
"""The content of a result file; None if it is missing or damaged."""


def results_digest(results: Iterable[tuple[str, *tuple[Content, ...]]]) -> str:
    """Digest of all results of a study: path, run.json and metrics.json of each run; name and
    chosen.json of each cell that is tuned."""
    return json_key([(path, *map(_digest, contents)) for path, *contents in results])


def read_results_digest(study: Study) -> str:
    """The `results_digest` of the files that are there now."""
    runs = {path: study.files.run(path) for path in study.runs}
    results = [(path, files.read_run(), files.read_metrics()) for path, files in runs.items()]
    choices = [(cell, study.files.choice(cell).read_chosen()) for cell in study.tuned_cells]
    return results_digest([*results, *choices])


def write_made_of(
    study: Study,
    results: str,
    has_holes: bool = False,
    failed_plots: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Write made.json, when all other files of the leaderboard are there.

    Args:
        results: the `results_digest` from before the first result was read.
        has_holes: runs have no result yet; then its key is that of no complete leaderboard.
        failed_plots: the plots that could not be drawn: name -> reason.
    """
    folder = study.files.leaderboard
    galleries = folder / GALLERIES  # they have jobs of their own
    files = {
        file.relative_to(folder).as_posix(): describe_file(file)
        for file in sorted(folder.rglob("[!.]*"))
        if file.is_file() and file != study.files.made_of and galleries not in file.parents
    }
    content = {
        "key": HAS_HOLES if has_holes else study.leaderboard_key,
        "results": results,
        "code": code_digests(TABLES),
        "files": files,
        "failed_plots": dict(failed_plots),
    }
    write_with_digest(study.files.made_of, content)


def read_made_of(files: StudyFiles | GalleryFiles) -> dict[str, Any] | None:
    """The content of made.json; None if it is missing or damaged."""
    try:
        content = read_with_digest(files.made_of)
    except (OSError, ValueError, RecursionError):
        return None
    return content if {"key", "results", "code", "files"} <= content.keys() else None


def failed_plot_lines(failed: Mapping[str, str]) -> list[str]:
    """A line for each plot that could not be drawn.

    >>> failed_plot_lines({"time": "ValueError: no such font"})
    ['the plot `time` could not be drawn: ValueError: no such font.']
    """
    return [f"the plot `{name}` could not be drawn: {why}." for name, why in failed.items()]


def leaderboard_digest(files: StudyFiles) -> str:
    """Digest of the whole leaderboard, by which later files name it."""
    made_of = read_made_of(files)
    return str(made_of["digest"])[:16] if made_of else UNKNOWN


def find_changed_files(folder: Path, made_of: Mapping[str, Any]) -> list[Path]:
    """The files below `folder` that are missing, or are not those that were written.

    Args:
        made_of: what was written, from its made.json.
    """
    changed = []
    for name, record in made_of["files"].items():
        file = folder / name
        try:
            is_whole = is_unchanged(file, record)
        except OSError:
            is_whole = False
        if not is_whole:
            changed.append(file)
    return changed


def _digest(content: Content) -> str | None:
    return content["digest"] if content else None
