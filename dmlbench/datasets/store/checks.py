"""Checks of the manifest and of the tables of a store: a damaged store is refused when it is
opened, and not with numbers that are wrong.

The manifest ends with its digest, and holds those of the tables: all of it is read in milliseconds.
The images are large. Their digests are in the index, and `dmlbench data verify` compares them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from dmlbench.datasets.store.format import (
    FORMAT,
    IMAGES_FILE,
    INDEX_FILE,
    MANIFEST_FILE,
    PAIRS_FILE,
    PROTOCOLS_FILE,
)
from dmlbench.utils.digests import describe_file, read_with_digest
from dmlbench.utils.errors import DatasetError
from dmlbench.utils.files import read_json
from dmlbench.utils.text import error_reason

MAKES_NUMBERS = False

INDEX_COLUMNS = {
    "id": "int32",
    "path": "string",
    "label": "int32",
    "class_name": "string",
    "split": "string",
    "height": "int32",
    "width": "int32",
    "offset": "int64",
    "digest": "string",
}
"""The columns that every index has, with their Arrow types."""


PACK_AGAIN = "Delete the folder, and `snakemake data` packs it again."
"""What to do about a damaged store."""


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of the store in `folder`; {} if it is missing or damaged."""
    try:
        return _read_manifest(folder)
    except (OSError, ValueError):
        return {}


def check_store(folder: Path) -> dict[str, Any]:
    """The manifest of the store in `folder`, once its files are those that were packed.

    Of the images, only the size of their file is compared.

    Raises:
        DatasetError: it is damaged, or no store.
    """
    try:
        manifest = _read_manifest(folder)
        for name, size in manifest["files"].items():
            if (actual := (folder / name).stat().st_size) != size:
                raise ValueError(f"{name} has {actual:,} bytes and not {size:,}")
        for name, digest in manifest["digests"].items():
            if describe_file(folder / name)["sha256"] != digest:
                raise ValueError(f"{name} is damaged: it is not the file that was packed")
    except (OSError, ValueError) as error:
        raise incomplete(folder, error) from error
    return manifest


def incomplete(folder: Path, error: Exception) -> DatasetError:
    """The error about a store that cannot be used."""
    reason = error_reason(error).rstrip(".")
    return DatasetError(f"{folder}: no complete store of a data set: {reason}. {PACK_AGAIN}")


def _read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of the store in `folder`.

    Raises:
        OSError: it cannot be read.
        ValueError: it is damaged.
    """
    path = folder / MANIFEST_FILE
    manifest = read_json(path)
    _check_manifest(manifest)  # first, as it names the value
    if read_with_digest(path) != manifest:
        raise ValueError(f"{MANIFEST_FILE} has changed while it was read")
    assert isinstance(manifest, dict)
    return manifest


def _check_manifest(manifest: Any) -> None:
    """Make sure that a manifest has every value that is read from it.

    Raises:
        ValueError: with the name of the value.
    """
    if not isinstance(manifest, dict):
        raise ValueError(f"{MANIFEST_FILE} is no JSON object")
    if manifest.get("format") != FORMAT:
        raise ValueError(f"its format is {manifest.get('format')}, not {FORMAT}")
    for name, is_valid in _VALID.items():
        if not is_valid(manifest.get(name)):
            value = repr(manifest.get(name))
            raise ValueError(f"{name} in {MANIFEST_FILE} is {value[:80]}")


def check_index(types: Mapping[str, str], form: str) -> None:
    """Make sure that an index has the columns of a store of `form`.

    Args:
        types: the Arrow type of each column.
        form: "pixels" or "jpeg".

    Raises:
        ValueError: with the name of the column.
    """
    columns = INDEX_COLUMNS | ({"bytes": "int32"} if form == "jpeg" else {})
    columns |= {name: "string" for name in types if name.startswith("level_")}
    for name, type in columns.items():
        if types.get(name) != type:
            raise ValueError(f"{name} in {INDEX_FILE} is {types.get(name, 'missing')}, not {type}")


def _is_count(value: Any) -> bool:
    return type(value) is int and value > 0  # True is no count


def _are_splits(value: Any) -> bool:
    """Whether `value` is {split: [classes, images]}."""
    return isinstance(value, dict) and all(
        isinstance(counts, list) and len(counts) == 2 and all(map(_is_count, counts))
        for counts in value.values()
    )


def _are_files(value: Any) -> bool:
    """Whether `value` is {file name: bytes} of the files of a store."""
    needed = {IMAGES_FILE, INDEX_FILE, PROTOCOLS_FILE}
    return (
        isinstance(value, dict)
        and needed <= value.keys() <= needed | {PAIRS_FILE}
        and all(map(_is_count, value.values()))
    )


def _are_digests(value: Any) -> bool:
    """Whether `value` is {file name: sha256} of the tables of a store."""
    needed = {INDEX_FILE, PROTOCOLS_FILE}
    return (
        isinstance(value, dict)
        and needed <= value.keys() <= needed | {PAIRS_FILE}
        and all(isinstance(digest, str) for digest in value.values())
    )


def _are_settings(value: Any) -> bool:
    """Whether `value` says what was packed: its archives and its folder."""
    return (
        isinstance(value, dict)
        and isinstance(value.get("archives", {}), dict)
        and isinstance(value.get("place"), str | None)
    )


_VALID: Mapping[str, Callable[[Any], bool]] = {
    "type": lambda value: isinstance(value, str),
    "side": _is_count,
    "store": lambda value: value in ("pixels", "jpeg"),
    "channels": lambda value: type(value) is int and value in (1, 3),
    "facts": lambda value: isinstance(value, dict),
    "images": _is_count,
    "splits": _are_splits,
    "content": lambda value: isinstance(value, str),
    "files": _are_files,
    "digests": _are_digests,
    "settings": _are_settings,
}
