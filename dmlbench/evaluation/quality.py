"""What metrics.json says about the quality of the scores of a run, beside the scores."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dmlbench.backbones.pretraining import find_pretrained, pretraining_subsets
from dmlbench.evaluation.findings import (
    Finding,
    Shape,
    embedding_shape,
    find_in_leaks,
    find_in_shape,
    find_pretraining,
)
from dmlbench.evaluation.leaks import Leaks
from dmlbench.evaluation.placing import place
from dmlbench.utils.errors import BrokenInstallation

if TYPE_CHECKING:
    from dmlbench.datasets.store.reader import Store
    from dmlbench.study.run import Run


def describe_quality(
    run: Run,
    tested: Store,
    embeddings: NDArray[np.floating],
    leaks: Leaks | None,
    is_scored_without: bool,
) -> dict[str, Any]:
    """The keys `findings`, `near_duplicates` and `embedding_shape` of metrics.json.

    Args:
        tested: the store of the test images.
        embeddings: (N, models * D) of the test images.
        leaks: the near-duplicates; None if nobody has searched.
        is_scored_without: whether the scores without these images are there.
    """
    shape = _lowest_shape(embeddings, run)
    class_names = tested.split("test", run.tested.data.part).class_names
    findings = [*find_in_leaks(leaks, is_scored_without)]
    if not run.control:
        findings += find_in_shape(shape, len(class_names))
    findings += _find_pretraining(run, class_names)
    counts = leaks and {"test_images": leaks.test_images, "leaked": len(leaks.ids)}
    return {
        "findings": [finding._asdict() for finding in findings],
        "near_duplicates": counts,
        "embedding_shape": shape._asdict(),
    }


def _lowest_shape(embeddings: NDArray[np.floating], run: Run) -> Shape:
    """The shape of the embeddings of the model that has the lowest effective rank."""
    parts = np.split(embeddings, run.models, axis=1)
    shapes = [embedding_shape(place(part, run.ball).vectors) for part in parts]
    return min(shapes, key=lambda shape: shape.effective_rank)


def _find_pretraining(run: Run, class_names: list[str]) -> Iterator[Finding]:
    """The finding about the classes that the backbone has been pretrained on, if there is one."""
    if not run.uses_model or not run.model.pretrained:
        return
    weights = run.weights or Path(str(run.model.pretrained)).name
    subsets = pretraining_subsets(weights) if run.weights else []
    try:
        matches = find_pretrained(class_names, subsets)
    except BrokenInstallation:  # timm knows the classes
        subsets, matches = [], {}
    if finding := find_pretraining(weights, subsets, len(class_names), matches):
        yield finding
