"""The `plan:` section of a study: which combinations it runs."""

from __future__ import annotations

import math
from functools import cached_property
from itertools import product
from typing import Annotated, Literal

from pydantic import Field, model_validator

from dmlbench.study.model import Model
from dmlbench.study.setting_types import Name, Names, NonEmptyNames, Seeds, each_once

MAX_RUNS = 100_000
"""Most runs of a study."""
Control = Literal["random", "untrained", "untrained_pca", "frozen", "oracle"]


class Exclude(Model):
    """Leave out all combinations that have every name of the entry."""

    dataset: Name | None = None
    """Leave out this data set. null means every data set."""
    backbone: Name | None = None
    """Leave out this backbone. null means every backbone."""
    loss: Name | None = None
    """Leave out this loss. null means every loss, with the controls and the external embeddings."""

    @property
    def names(self) -> dict[str, str]:
        """Axis -> name, as {"dataset": "sop", "loss": "htl"}."""
        return self.model_dump(exclude_none=True)

    @model_validator(mode="after")
    def _of_something(self) -> Exclude:
        if not self.names:
            raise ValueError("exclude needs a dataset, a backbone or a loss")
        return self


class Plan(Model):
    """What the study runs: every combination of the data sets, backbones, losses and seeds. A name
    is an entry of the mapping of the same name, or a type with its defaults."""

    datasets: NonEmptyNames
    """Run these data sets: entries of `datasets`, or types (`dmlbench list datasets`)."""
    backbones: NonEmptyNames
    """Run these backbones: entries of `backbones`, or types (`dmlbench list backbones`)."""
    losses: Names
    """Run these losses: entries of `losses`, or types (`dmlbench list losses`). `[]` trains none:
    the study scores its controls and external embeddings alone."""
    seeds: Seeds
    """Run each combination with these seeds. A seed starts every loss from the same weights.
    Intervals need two seeds or more."""
    controls: tuple[Control, ...] = ("random", "untrained", "oracle")
    """Add these rows, which need no training. random: random vectors. untrained: the model before
    its first step. untrained_pca: the features of its backbone, whitened by a PCA of the training
    images. frozen: the features of its backbone as they are, without a head. oracle: the labels
    themselves."""
    embeddings: Names = ()
    """Add rows for these external embeddings: entries of `embeddings`."""
    exclude: Annotated[tuple[Exclude, ...], Field(max_length=10_000)] = ()
    """Leave out these combinations: `[{dataset: sop, loss: htl}, {dataset: sop, backbone:
    big}]`."""

    def leaves_out(self, dataset: str, backbone: str, loss: str) -> bool:
        """Whether `exclude` names this combination."""
        rules = product((dataset, None), (backbone, None), (loss, None))
        return not self._excluded.isdisjoint(rules)

    @cached_property
    def _excluded(self) -> frozenset[tuple[str | None, ...]]:
        return frozenset((rule.dataset, rule.backbone, rule.loss) for rule in self.exclude)

    @model_validator(mode="after")
    def _no_duplicates(self) -> Plan:
        for field in type(self).model_fields:
            try:
                each_once(getattr(self, field))
            except ValueError as error:
                raise ValueError(f"{field}: {error}") from None
        for field in ("datasets", "backbones", "losses", "embeddings"):
            names: dict[str, str] = {}
            for name in getattr(self, field):
                other = names.setdefault(name.lower(), name)
                if other != name:
                    raise ValueError(
                        f"{field}: {other} and {name} differ only in upper and lower case, and "
                        f"some file systems have one folder for both. Rename one of them"
                    )
        return self

    @model_validator(mode="after")
    def _not_empty(self) -> Plan:
        if not (self.losses or self.controls or self.embeddings):
            raise ValueError("no losses, no controls and no embeddings: there is nothing to run")
        return self

    @model_validator(mode="after")
    def _not_too_many(self) -> Plan:
        names = ("datasets", "backbones", "losses", "seeds")
        sizes = {name: len(getattr(self, name)) for name in names}
        if (count := math.prod(sizes.values())) > MAX_RUNS:
            terms = " x ".join(f"{size:,} {name}" for name, size in sizes.items())
            raise ValueError(
                f"{terms} are {count:,} runs, and a study has at most {MAX_RUNS:,}. Make several "
                f"studies of it"
            )
        return self
