"""The errors of pydantic as lines for the person who wrote the study file."""

from __future__ import annotations

import typing
from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel, ValidationError

from dmlbench.utils.text import did_you_mean

MAX_LENGTH = 80
"""Characters of a wrong value that a message shows."""


def describe_errors(error: ValidationError, model: type[BaseModel], path: str = "") -> list[str]:
    """A line for each thing that `model` refused: key path, what was found, what is allowed.

    Args:
        path: the key path in the study file of what was validated.
    """
    lines = []
    for item in error.errors():
        keys = [path] if path else []
        key_path = ".".join([*keys, *(str(part) for part in item["loc"])])
        value = _shorten(item["input"])
        if item["type"] == "extra_forbidden":
            name = str(item["loc"][-1])
            line = f"unknown key. {did_you_mean(name, _fields(model, item['loc'][:-1]))}"
        elif item["type"] == "model_type":
            line = f"found {value}, not a mapping. {did_you_mean('', _fields(model, item['loc']))}"
        elif item["type"] == "missing":
            line = "is missing."
        elif item["type"] == "value_error":
            line = f"{item['ctx']['error']}."
        else:
            line = f"found {value}. {item['msg']}."
        lines.append(f"{key_path or 'study'}: {line}")
    return lines


def _shorten(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= MAX_LENGTH else text[: MAX_LENGTH - 3] + "..."


def _fields(model: type[BaseModel], loc: Iterable[int | str]) -> Iterable[str]:
    """The keys that `model` allows at `loc`."""
    for part in loc:
        if part in model.model_fields:
            annotation = model.model_fields[str(part)].annotation
            # look into `Model | None` and tuple[Model, ...]
            for option in (annotation, *typing.get_args(annotation)):
                if hasattr(option, "model_fields"):
                    model = option
    return model.model_fields
