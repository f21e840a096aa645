"""Where data stands, and writing files so that a reader sees the old one or the new one, never
half of one."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any


class MissingResult(Exception):
    """A result is missing, or is not the one that the study asks for; the text is for people."""


def data_folder() -> Path:
    """Archives, packed stores and weights: DMLBENCH_DATA, or data/ where the command is given."""
    return Path(os.environ.get("DMLBENCH_DATA", "data"))


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a name of this process's own beside `path`; it becomes `path` when the block ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}{path.suffix}")
    try:
        yield temporary
        with temporary.open("rb+") as file:  # a machine that dies must not leave an empty file
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", "utf-8")


def read_json(path: Path) -> Any:
    return json.loads(path.read_text("utf-8"))


def read_result(path: Path) -> Any:
    """What the result file `path` holds.

    Raises:
        MissingResult: it is missing or damaged.
    """
    try:
        return read_json(path)
    except OSError as error:
        raise MissingResult(f"{path}: {error.strerror}. `snakemake` makes it.") from None
    except ValueError as error:
        raise MissingResult(f"{path}: damaged: {error}. Remove it, and ask again.") from None


def read_json_if_whole(path: Path) -> Any | None:
    """What `path` holds; None where it is missing or damaged, and can be made again."""
    try:
        return read_json(path)
    except (OSError, ValueError):
        return None
