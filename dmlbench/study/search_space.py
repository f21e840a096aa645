"""The search space of a loss, and the points of it that the trials try.

Point i of a space is a pure function of (space, seed, i), so more trials leave earlier ones as they
are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, get_args, get_origin

from dmlbench.losses._catalogue import loss_module
from dmlbench.study.loss_options import options_model
from dmlbench.study.tuning_settings import Tuning
from dmlbench.utils.declarations import read_declarations

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from dmlbench.study.run import Run

FACTORS = {"recipe.lr_factor": "lr", "recipe.head_lr_factor": "head_lr_factor"}
"""Dimensions that all losses share: name -> the setting of the recipe that it multiplies."""

DIGITS = 6
"""Significant digits of a searched value: machines may differ in the last bit of a logarithm, and a
value is a part of the key of its trial."""


class Dimension(NamedTuple):
    """A number that is searched, and its range."""

    name: str
    low: float
    high: float
    log: bool = False
    """Whether its logarithm is searched uniformly."""
    is_integer: bool = False

    def value(self, position: float) -> float:
        """The value at `position`, in [0, 1), of the range.

        >>> Dimension("scale", 1.0, 100.0, log=True).value(0.5)
        10.0
        >>> [Dimension("k", 1, 3, is_integer=True).value(p) for p in (0.0, 0.4, 0.99)]
        [1, 2, 3]
        """
        # each integer gets a part of the range: [k, k + 1)
        high = self.high + 1 if self.is_integer else self.high
        if self.log:
            value = math.exp(math.log(self.low) + position * math.log(high / self.low))
        else:
            value = self.low + position * (high - self.low)
        value = float(f"{value:.{DIGITS}g}")
        value = min(max(math.floor(value) if self.is_integer else value, self.low), self.high)
        return int(value) if self.is_integer else value


def search_space(run: Run, tuning: Tuning) -> list[Dimension]:
    """The dimensions that are searched for the cell of `run`: options of its loss, sorted by name,
    and the shared factors of the recipe.

    An option is left out if the other options of the loss make it unused (`ONLY_WITH`), or if its
    range is one point.
    """
    fields = options_model(run.loss_type).model_fields
    space = [
        Dimension(name, **values, is_integer=bool(whole_only(fields[name].annotation)))
        for name, values in sorted(searched_ranges(run, tuning).items())
        if name not in unused_options(run)
    ]
    for name in FACTORS:
        low, high = getattr(tuning, name.removeprefix("recipe."))
        space.append(Dimension(name, low, high, log=True))
    return [dimension for dimension in space if dimension.low < dimension.high]


def sobol_points(dimensions: int, seed: int, count: int) -> NDArray[np.float64]:
    """The first `count` points (count, dimensions) of a scrambled Sobol sequence.

    They are scipy's; a longer sequence begins with the shorter one.
    """
    power = max(count - 1, 0).bit_length()  # the sequence is balanced at powers of two
    return _sobol_points(dimensions, seed, power)[:count]


@cache
def _sobol_points(dimensions: int, seed: int, power: int) -> NDArray[np.float64]:
    """The first 2**power points."""
    from scipy.stats import qmc

    return qmc.Sobol(dimensions, scramble=True, rng=seed).random_base2(power)


def search_points(space: Sequence[Dimension], seed: int, count: int) -> list[dict[str, float]]:
    """The values of the first `count` points of `space`, by the names of its dimensions."""
    return [
        {
            dimension.name: dimension.value(position)
            for dimension, position in zip(space, positions, strict=True)
        }
        for positions in sobol_points(len(space), seed, count).tolist()
    ]


def searched_ranges(run: Run, tuning: Tuning) -> dict[str, dict[str, Any]]:
    """Option of the loss of `run` -> its range: as the study has it, else as the loss's file."""
    if run.loss in tuning.spaces:
        return {name: range_.model_dump() for name, range_ in tuning.spaces[run.loss].items()}
    declared: dict[str, dict[str, Any]] = read_declarations(
        loss_module(run.loss_type)
    ).constants.get("SEARCH_SPACE", {})
    return declared


def unused_options(run: Run) -> set[str]:
    """The options that the loss of `run` does not use, since others have a value that it names in
    ONLY_WITH."""
    needed = read_declarations(loss_module(run.loss_type)).constants.get("ONLY_WITH", {})
    return {
        option
        for option, others in needed.items()
        if any(run.loss_options.get(other) not in values for other, values in others.items())
    }


def whole_only(annotation: Any) -> bool | None:
    """Whether an option of this type holds whole numbers only; None if it holds no numbers.

    >>> whole_only(int), whole_only(float | None), whole_only(bool)
    (True, False, None)
    """
    parts = get_args(annotation) or (annotation,)
    kinds = {get_args(part)[0] if get_origin(part) is Annotated else part for part in parts}
    return float not in kinds if kinds & {int, float} else None
