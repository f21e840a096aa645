"""The YAML that users write, as data.

YAML drops the first of two equal keys, and reads `010` as 8 and `1:30` as 90, all in silence. Here
they are refused, with their lines.
"""

from __future__ import annotations

import json
import re
from collections.abc import Hashable, Iterable, Mapping
from typing import Any, NoReturn

import yaml

from dmlbench.utils.errors import UnreadableYaml

DECIMAL = re.compile(r"[-+]?((0|[1-9]\d*)(\.\d*)?|\.\d+)([eE][-+]?\d+)?", re.ASCII)
"""A number that everybody reads alike: no leading zeros, underscores, colons or letters."""
MAX_BYTES = 1_000_000
"""Of a file. PyYAML reads this much in a few seconds."""
MAX_DEPTH = 50
"""Mappings and lists inside each other."""
MAX_VALUES = 100_000
"""Keys and values, counted as often as aliases repeat them."""
MAX_SHOWN = 60
"""Characters of a value that a message shows."""
PLAIN = {"null", "bool", "int", "float", "str", "timestamp", "seq", "map", "merge"}
"""The types of YAML that a study may hold. !!set, !!binary and others mean nothing in one."""
TAG = "tag:yaml.org,2002:"
NOT_FINITE = {".inf", ".nan"}
HINTS = {
    "cannot start any token": "Indent with spaces, not with tabs, and put text that begins with "
    "@, %, ` or another special character in quotes.",
    "mapping values are not allowed here": "A colon needs a space after it, and all keys of a "
    "mapping need the same indentation.",
    "expected <block end>": "All lines of a mapping or list need the same indentation.",
    "expected ',' or": "A bracket or a comma is missing.",
    "but found another document": "Remove the line `---` between them: a study is one document.",
    "unexpected end of stream": "A quote is not closed.",
}
"""Part of a message of PyYAML -> what to do."""


def read_yaml(text: str) -> Any:
    """The data in `text`, which is YAML or JSON.

    Returns:
        mappings, lists, text, numbers, true, false, null and dates, as Python's objects.

    Raises:
        UnreadableYaml: it is not YAML, a key stands twice in a mapping, or a number is written in a
            way that YAML reads as another number.

    >>> read_yaml("recipe: {lr: 0.1, epochs: 3}")
    {'recipe': {'lr': 0.1, 'epochs': 3}}
    >>> read_yaml("lr: 010")
    Traceback (most recent call last):
        ...
    dmlbench.utils.errors.UnreadableYaml: line 1: YAML reads `010` as 8. ...
    """
    try:
        loader = _Loader(_without_json_tabs(text))
        data = loader.get_single_data()
    except yaml.MarkedYAMLError as error:
        raise UnreadableYaml([_describe(error)]) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        problem = f"this is not YAML: line {line} holds the character U+{_code(error):04X}."
        raise UnreadableYaml([f"{problem} Remove it."]) from None
    except RecursionError:
        raise UnreadableYaml([_too_deep()]) from None
    if loader.problems:
        raise UnreadableYaml(loader.problems)
    return data


def check_data(data: Any) -> None:
    """Refuse `data` that is too large, too deep, or that holds itself or broken characters.

    Aliases of YAML make such data from a few lines.

    Raises:
        UnreadableYaml: the text says which.
    """
    sizes: dict[int, int] = {}
    open_containers: set[int] = set()

    def size(value: Any) -> int:
        if isinstance(value, str):
            _check_text(value)
        if not isinstance(value, Mapping | list | tuple):
            return 1
        name = id(value)
        if name in open_containers:
            _refuse("an alias (`*name`) stands inside the value that it repeats.")
        if len(open_containers) >= MAX_DEPTH:
            _refuse(_too_deep())
        if name not in sizes:
            open_containers.add(name)
            parts: Iterable[Any] = value
            if isinstance(value, Mapping):
                parts = [*value, *value.values()]
            sizes[name] = 1 + sum(size(part) for part in parts)
            open_containers.remove(name)
        if sizes[name] > MAX_VALUES:
            _refuse(
                f"it holds more than {MAX_VALUES:,} values, counting those that aliases repeat."
            )
        return sizes[name]

    size(data)


def _refuse(problem: str) -> NoReturn:
    raise UnreadableYaml([problem])


def _too_deep() -> str:
    return f"it is nested deeper than {MAX_DEPTH} levels. No setting is so deep."


