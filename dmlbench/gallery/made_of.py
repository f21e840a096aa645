"""What the pictures of a group were made from, and what their files are: made.json."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dmlbench.leaderboard.made_of import results_digest
from dmlbench.study.study import PICTURES, Study
from dmlbench.utils.digests import describe_file, write_with_digest
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
        problems: loss -> why it has no pictures, or cannot be compared.
    """
    files = study.files.gallery(group)
    folder = files.folder.parent
    content = {
        "key": study.gallery_key(group),
        "results": results,
        "code": code_digests(*PICTURES),
        "files": {
            file.relative_to(folder).as_posix(): describe_file(file) for file in files.pages()
        },
        "problems": dict(problems),
        "embeddings": {loss: _count_embeddings(study, group, loss) for loss in problems},
    }
    write_with_digest(files.made_of, content)


def has_more_embeddings(study: Study, group: str, made_of: Mapping[str, Any]) -> bool:
    """Whether a loss that lacked embeddings when its pages were made has more of them now."""
    return any(
        _count_embeddings(study, group, loss) > count
        for loss, count in made_of.get("embeddings", {}).items()
    )


def _count_embeddings(study: Study, group: str, loss: str) -> int:
    """The number of seeds of `loss` whose embeddings are there."""
    runs = [run for run in study.gallery(group) if run.loss == loss]
    return sum(study.files.run(run.path).embeddings.is_file() for run in runs)
