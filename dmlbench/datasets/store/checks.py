"""Checks of the manifest and of the columns of a store: a damaged store is refused when it is
opened, and not with numbers that are wrong."""

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
from dmlbench.utils.files import read_json_if_whole

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


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of the store in `folder`, without damaged values; {} if there is none."""
    manifest = read_json_if_whole(folder / MANIFEST_FILE)
    if not isinstance(manifest, dict):
        return {}
    return {name: value for name, value in manifest.items() if _VALID.get(name, _any_value)(value)}


def check_manifest(manifest: Any) -> None:
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


def _any_value(value: Any) -> bool:
    return True


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
    "settings": _are_settings,
}
