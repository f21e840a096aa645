"""The names of the rows of a table: trainings, controls and external embeddings."""

from __future__ import annotations

CONTROL = "control_"
"""Prefix of a row that needs no training, as control_random."""
EMBEDDINGS = "embeddings_"
"""Prefix of a row whose embeddings another program made."""


def is_control(loss: str) -> bool:
    """Whether `loss` names a control."""
    return loss.startswith(CONTROL)


def is_external(loss: str) -> bool:
    """Whether `loss` names external embeddings: another program made them."""
    return loss.startswith(EMBEDDINGS)


def is_trained(loss: str) -> bool:
    """Whether the study trains `loss`: it is neither a control nor external embeddings."""
    return not is_control(loss) and not is_external(loss)


def control_kind(loss: str) -> str | None:
    """The name of the control, as `random`; None if `loss` names no control."""
    return loss.removeprefix(CONTROL) if is_control(loss) else None


def display_name(loss: str) -> str:
    """The name of a row as tables and plots show it.

    >>> display_name("control_random"), display_name("embeddings_clip"), display_name("htl")
    ('random', 'clip (embeddings)', 'htl')
    """
    if is_external(loss):
        return f"{loss.removeprefix(EMBEDDINGS)} (embeddings)"
    return loss.removeprefix(CONTROL)
