"""A loss of the user's own, named in a study by its import path: what it declares."""

from __future__ import annotations

import difflib
import importlib
import inspect
from typing import Any

from dmlbench import source
from dmlbench.losses.base import Loss


def describe(path: str) -> dict[str, list[Any]]:
    """Options of the class at `path`: name -> [annotation, and default if any].

    Raises:
        ValueError: there is no such class, or it is no loss; in one line.
    """
    module, _, name = path.rpartition(".")
    try:
        found = vars(importlib.import_module(module))
    except Exception as error:  # whatever the user's own code raises
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise ValueError(f"{module} does not import: {reason}") from error
    losses = [key for key, value in found.items() if _is_loss(value)]
    if name not in losses:
        near = difflib.get_close_matches(name, losses, n=1)
        guess = f" Did you mean '{module}.{near[0]}'?" if near else ""
        what = "is no subclass of dmlbench.losses.base.Loss" if name in found else "is not there"
        raise ValueError(
            f"{name} {what}.{guess} Losses in {module}: {', '.join(losses) or 'none'}."
        )
    options = {}
    for option in _options(found[name]):
        text = option.annotation
        text = text if isinstance(text, str) else inspect.formatannotation(text)
        if not _is_plain(text, option.default):
            kinds = ", ".join(source.ANNOTATIONS)
            raise ValueError(f"option '{option}' needs an annotation of {kinds}, a plain default.")
        default = [] if option.default is option.empty else [option.default]
        options[option.name] = [text, *default]
    return options


def _is_loss(value: Any) -> bool:
    return inspect.isclass(value) and issubclass(value, Loss) and value is not Loss


def _options(cls: type) -> list[inspect.Parameter]:
    """Keyword-only arguments of the constructor, and of its base's where it hands them on."""
    found: dict[str, inspect.Parameter] = {}
    for base in cls.__mro__:
        if "__init__" in vars(base):
            arguments = inspect.signature(base).parameters.values()
            for argument in arguments:
                if argument.kind == argument.KEYWORD_ONLY:
                    found.setdefault(argument.name, argument)
            if not any(argument.kind == argument.VAR_KEYWORD for argument in arguments):
                break
    return list(found.values())


def _is_plain(annotation: str, default: Any) -> bool:
    try:
        source.annotation(annotation)
    except (NameError, SyntaxError, TypeError, AttributeError):
        return False
    absent = default is inspect.Parameter.empty or default is None
    return absent or isinstance(default, int | float | str)
