"""What a JSON schema allows, in words: for the page of the settings, and for messages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

NUMBERS = {"integer": "whole number", "number": "number"}
BOUNDS = {
    "minimum": "≥ {:,}",
    "exclusiveMinimum": "> {:,}",
    "maximum": "≤ {:,}",
    "exclusiveMaximum": "< {:,}",
}
NAME = r"^[A-Za-z0-9][A-Za-z0-9_.+-]*$"


def allowed_values(schema: Mapping[str, Any]) -> str:
    """`whole number ≥ 1 or `null``; `list of: whole number ≥ 1; or `null``."""
    options = [*dict.fromkeys(_options(schema))]
    options = [text for text in options if text.removeprefix("whole ") not in {*options} - {text}]
    separator = "; or " if any("list" in option for option in options) else " or "
    return separator.join(filter(None, [", ".join(options[:-1]), options[-1]]))


def _options(schema: Mapping[str, Any]) -> list[str]:
    """Each alternative that a JSON schema allows, as `whole number ≥ 1`, or `` `adam` ``."""
    if "anyOf" in schema:
        return [text for option in schema["anyOf"] for text in _options(option)]
    if "enum" in schema:
        return [f"`{value}`" for value in schema["enum"]]
    if "const" in schema:  # a Literal of one value
        return [f"`{schema['const']}`"]
    kind = schema.get("type", "object")
    if kind in NUMBERS:
        bounds = [text.format(schema[key]) for key, text in BOUNDS.items() if key in schema]
        return [f"{NUMBERS[kind]} {', '.join(bounds)}".rstrip()]
    if kind == "string":
        return ["name" if schema.get("pattern") == NAME else "text"]
    if kind == "boolean":
        return ["`true`", "`false`"]
    if kind == "null":
        return ["`null`"]
    if kind == "array" and "prefixItems" in schema:
        return [f"list of two: {allowed_values(schema['prefixItems'][0])}"]
    if kind == "array":
        least = "non-empty list" if schema.get("minItems") else "list"
        return [f"{least} of: {allowed_values(schema['items'])}"]
    return ["mapping of names" if "patternProperties" in schema else "mapping"]
