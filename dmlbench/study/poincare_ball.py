"""The Poincaré ball in which the embeddings of some losses are compared."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from dmlbench.utils.declarations import read_declarations


class PoincareBall(NamedTuple):
    """A ball of curvature c. The exponential map at its origin takes an embedding v into it, to the
    point tanh(sqrt(c) |v|) v / (sqrt(c) |v|)."""

    curvature: float
    radius: float
    """A longer embedding is shortened to this length first."""


def poincare_ball(loss_type: str, options: Mapping[str, Any]) -> PoincareBall | None:
    """The ball in which the embeddings of a loss are compared; None for cosines.

    The file of a loss names two of its options in `POINCARE_BALL`.

    >>> poincare_ball("hyp", {"temperature": 0.2, "curvature": 0.1, "radius": 2.3})
    PoincareBall(curvature=0.1, radius=2.3)
    """
    if "." in loss_type:
        return None
    constants = read_declarations(f"dmlbench.losses.{loss_type}").constants
    names = constants.get("POINCARE_BALL")
    return PoincareBall(*(options[name] for name in names)) if names else None
