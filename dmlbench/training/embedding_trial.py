"""Does a file of external embeddings fit the images of its data set? Known before any job.

Another process reads it, as `python -m dmlbench.training.embedding_trial` with questions as JSON.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from dmlbench.datasets import load
from dmlbench.datasets.store.format import MANIFEST_FILE
from dmlbench.datasets.store.part import Part
from dmlbench.datasets.store.reader import Store
from dmlbench.study.class_sizes import chosen_rows, known_rows
from dmlbench.study.preflight import ExternalFile
from dmlbench.training.external_embeddings import read_arrays, read_embeddings
from dmlbench.utils.errors import DatasetError, UnusableFile

MAKES_NUMBERS = False


def problem_of(question: ExternalFile) -> str:
    """Why the file cannot be scored; empty if it can, as far as the images are known."""
    file, store = Path(question.file), Path(question.store)
    part = Part(*question.part)
    try:
        if (store / MANIFEST_FILE).is_file():
            packed = Store(store)
            read_embeddings(file, packed, packed.split("test", part).rows)
            return ""
        rows = known_rows(load(question.type, question.options))
        if rows is None:
            return _problem_of_arrays(file)
        rows = sorted(rows)
        test = {row.path for row in chosen_rows(rows, "test", part)}
        paths = np.array([row.path for row in rows], dtype=object)
        images: Any = SimpleNamespace(index={"path": paths, "id": np.arange(len(rows))})
        wanted = np.flatnonzero([row.path in test for row in rows])
        read_embeddings(file, images, wanted)
    except (UnusableFile, DatasetError) as error:
        return str(error)
    return ""


def _problem_of_arrays(file: Path) -> str:
    try:
        read_arrays(file)
    except UnusableFile as error:
        return f"{file}: {error}"
    return ""


def main() -> None:
    """Read each file, and print the list of their problems."""
    questions = [ExternalFile(*question) for question in json.load(sys.stdin)]
    print(json.dumps([problem_of(question) for question in questions]))


if __name__ == "__main__":
    main()