def _check_text(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        _refuse(f"{text[:MAX_SHOWN]!a} holds half a character. Write the character itself.")


def _without_json_tabs(text: str) -> str:
    """`text`, with spaces for the tabs of JSON. YAML allows none, and JSON has none inside text."""
    if "\t" in text:
        try:
            json.loads(text)
        except (ValueError, RecursionError):
            return text
    return text.replace("\t", " ") if "\t" in text else text


def _code(error: yaml.reader.ReaderError) -> int:
    character: int | str = error.character
    return character if isinstance(character, int) else ord(character)


def _describe(error: yaml.MarkedYAMLError) -> str:
    """What PyYAML found, with the line, the place in it, and the fix if it is known."""
    mark = error.problem_mark or error.context_mark
    problem = " ".join(filter(None, [error.context, error.problem]))
    text = f"this is not YAML: line {mark.line + 1}: {problem}." if mark else f"{problem}."
    text = text.replace("character '\\t'", "a tab")
    hint = next((hint for part, hint in HINTS.items() if part in text), "")
    snippet = (mark and mark.get_snippet(indent=4, max_length=75)) or ""
    return "\n".join(filter(None, [f"{text} {hint}".rstrip(), snippet]))


class _Loader(yaml.SafeLoader):
    """PyYAML's loader of plain data. It collects what it refuses in `problems`."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.problems: list[str] = []

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        lines: dict[Hashable, int] = {}
        for key_node, _ in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                self.problems.append(
                    f"line {line}: a key is a word, and this one is a list or a mapping. "
                    "Text that begins with { or [ needs quotes."
                )
                continue
            is_merge = key_node.tag == f"{TAG}merge"
            key = key_node.value if is_merge else self.construct_object(key_node)
            if key in lines:
                shown = _shorten(key_node.value)
                where = f"is on line {lines[key]} and on line {line}"
                if lines[key] == line:
                    where = f"is twice in the mapping on line {line}"
                fix = "Write `<<: [*one, *two]`." if is_merge else "Remove one of them."
                self.problems.append(f"the key `{shown}` {where}. {fix}")
            lines[key] = line
        if any(not isinstance(key_node, yaml.ScalarNode) for key_node, _ in node.value):
            node.value = []  # it could not be constructed
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        line, tag = node.start_mark.line + 1, node.tag.removeprefix(TAG)
        if tag not in PLAIN:
            self.problems.append(
                f"line {line}: the tag {_shorten(node.tag)} is not known. A study holds mappings, "
                f"lists, text, numbers, true, false and null. Text that begins with ! needs quotes."
            )
            return None
        if not isinstance(node, yaml.ScalarNode):
            return super().construct_object(node, deep)
        if node in self.constructed_objects:
            return self.constructed_objects[node]
        try:
            value = super().construct_object(node, deep)
        except (ValueError, OverflowError, LookupError, AttributeError, yaml.YAMLError):
            self.problems.append(
                f"line {line}: `{_shorten(node.value)}` cannot be read as {_word(tag)}. "
                "Put it in quotes if it is text."
            )
            return None
        number = tag in ("int", "float") and node.value.lower().lstrip("+-") not in NOT_FINITE
        if number and not DECIMAL.fullmatch(node.value):
            shown = f"`{_shorten(node.value)}` as {_shorten(str(value))}"
            self.problems.append(
                f"line {line}: YAML reads {shown}. Write a number in plain decimal, as 10, 0.5 or "
                "1e-3; put it in quotes if it is text."
            )
        return value

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        merges = any(key.tag == f"{TAG}merge" for key, _ in node.value)
        super().flatten_mapping(node)
        if merges:  # else mappings that are merged again and again would fill the memory
            pairs = {(key.tag, key.value): (key, value) for key, value in node.value}
            node.value = [*pairs.values()]

    def construct_scalar(self, node: yaml.ScalarNode | yaml.MappingNode) -> Any:
        text = super().construct_scalar(node)
        if isinstance(text, str) and not text.isascii():
            # JSON writes a character beyond U+FFFF as two escapes
            text = text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")
        return text


# `=` alone is text, as everybody reads it; YAML 1.1 gives it a type that has no value
_Loader.yaml_implicit_resolvers = {
    first: resolvers
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    if first != "="
}


def _word(tag: str) -> str:
    words = {"timestamp": "a date", "int": "a number", "float": "a number", "bool": "true or false"}
    return words.get(tag, "plain text")


def _shorten(text: str) -> str:
    shown = text if text.isprintable() else ascii(text)[1:-1]
    return shown if len(shown) <= MAX_SHOWN else f"{shown[: MAX_SHOWN - 3]}..."
