"""The options of a user's loss, which a study names by its import path."""

from __future__ import annotations

import difflib
import importlib
import inspect
from typing import Any

from dmlbench.losses.base import Loss
from dmlbench.utils.declarations import ANNOTATIONS, parse_annotation


def describe(path: str) -> dict[str, list[Any]]:
    """The options of the class at the import path `path`: name -> [annotation, default if any].

    Raises:
        ValueError: there is no such class, or it is not a loss; the message is one line.
    """
    module, _, name = path.rpartition(".")
    try:
        members = vars(importlib.import_module(module))
    except Exception as error:  # the user's code may raise anything
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise ValueError(f"{module} does not import: {reason}") from error
    losses = [key for key, value in members.items() if _is_loss(value)]
    if name not in losses:
        near = difflib.get_close_matches(name, losses, n=1)
        hint = f" Did you mean '{module}.{near[0]}'?" if near else ""
        fault = "is no subclass of dmlbench.losses.base.Loss" if name in members else "is not there"
        raise ValueError(
            f"{name} {fault}.{hint} Losses in {module}: {', '.join(losses) or 'none'}."
        )
    options = {}
    for option in _options(members[name]):
        annotation = option.annotation
        if not isinstance(annotation, str):
            annotation = inspect.formatannotation(annotation)
        if not _is_plain(annotation, option.default):
            kinds = ", ".join(ANNOTATIONS)
            raise ValueError(f"option '{option}' needs an annotation of {kinds}, a plain default.")
        default = [] if option.default is option.empty else [option.default]
        options[option.name] = [annotation, *default]
    return options


def _is_loss(value: Any) -> bool:
    return inspect.isclass(value) and issubclass(value, Loss) and value is not Loss


def _options(cls: type) -> list[inspect.Parameter]:
    """Keyword-only arguments of the constructor.

    A constructor with `**options` hands them on to that of its base, whose arguments count too.
    """
    options: dict[str, inspect.Parameter] = {}
    for base in cls.__mro__:
        if "__init__" in vars(base):
            arguments = inspect.signature(base).parameters.values()
            for argument in arguments:
                if argument.kind == argument.KEYWORD_ONLY:
                    options.setdefault(argument.name, argument)
            if not any(argument.kind == argument.VAR_KEYWORD for argument in arguments):
                break
    return list(options.values())


def _is_plain(annotation: str, default: Any) -> bool:
    try:
        parse_annotation(annotation)
    except (NameError, SyntaxError, TypeError, AttributeError):
        return False
    absent = default is inspect.Parameter.empty or default is None
    return absent or isinstance(default, int | float | str)
