"""What a study file says of itself beside its results, checked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from dmlbench.leaderboard.published import Remarks, read
from dmlbench.problems import did_you_mean
from dmlbench.settings import Settings


def remarks(settings: Settings) -> Remarks:
    """A loss is the published system that `published` names, or the one of its own name."""
    known = {row.system for row in read()}
    named = {loss: settings.published.get(loss, loss) for loss in settings.plan.losses}
    systems = {loss: system for loss, system in named.items() if system in known}
    return Remarks(
        settings.track,
        settings.unconfirmed,
        settings.deviations,
        systems if settings.track == "paper" else {},
    )


def wrong_remarks(file: Mapping[str, Any], settings: Settings) -> Iterator[str]:
    """Remarks on keys that `file`, as it was read, does not set; losses and published systems that
    there are not."""
    paths = [*_key_paths(file)]
    for field in ("unconfirmed", "deviations"):
        for path in getattr(settings, field):
            if path not in paths:
                hint = did_you_mean(path, paths)
                yield f"{field}: {path} is not set in this study. {hint}".rstrip()
    losses = {*settings.plan.losses, *settings.losses}
    systems = {row.system for row in read()}
    for loss, system in settings.published.items():
        if loss not in losses:
            yield f"published.{loss}: the study has no such loss. {did_you_mean(loss, losses)}"
        if system not in systems:
            hint = did_you_mean(system, systems)
            yield f"published.{loss}: no system '{system}' in published.csv. {hint}".rstrip()


def _key_paths(settings: Mapping[str, Any], above: str = "") -> Iterator[str]:
    for name, value in settings.items():
        path = f"{above}{name}"
        yield path
        if isinstance(value, Mapping):
            yield from _key_paths(value, f"{path}.")
