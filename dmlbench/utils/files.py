"""The data folder, and writing files so that no reader sees an incomplete one."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dmlbench.utils.errors import MissingResult, WrongEnvironment


def data_folder() -> Path:
    """The folder of archives, packed stores and weights: DMLBENCH_DATA, or ./data.

    Raises:
        WrongEnvironment: DMLBENCH_DATA is a file.
    """
    folder = Path(os.environ.get("DMLBENCH_DATA") or "data")
    if folder.is_file():
        problem = "it is a file, and the data is in a folder."
        raise WrongEnvironment(f"DMLBENCH_DATA={folder}: {problem} Name a folder, or unset it.")
    return folder


def file_state(path: Path) -> list[int]:
    """Numbers that change if the file `path` is written or replaced.

    Raises:
        OSError: it cannot be read.
    """
    stat = path.stat()
    return [stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary name beside `path`. The file becomes `path` when the block ends.

    A reader sees the old file or the new one. Several processes may write at the same time.
    """
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
    """Write `value` to the file `path`, which is replaced at once."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", "utf-8")


def read_json(path: Path) -> Any:
    """The content of the JSON file `path`.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no JSON.
    """
    try:
        return json.loads(path.read_text("utf-8"))
    except RecursionError:
        raise ValueError("its lists are nested too deeply") from None


def read_result(path: Path) -> Any:
    """The content of the result file `path`, a JSON object.

    Raises:
        MissingResult: it is missing or damaged.
    """
    try:
        content = read_json(path)
        if not isinstance(content, dict) or not content:
            raise ValueError("it is no JSON object with results")
        return content
    except OSError as error:
        raise MissingResult(f"{path}: {error.strerror}. `snakemake` makes it.") from None
    except ValueError as error:
        fix = "Remove it, and call `snakemake` again."
        raise MissingResult(f"{path}: damaged: {error}. {fix}") from None


def read_json_if_whole(path: Path) -> Any | None:
    """The content of `path`; None if it is missing or damaged, and can be made again."""
    try:
        return read_json(path)
    except (OSError, ValueError):
        return None
