"""What is said of what went wrong: a wrong study in one clear message (file, key path, found,
allowed, "did you mean"), and the failure of a job."""

from __future__ import annotations

import difflib
import traceback
import typing
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # a training that finds all as it should be has no need of it
    from pydantic import BaseModel, ValidationError

TAIL = 12  # lines of a failure that are kept


class StudyError(ValueError):
    """The study cannot be run as it is written. Its text is for the person who wrote it."""

    def __init__(self, file: str, problems: Iterable[str]) -> None:
        super().__init__(
            "\n".join([f"{file}: the study cannot be run:", *(f"  {p}" for p in problems)])
        )


def failure(status: str, message: str) -> dict[str, Any]:
    """Status and error of a result: `message`, and the last lines of the exception that is being
    handled."""
    tail = traceback.format_exc().splitlines()[-TAIL:]
    return {"status": status, "error": {"message": message.splitlines()[0], "tail": tail}}


def did_you_mean(found: str, allowed: Iterable[str], show: int = 30) -> str:
    """Sentence that names the nearest of `allowed`, and all of them where they are few."""
    names = sorted(allowed)
    near = difflib.get_close_matches(found, names, n=1)
    guess = f"Did you mean '{near[0]}'? " if near else ""
    return f"{guess}Allowed: {', '.join(names)}." if len(names) <= show else guess.rstrip()


def describe(error: ValidationError, model: type[BaseModel], path: str = "") -> list[str]:
    """A line for each thing that `model` refused; `path` is where it stands in the file."""
    lines = []
    for item in error.errors():
        where = ".".join([*([path] if path else []), *(str(part) for part in item["loc"])])
        found = _short(item["input"])
        if item["type"] == "extra_forbidden":
            name = str(item["loc"][-1])
            line = f"unknown key. {did_you_mean(name, _fields(model, item['loc'][:-1]))}"
        elif item["type"] == "model_type":
            line = f"found {found}, not a mapping. {did_you_mean('', _fields(model, item['loc']))}"
        elif item["type"] == "missing":
            line = "is missing."
        elif item["type"] == "value_error":
            line = f"{item['ctx']['error']}."
        else:
            line = f"found {found}. {item['msg']}."
        lines.append(f"{where or 'study'}: {line}")
    return lines


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _fields(model: type[BaseModel], loc: Iterable[int | str]) -> Iterable[str]:
    """Keys that `model` allows at `loc`."""
    for part in loc:
        if part in model.model_fields:
            inner = model.model_fields[str(part)].annotation
            # of `Model | None`, and of tuple[Model, ...], what is in them
            for option in (inner, *typing.get_args(inner)):
                if hasattr(option, "model_fields"):
                    model = option
    return model.model_fields
