"""The bounds of a loss's options. No number comes from here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

MAKES_NUMBERS = False
LARGEST = 1_000_000
"""The largest size of a number among the options of a loss. No paper has one above 10,000."""

LARGEST_OF_PML = 10_000
"""The same for a loss of pytorch-metric-learning, whose options may be sizes of tensors."""


class Bounds(NamedTuple):
    """The numbers that an option may be; None where there is no bound."""

    least: float | None
    above: float | None
    most: float


def option_bounds(option: str, constants: Mapping[str, Any] | None = None) -> Bounds:
    """The bounds of `option`.

    Args:
        constants: of the file of the loss: LEAST, ABOVE and MOST map options to their bounds.

    >>> option_bounds("margin"), option_bounds("scale", {"ABOVE": {"scale": 0}})[1:]
    (Bounds(least=-1000000, above=None, most=1000000), (0, 1000000))
    >>> option_bounds("margin", {"MOST": {"margin": 1000}})[0]
    -1000
    """
    least, above, most = (
        (constants or {}).get(name, {}).get(option) for name in ("LEAST", "ABOVE", "MOST")
    )
    most = LARGEST if most is None else most
    return Bounds(-most if least is None and above is None else least, above, most)
