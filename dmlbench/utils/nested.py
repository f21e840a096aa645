"""Nested mappings, as settings are, by the paths of their leaves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def flatten(value: Any, path: str = "") -> dict[str, Any]:
    """Dotted path -> value of all leaves of nested mappings. An empty mapping is a leaf.

    >>> flatten({"recipe": {"lr": 0.001, "augmentation": {"flip": True}}})
    {'recipe.lr': 0.001, 'recipe.augmentation.flip': True}
    """
    if not isinstance(value, Mapping) or not value:
        return {path: value} if path else {}
    parts = [flatten(inner, f"{path}.{name}".lstrip(".")) for name, inner in value.items()]
    return {name: leaf for part in parts for name, leaf in part.items()}
