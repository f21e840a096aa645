"""`protocol: reality_check`: the numbers and the names of this protocol.

Source: Musgrave, Belongie, Lim: A Metric Learning Reality Check, ECCV 2020. A run trains four
models. Each leaves one of four blocks of training classes out, which choose its epoch.
"""

from __future__ import annotations

from dmlbench.study.tuning_settings import Tuning

REALITY_CHECK = "reality_check"
MODELS = 4
"""Models of a run, each without one block of the training classes."""
BLOCKS = Tuning(folds=MODELS, classes="contiguous", metric="map@r", every=1)
"""How the training classes are cut into blocks, and how the models are validated."""
SEPARATED = "separated"
"""Each score is the mean of the scores of the models."""
CONCATENATED = "concatenated"
"""The embeddings of the models are scored side by side."""


def scored_as(protocol: str, way: str) -> str:
    """The name of a test protocol whose embeddings are scored in this way.

    >>> scored_as("zero_shot", CONCATENATED)
    'zero_shot concatenated'
    """
    return f"{protocol} {way}"


def scored_dim(protocol: str, dim: int) -> int:
    """The dimension of the embeddings that a test protocol scores.

    Args:
        protocol: such as `zero_shot`, or one that `scored_as` names.
        dim: that of one model.

    >>> scored_dim("zero_shot concatenated", 128), scored_dim("zero_shot separated", 128)
    (512, 128)
    """
    return MODELS * dim if protocol.endswith(f" {CONCATENATED}") else dim


def is_of_reality_check(protocol: str) -> bool:
    """Whether `scored_as` names this test protocol.

    >>> is_of_reality_check("zero_shot"), is_of_reality_check("zero_shot separated")
    (False, True)
    """
    return protocol.endswith((f" {SEPARATED}", f" {CONCATENATED}"))
