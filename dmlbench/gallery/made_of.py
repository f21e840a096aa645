"""What the pictures of a group were made from, and what their files are: made.json."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dmlbench.leaderboard.made_of import results_digest
from dmlbench.study.gallery_files import GalleryFiles
from dmlbench.study.study import PICTURES, Study
from dmlbench.utils.digests import describe_file, read_with_digest, write_with_digest
from dmlbench.utils.fingerprint import code_digests

MAKES_NUMBERS = False


def read_gallery_digest(study: Study, group: str) -> str:
    """Digest of the results of `group`, as dataset/backbone, that are there now."""
    runs = {run.path: study.files.run(run.path) for run in study.gallery(group)}
    return results_digest(
        (path, files.read_run(), files.read_metrics()) for path, files in runs.items()
    )


def write_made_of(study: Study, group: str, results: str, problems: Mapping[str, str]) -> None:
    """Write made.json, when all pages of `group` are there.

    Args:
        results: the digest from before the first result was read.
        problems: loss -> why it has no pictures.
    """
    files = study.files.gallery(group)
    folder = files.folder.parent
    content = {
        "key": study.gallery_key(group),
        "results": results,
        "code": code_digests(PICTURES),
        "files": {
            file.relative_to(folder).as_posix(): describe_file(file) for file in files.pages()
        },
        "problems": dict(problems),
    }
    write_with_digest(files.made_of, content)


def read_made_of(files: GalleryFiles) -> dict[str, Any] | None:
    """The content of made.json; None if it is missing or damaged."""
    try:
        content = read_with_digest(files.made_of)
    except (OSError, ValueError, RecursionError):
        return None
    return content if {"key", "results", "code", "files"} <= content.keys() else None
