"""What a study file says of itself beside its results, checked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from dmlbench import published
from dmlbench.losses import list_losses
from dmlbench.problems import did_you_mean
from dmlbench.published import Published

if TYPE_CHECKING:
    from dmlbench.settings import Settings


class Remarks(NamedTuple):
    """What a study says of itself beside its results; it changes none of them."""

    track: str = "fair"
    unconfirmed: Mapping[str, str] = {}
    """Remark by the key path in the study file: no source confirms what stands there."""
    deviations: Mapping[str, str] = {}
    """The same of what knowingly departs from the paper."""
    systems: Mapping[str, str] = {}
    """Published system by the name of the loss; empty in the fair track."""
    overrides: Mapping[str, Sequence[str]] = {}
    """Settings of the recipe that an entry, `datasets.sop` or `backbones.big`, has otherwise."""

    @property
    def published(self) -> list[Published]:
        if not self.systems:
            return []
        return [row for row in published.read() if row.system in self.systems.values()]


NO_REMARKS = Remarks()


def remarks(settings: Settings) -> Remarks:
    """A loss is the published system that `published` names, or the one of its own name, unless
    that is the name of a type that it is not."""
    systems = {}
    if settings.track == "paper":
        known = {row.system for row in published.read()}
        for loss in settings.plan.losses:
            kind = settings.losses.get(loss, {}).get("type", loss)
            own = loss if kind == loss or loss not in list_losses() else None
            system = settings.published.get(loss, own)
            if system in known:
                systems[loss] = system
    overrides = {
        f"{section}.{name}": sorted(entry["recipe"])
        for section in ("datasets", "backbones")
        for name, entry in getattr(settings, section).items()
        if entry.get("recipe")
    }
    return Remarks(settings.track, settings.unconfirmed, settings.deviations, systems, overrides)


def wrong_remarks(file: Mapping[str, Any], settings: Settings) -> Iterator[str]:
    """Remarks that say nothing, or are on keys that `file`, as it was read, does not set; losses
    and published systems that there are not."""
    paths = [*_key_paths(file)]
    for field in ("unconfirmed", "deviations"):
        for path, remark in getattr(settings, field).items():
            if not remark.strip():
                yield f"{field}.{path}: it is empty. Say in a few words why it stands here."
            if path not in paths:
                hint = did_you_mean(path, paths)
                yield f"{field}: {path} is not set in this study. {hint}".rstrip()
    if not settings.published:
        return
    if settings.track == "fair":
        yield "published: only the paper track compares with published numbers: track: paper."
    losses = {*settings.plan.losses, *settings.losses}
    systems = {row.system for row in published.read()}
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
