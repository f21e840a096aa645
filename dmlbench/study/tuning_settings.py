"""The `tuning:` section of a study file: how each loss gets its settings before it is tested."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from dmlbench.losses._bounds import LARGEST
from dmlbench.study.model import Model
from dmlbench.study.numbers import AS_NUMBER
from dmlbench.study.setting_types import MAX_NAMES, Epoch, Name, Seed

MAX_TRIALS = 10_000
MAX_FOLDS = 100
MAX_OPTIONS = 100
"""Most options of a loss that are searched."""

LearningRateFactor = Annotated[float, Field(ge=0.001, le=1000), AS_NUMBER]
Number = Annotated[float, Field(ge=-LARGEST, le=LARGEST), AS_NUMBER]
OptionName = Annotated[str, Field(min_length=1, max_length=100)]


def is_due(epoch: int, every: int, last: int) -> bool:
    """Whether `epoch` (from 1) is one of every `every` epochs, or the last one.

    >>> [epoch for epoch in range(1, 6) if is_due(epoch, 2, 5)]
    [2, 4, 5]
    """
    return epoch % every == 0 or epoch == last


class SearchRange(Model):
    """The range in which an option of a loss is searched."""

    low: Number
    """The smallest value."""
    high: Number
    """The largest value."""
    log: bool = False
    """Search the logarithm of the option uniformly: for ranges over several powers of ten."""

    @model_validator(mode="after")
    def _ordered(self) -> SearchRange:
        if self.low > self.high:
            raise ValueError(f"low {self.low:g} is above high {self.high:g}")
        if self.log and self.low <= 0:
            raise ValueError(f"low {self.low:g} must be above 0, since log is true")
        return self


Space = Annotated[dict[OptionName, SearchRange], Field(max_length=MAX_OPTIONS)]
Spaces = Annotated[dict[Name, Space], Field(max_length=MAX_NAMES)]


class Tuning(Model):
    """How each loss is tuned: every loss gets the same number of trials, which are validated on
    training classes that they have not seen. The test images are not used."""

    trials: Annotated[int, Field(ge=1, le=MAX_TRIALS), AS_NUMBER] = 16
    """Try this many settings for each loss. The first trial has the settings of the study; the
    others are scrambled Sobol points of the search space. More trials later leave the earlier ones
    as they are, and only the new ones run."""
    folds: Annotated[int, Field(ge=2, le=MAX_FOLDS), AS_NUMBER] = 4
    """Cut the training classes into this many folds. A fold is validated by a model that is trained
    on the classes of all other folds."""
    use_folds: Annotated[int, Field(ge=1, le=MAX_FOLDS), AS_NUMBER] | None = None
    """Train and validate only this many of the folds, which costs less. null takes all."""
    classes: Literal["random", "contiguous", "published"] = "random"
    """Which classes make a fold. random draws them, evenly within each super-class. contiguous cuts
    the list of classes into blocks, as Musgrave et al. (2020). published takes the validation part
    of the data set as the only fold; it needs a data set that has one."""
    metric: Literal["map@r", "recall@1", "r_precision"] = "map@r"
    """Choose the trial and the number of epochs with the best mean of this metric over the
    folds."""
    every: Epoch = 1
    """Validate after each of this many epochs, and after the last one."""
    seed: Seed = 0
    """The seed of the folds, of the search, and of the trainings of all trials."""
    lr_factor: tuple[LearningRateFactor, LearningRateFactor] = (0.25, 4.0)
    """Search a multiple of the recipe's `lr` between these two, on a logarithmic scale. Two equal
    numbers search nothing."""
    head_lr_factor: tuple[LearningRateFactor, LearningRateFactor] = (1.0, 1.0)
    """Search a multiple of the recipe's `head_lr_factor` between these two, on a logarithmic
    scale."""
    spaces: Spaces = {}
    """Search these options of a loss in place of those that its file declares: `{loss: {option:
    {low, high, log}}}`. `{}` searches no option of the loss."""

    @property
    def folds_in_use(self) -> int:
        """The number of folds that each trial trains and validates."""
        if self.classes == "published":
            return 1
        return self.use_folds or self.folds

    @property
    def validation(self) -> dict[str, Any]:
        """The settings that decide the scores of a trial whose options are given."""
        unused = {"folds", "use_folds"} if self.classes == "published" else set()
        names = {"folds", "use_folds", "classes", "metric", "every", "seed"} - unused
        settings = self.model_dump(mode="json", include=names)
        if self.use_folds == self.folds and "use_folds" in settings:
            settings["use_folds"] = None  # all of them
        return settings

    def validates_after(self, epoch: int, epochs: int) -> bool:
        """Whether a training of `epochs` epochs is validated after `epoch` (from 1)."""
        return is_due(epoch, self.every, epochs)

    @model_validator(mode="after")
    def _fits_together(self) -> Tuning:
        for name in ("lr_factor", "head_lr_factor"):
            low, high = getattr(self, name)
            if low > high:
                raise ValueError(f"{name}: [{low:g}, {high:g}] is not an interval, low before high")
        if self.classes == "published":
            for name in ("folds", "use_folds"):
                # an ignored setting is a slip; its default is allowed, as study.json has all
                if (value := getattr(self, name)) != type(self).model_fields[name].default:
                    raise ValueError(
                        f"{name}: {value} is not used with classes: published, which has one fold. "
                        f"Leave it out"
                    )
        elif self.use_folds is not None and self.use_folds > self.folds:
            raise ValueError(f"use_folds: {self.use_folds} is more than folds: {self.folds}")
        return self
