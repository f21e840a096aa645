"""The errors of pydantic as lines for the person who wrote the study file."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator, Mapping
from datetime import date
from functools import lru_cache
from typing import Any

from pydantic import BaseModel, ValidationError

from dmlbench.study.allowed_values import NAME, allowed_values
from dmlbench.study.sections import places_of_keys
from dmlbench.study.setting_types import NAME_LENGTH
from dmlbench.utils.text import ShortRepr, did_you_mean

MAX_LENGTH = 80
"""Characters of a wrong value that a message shows."""
MAX_TEXT = 300
"""Characters of a key or of the path of a file."""
SPELLING = 0.8
"""From this similarity on, an unknown key is taken for a misspelt one; see difflib."""
OVERRIDES = ("backbones", "datasets")
"""Sections whose entries may override the recipe."""
BOUNDS = {"≥": "at least", ">": "above", "≤": "at most", "<": "below"}
EMPTY = "It is empty: remove it, or write its keys below it, indented."
SPECIAL = {NAME: "letters, digits, _ . + -, and a letter or a digit first"}
"""Beginning of the pattern of a text -> what it may hold."""
MAX_NAME = f"at most {NAME_LENGTH} characters, as it names a folder"


def describe_errors(error: ValidationError, model: type[BaseModel], path: str = "") -> list[str]:
    """A line for each thing that `model` refused: key path, what was found, what is allowed.

    Args:
        path: the key path in the study file of what was validated.
    """
    schema = _schema(model)
    items = error.errors(include_url=False)
    inside = {item["loc"][:end] for item in items for end in range(len(item["loc"]))}
    # a list whose values are wrong counts as too short as well
    items = [item for item in items if item["type"] != "too_short" or item["loc"] not in inside]
    lines = (_describe(item, schema, path) for item in items)
    return [*dict.fromkeys(lines)]  # each type of a union has refused the value


@lru_cache(maxsize=32)
def _schema(model: type[BaseModel]) -> dict[str, Any]:
    return model.model_json_schema()


def _describe(item: Any, schema: Mapping[str, Any], path: str) -> str:
    """The line for one error `item` of pydantic."""
    kind, loc, value = item["type"], item["loc"], item["input"]
    if loc and loc[-1] == "[key]":
        key_path = _join(path, _find(schema, loc[:-2])[0])
        return f"{key_path or 'study'}: found the key {show(value)}. {_name_hint(value)}"
    if kind in ("extra_forbidden", "invalid_key"):
        keys, section = _find(schema, loc[:-1])
        options = (_resolve(schema, option) for option in section.get("anyOf", [section]))
        section = next(option for option in options if "properties" in option)
        key = loc[-1]
        line = _unknown_key(key, [*section["properties"]], _join(path, keys))
        return f"{_join(path, [*keys, key])}: {line}"
    if kind == "missing" and isinstance(loc[-1], int):  # in a list, which is too short
        loc, kind = loc[:-1], "too_short"
    keys, allowed = _find(schema, loc)
    if kind == "missing":
        line = "is missing."
    elif kind == "value_error":
        line = f"{item['ctx']['error']}."
    elif kind == "too_long" and item["ctx"]["actual_length"]:
        line = "found {actual_length:,} values. Allowed: at most {max_length:,}.".format(
            **item["ctx"]
        )
    elif "properties" in allowed:
        hint = did_you_mean("", allowed["properties"])
        empty = "" if value is not None else f" {EMPTY}"
        line = f"found {show(value)}, not a mapping. {hint}{empty}"
    else:
        hint = " ".join(_hints(value, allowed))
        line = f"found {show(value)}. Allowed: {_in_words(allowed)}. {hint}".rstrip()
    return f"{_join(path, keys) or 'study'}: {line}"


def _find(schema: Mapping[str, Any], loc: Any) -> tuple[list[Any], Mapping[str, Any]]:
    """The keys and indices of `loc`, and the JSON schema of the value there.

    Other parts of `loc` are names of types, which pydantic adds where several are allowed.
    """
    keys, place = [], schema
    for part in loc:
        inner = _inside(schema, place, part)
        if inner is not None:
            keys.append(part)
            place = inner
    return keys, place


def _inside(root: Mapping[str, Any], schema: Mapping[str, Any], part: Any) -> Any:
    """The schema, without a reference, of what is at `part` in a value; None if nothing can be."""
    if "anyOf" in schema:
        options = (_inside(root, _resolve(root, option), part) for option in schema["anyOf"])
        return next((option for option in options if option is not None), None)
    if part in schema.get("properties", ()):
        return _resolve(root, schema["properties"][part])
    if isinstance(part, int) and "prefixItems" in schema:
        return _resolve(root, schema["prefixItems"][part])
    if isinstance(part, int) and "items" in schema:
        return _resolve(root, schema["items"])
    entries = [*schema.get("patternProperties", {}).values(), schema.get("additionalProperties")]
    values = next(filter(None, entries), None)
    return values and _resolve(root, {} if values is True else values)


def _resolve(root: Mapping[str, Any], schema: Mapping[str, Any]) -> Mapping[str, Any]:
    reference = schema.get("$ref")
    return root["$defs"][reference.rpartition("/")[2]] if reference else schema


def _unknown_key(key: Any, allowed: list[str], place: str) -> str:
    """What to do about a key that the section at the key path `place` does not have."""
    if not isinstance(key, str):
        return f"unknown key. {_name_hint(key)}"
    if difflib.get_close_matches(key, allowed, n=1, cutoff=SPELLING):
        return f"unknown key. {did_you_mean(key, allowed)}"
    if not place and "study" not in allowed:  # options without a study: `dmlbench check`
        return f"unknown key. {did_you_mean(key, allowed)}"
    known = places_of_keys()
    section, _, entry = place.partition(".")
    recipe = re.search(r"\brecipe(\.augmentation(\.jitter)?)?$", place)
    here = recipe[0] if recipe else f"{section}.<name>" if entry else section
    places = [other for other in known.get(key, []) if other != here]
    # an option of another type stands at the right place, unless it is a setting of the recipe too
    if places and (here not in known[key] or "recipe" in places):
        if "recipe" in places and section in OVERRIDES and not recipe:
            places = [*places, f"{place}.recipe, which overrides it for {entry}"]
        return f"unknown key. It belongs {', or '.join(map(_under, places))}."
    near = difflib.get_close_matches(key, known.keys() - {*allowed}, n=1, cutoff=SPELLING)
    if near and here not in known[near[0]]:
        places = [f"{other}.{near[0]}".lstrip(".") for other in known[near[0]]]
        return f"unknown key. Did you mean {' or '.join(places)}?"
    return f"unknown key. {did_you_mean(key, allowed)}"


def _under(place: str) -> str:
    return f"under {place}" if place else "at the top of the file"


def _in_words(allowed: Mapping[str, Any]) -> str:
    """The values of the JSON schema `allowed`, for a message."""
    text = allowed_values(allowed).replace("`", "").replace("non-empty list", "list")
    text = re.sub(r"\b(list|mapping|name|number)\b", r"a \1", text).replace("whole a", "a whole")
    for sign, words in BOUNDS.items():
        text = text.replace(f", {sign}", f" and {words}").replace(sign, words)
    text = text.replace("number at", "number of at").replace("mapping of a names", "mapping")
    pattern = allowed.get("pattern", "")
    special = [words for start, words in SPECIAL.items() if pattern.startswith(start)]
    if "maxLength" in allowed:
        special.append(MAX_NAME if special else f"at most {allowed['maxLength']} characters")
    return f"{text} ({'; '.join(special)})" if special else text


def _hints(value: Any, allowed: Mapping[str, Any]) -> Iterator[str]:
    """What is often meant by a `value` of a wrong type."""
    options = allowed.get("anyOf", [allowed])
    kinds = {option.get("type") for option in options}
    if "array" in kinds and not isinstance(value, list | tuple):
        items = next(option for option in options if option.get("type") == "array")
        yield f"Write a list: {_example(value, items)}."
    elif "object" in kinds and not isinstance(value, dict):
        yield EMPTY if value is None else "Write a line for each key: `key: value`."
    elif isinstance(value, list | tuple) and not value:
        yield "It is empty: write one value or more."
    elif isinstance(value, list | tuple) and not kinds & {"array", "object", None}:
        yield "Write one value, without brackets."
    elif isinstance(value, str) and kinds & {"integer", "number"}:
        yield "Write a number in plain decimal, as 10, 0.5 or 1e-3."
    elif value is None:
        yield "An empty value is null."
    elif isinstance(value, bool):
        yield "YAML reads yes, no, on and off as true and false."
    elif isinstance(value, date):
        yield "YAML reads it as a date."
    if "string" in kinds and value is not None and not isinstance(value, str | list | tuple | dict):
        yield "Put text in quotes."


def _example(value: Any, array: Mapping[str, Any]) -> str:
    """A list of the schema `array` as it is written in YAML: of `value`, if it is a word."""
    if isinstance(value, int | str) and not isinstance(value, bool) and "items" in array:
        text = show(value).strip("'")
        if re.fullmatch(r"[\w.+]+", text):
            return f"[{text}]"
    items = array.get("items", {"type": "number"})
    examples = {"integer": "[0, 1, 2]", "number": "[0.5, 1.0]", "string": "[first, second]"}
    if "enum" in items:
        return f"[{', '.join(map(str, items['enum'][:2]))}]"
    return examples.get(items.get("type", ""), "[{key: value}]")


def _name_hint(key: Any) -> str:
    """What a key may be, and why `key` is none."""
    text = f"Allowed: a name ({SPECIAL[NAME]}; {MAX_NAME})."
    return text if isinstance(key, str) else f"{text} {' '.join(_hints(key, {'type': 'string'}))}"


def _join(path: str, keys: list[Any]) -> str:
    """`path` and `keys` with dots between them, as text that can be printed."""
    names = (key if isinstance(key, str) else show(key) for key in keys)
    return ".".join(filter(None, [path, *(show_text(name) for name in names)]))


def show_text(text: str) -> str:
    """`text` without quotes, if a message can show it so: a key, the path of a file."""
    return text if text and text.isprintable() and len(text) <= MAX_TEXT else show(text)


def show(value: Any) -> str:
    """`value` as a message shows it: cut to `MAX_LENGTH`, and without names of Python's types.

    >>> show([True, None, "a" * 100])
    "[true, null, 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa..."
    """
    text = _SHORT.repr(value)
    return text if len(text) <= MAX_LENGTH else text[: MAX_LENGTH - 3] + "..."


class _Repr(ShortRepr):
    """The beginning of a value, in which true, false, null and dates look as in YAML."""

    def repr_bool(self, value: bool, level: int) -> str:
        return json.dumps(value)

    def repr_NoneType(self, value: None, level: int) -> str:
        return "null"

    def repr_date(self, value: date, level: int) -> str:
        return str(value)

    repr_datetime = repr_date


_SHORT = _Repr(4 * MAX_LENGTH)
