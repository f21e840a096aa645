"""The remarks of a study about its own settings, and the published systems it compares with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from dmlbench.losses import list_losses
from dmlbench.study.error_messages import show
from dmlbench.study.published import Published, read_published
from dmlbench.utils.errors import MAX_PROBLEMS
from dmlbench.utils.text import did_you_mean

if TYPE_CHECKING:
    from dmlbench.study.settings import Settings


class Remarks(NamedTuple):
    """What a study says about its settings. No result depends on it."""

    track: str = "fair"
    unconfirmed: Mapping[str, str] = {}
    """Key path in the study file -> remark, for values that no source confirms."""
    deviations: Mapping[str, str] = {}
    """Key path in the study file -> remark, where the study knowingly departs from the paper."""
    systems: Mapping[str, str] = {}
    """Name of a loss -> its published system; empty in the fair track."""
    overrides: Mapping[str, Sequence[str]] = {}
    """Entry, as `datasets.sop` or `backbones.big` -> settings of the recipe that it overrides."""

    @property
    def published(self) -> list[Published]:
        """The published numbers of `systems`."""
        if not self.systems:
            return []
        return [row for row in read_published() if row.system in self.systems.values()]


NO_REMARKS = Remarks()


def read_remarks(settings: Settings) -> Remarks:
    """The remarks in `settings`.

    A loss belongs to the published system that `settings.published` names. Without that, it belongs
    to the system of the same name; but not if its name is that of a type and it has another type.
    """
    systems = {}
    if settings.track == "paper":
        known = {row.system for row in read_published()}
        for loss in settings.plan.losses:
            kind = settings.losses.get(loss, {}).get("type", loss)
            same_name = loss if kind == loss or loss not in list_losses() else None
            system = settings.published.get(loss, same_name)
            if system in known:
                systems[loss] = system
    overrides = {
        f"{section}.{name}": sorted(entry["recipe"])
        for section in ("datasets", "backbones")
        for name, entry in getattr(settings, section).items()
        if entry.get("recipe")
    }
    return Remarks(settings.track, settings.unconfirmed, settings.deviations, systems, overrides)


def find_wrong_remarks(file: Mapping[str, Any], settings: Settings) -> Iterator[str]:
    """What is wrong with the remarks and with `published`, a line for each problem.

    A remark must not be empty, and must be about a key that is set in `file`, the study file as it
    was read. `published` must name losses of the study and systems of published.csv.
    """
    paths, wrong = {*_key_paths(file)}, 0
    for field in ("unconfirmed", "deviations"):
        for path, remark in getattr(settings, field).items():
            if not remark.strip():
                fix = "Write a few words, or remove it."
                yield f"{field}: the remark on {show(path)} is empty. {fix}"
            if path not in paths:
                wrong += 1  # a message shows the first ones alone
                hint = did_you_mean(path, paths) if wrong <= MAX_PROBLEMS else ""
                yield f"{field}: {show(path)} is not set in this study. {hint}".rstrip()
    if not settings.published:
        return
    if settings.track == "fair":
        yield "published: only the paper track compares with published numbers. Set `track: paper`."
    losses = {*settings.plan.losses, *settings.losses}
    systems = {row.system for row in read_published()}
    for loss, system in settings.published.items():
        if loss not in losses:
            yield f"published.{loss}: the study has no such loss. {did_you_mean(loss, losses)}"
        if system not in systems:
            hint = did_you_mean(system, systems)
            yield f"published.{loss}: no system '{system}' in published.csv. {hint}".rstrip()


def _key_paths(settings: Mapping[str, Any], above: str = "") -> Iterator[str]:
    """The dotted paths of all keys in nested `settings`."""
    for name, value in settings.items():
        path = f"{above}{name}"
        yield path
        if isinstance(value, Mapping):
            yield from _key_paths(value, f"{path}.")
