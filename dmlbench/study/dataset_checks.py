"""What is wrong with a data set of a study, as far as its facts say."""

from __future__ import annotations

from collections.abc import Iterator

from dmlbench.datasets.store.part import OWN_TEST, RUNGS
from dmlbench.study.backbone_settings import Backbone
from dmlbench.study.run import ResolvedDataset, count_training_images
from dmlbench.study.settings import Recipe
from dmlbench.utils.text import count_of, format_bytes

BYTES = 4
"""Of a float32, as which a batch of images enters the backbone."""
MAX_BATCH_BYTES = 10**12
MAX_STEPS = 10**9


def dataset_problems(dataset: ResolvedDataset, tested: ResolvedDataset | None) -> Iterator[str]:
    """Problems of a data set of the plan.

    Args:
        tested: the other data set that it is tested on, if there is one.
    """
    name = dataset.dataset
    if "train" not in dataset.facts.get("splits", ["train"]):
        yield (
            f"datasets.{name}: it has no training split. Train on another data set, and give "
            f"that one `test_on: {name}`."
        )
    elif tested:
        for part in (dataset, tested):
            if part.data.holdout:
                yield (
                    f"datasets.{part.dataset}.holdout: {part.data.holdout} sets the training "
                    f"classes of a data set apart from its own test classes, and {name} is tested "
                    f"on {tested.dataset}. Leave out holdout, or test_on."
                )
    elif dataset.data.holdout and (problem := _holdout_problem(dataset, dataset.data.holdout)):
        yield f"datasets.{name}.holdout: {dataset.data.holdout}, and {problem}."


def _holdout_problem(dataset: ResolvedDataset, holdout: str) -> str | None:
    """Why the super-classes of a data set do not give `holdout`; None if they may."""
    levels, data = dataset.facts["levels"], dataset.data
    if not levels:
        fix = "Name them in levels, or leave holdout out" if "levels" in data.options else ""
        return f"it has no super-classes. {fix or 'Leave holdout out'}"
    if RUNGS.index(holdout) > len(levels):
        return f"it has one level of super-classes, {levels[0]}. Take class or level_1"
    return OWN_TEST if {"roles", "pairs"} & {*dataset.facts} else None


def size_problems(
    dataset: ResolvedDataset, backbone: str, model: Backbone, recipe: Recipe
) -> Iterator[str]:
    """Problems of numbers that are each allowed, and together are more than any machine can do."""
    path = f"backbones.{backbone} on {dataset.dataset}"
    channels = dataset.facts["channels"]
    size = recipe.batch_size * model.image_size**2 * channels * BYTES
    if size > MAX_BATCH_BYTES:
        yield (
            f"{path}: batch_size {recipe.batch_size:,} x image_size {model.image_size:,} squared x "
            f"{count_of(channels, 'channel')} x {BYTES} bytes are {format_bytes(size)} in a batch, "
            f"and {format_bytes(MAX_BATCH_BYTES)} are the most that is allowed."
        )
    splits = {} if dataset.data.holdout else dataset.facts.get("splits", {})  # its own
    images = count_training_images({split: count for split, (_, count) in splits.items()})
    steps = recipe.epochs * (images // recipe.batch_size)
    if steps > MAX_STEPS:
        yield (
            f"{path}: {recipe.epochs:,} epochs of {images:,} images in batches of "
            f"{recipe.batch_size:,} are {steps:,} steps, and {MAX_STEPS:,} are the most that is "
            f"allowed."
        )
