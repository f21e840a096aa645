"""The differences between a result file and the plan, in words."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from dmlbench.utils.modules import display_path
from dmlbench.utils.nested import flatten

MAX_LENGTH = 40
"""Characters of a setting's value that are shown."""


def describe_changes(
    before: Mapping[str, Any],
    now: Mapping[str, Any],
    code_before: Mapping[str, str] | None,
    code_now: Mapping[str, str],
) -> str:
    """All changes in one line; empty if the result file does not tell what changed.

    Args:
        before: the settings in the result file.
        now: the planned settings.
        code_before: module -> digest in the result file; None if the file does not have them.
        code_now: module -> digest of the present code.

    >>> describe_changes({"lr": 0.1}, {"lr": 0.2}, {"training.train": "a"}, {"training.train": "b"})
    'lr: 0.1 -> 0.2; code of training.train'
    """
    settings = json.loads(json.dumps(now))  # as a result file holds them
    changes = [*_describe_settings(before, settings)]
    if code_before is not None and (code := describe_code(code_before, code_now)):
        changes.append(code)
    return "; ".join(changes)


def describe_code(before: Mapping[str, str], now: Mapping[str, str]) -> str:
    """`code of dmlbench/losses/htl.py, ...`; empty if no module changed.

    Args:
        before, now: module -> digest. A module that only moved to another folder did not change.
    """
    changed = _by_short_name(before) ^ _by_short_name(now)
    modules = {
        module
        for digests in (before, now)
        for module, digest in digests.items()
        if (_short_name(module), digest) in changed
    }
    return f"code of {', '.join(map(display_path, sorted(modules)))}" if modules else ""


def _by_short_name(digests: Mapping[str, str]) -> set[tuple[str, str]]:
    return {(_short_name(module), digest) for module, digest in digests.items()}


def _short_name(module: str) -> str:
    return module.rpartition(".")[2]


def _describe_settings(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """`recipe.lr: 0.003 -> 0.001` for each setting that changed.

    Where a type changed, its options changed too: they are left out.
    """
    old, new = flatten(before), flatten(now)
    names = [
        name
        for name in {**old, **new}
        if name not in old or name not in new or old[name] != new[name]
    ]
    types = tuple(name.removesuffix("type") for name in names if name.endswith(".type"))
    for name in names:
        if name.endswith(".type") or not name.startswith(types):
            yield f"{name}: {_show(old, name)} -> {_show(new, name)}"


def _show(values: Mapping[str, Any], name: str) -> str:
    if name not in values:
        return "(none)"
    value = values[name]
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= MAX_LENGTH else text[: MAX_LENGTH - 3] + "..."
