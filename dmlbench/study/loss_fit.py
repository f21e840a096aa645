"""Options of a loss that do not fit each other or the batches, by what its file declares."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from dmlbench.losses._trial import Question
from dmlbench.study.class_sizes import SplitSizes
from dmlbench.study.run import Run
from dmlbench.utils.declarations import read_declarations


def loss_misfits(run: Run) -> Iterator[str]:
    """What does not fit in the loss of `run`; each text begins with `: `, or `.option: `.

    The file of a loss declares in `ONLY_WITH` which options need a value of another one, in
    `LEAST_IMAGES_PER_CLASS` how many images of a class a batch must hold, and in
    `BELOW_IMAGES_PER_CLASS` and `BELOW_BATCH_SIZE` options that must be less than these, and in
    `HOLDS_BATCH` options that must be the images of a batch or more.
    """
    if run.models > 1 and run.ball:
        yield (
            f": it ranks by hyperbolic distance, and protocol: {run.protocol} puts unit vectors of "
            f"several models side by side. Leave {run.loss} out, or set `protocol: standard`."
        )
    if "." in run.loss_type:
        return
    declared = read_declarations(f"dmlbench.losses.{run.loss_type}")
    options, constants = run.loss_options, declared.constants
    for option, needed in constants.get("ONLY_WITH", {}).items():
        _, default = declared.options[option]
        for other, values in needed.items():
            if options[option] != default and options[other] not in values:
                yield (
                    f".{option}: {options[option]} is not used with {other}: {options[other]}, "
                    f"only with {' or '.join(map(str, values))}. Leave it out."
                )
    yield from _batch_misfits(run, constants)


def recipe_key(run: Run, name: str) -> str:
    """The key path at which the study sets `name` of the recipe of `run`."""
    if name in run.data.recipe:
        return f"datasets.{run.dataset}.recipe.{name}"
    if name in run.model.recipe:
        return f"backbones.{run.backbone}.recipe.{name}"
    return f"recipe.{name}"


def _batch_misfits(run: Run, constants: Mapping[str, Any]) -> Iterator[str]:
    """Options that do not fit the number of images in a batch, or of each class in it."""
    options = run.loss_options
    size, per_class = run.recipe.batch_size, run.recipe.images_per_class
    least = constants.get("LEAST_IMAGES_PER_CLASS", 1)
    if per_class is not None and per_class < least:
        yield (
            f": it compares images of the same class, and a batch has {per_class} of each. Take "
            f"{recipe_key(run, 'images_per_class')}: {least} or more, or null."
        )
    for constant, limit, name in (
        ("BELOW_IMAGES_PER_CLASS", per_class, "images_per_class"),
        ("BELOW_BATCH_SIZE", size, "batch_size"),
    ):
        for option in constants.get(constant, ()):
            if limit is not None and options[option] >= limit:
                key = recipe_key(run, name)
                yield f".{option}: {options[option]} must be less than {key}: {limit}."
    for option in constants.get("HOLDS_BATCH", ()):
        if options[option] is not None and options[option] < size:
            key = recipe_key(run, "batch_size")
            yield f".{option}: {options[option]} must be {key}: {size} or more."


def loss_question(run: Run, train: SplitSizes) -> Question:
    """What a training of `run` on images of the sizes `train` gives to its loss."""
    parents = train.parents
    if parents is None:  # any tree of super-classes, as long as nobody knows the true one
        levels = range(1, len(run.facts["levels"]) + 1)
        parents = [[label >> level for label in range(train.classes)] for level in levels]
    options: dict[str, Any] = dict(run.loss_options)
    return Question(
        run.loss_type,
        options,
        run.model.dim,
        train.classes,
        train.images,
        parents or None,
        run.recipe.batch_size,
        run.recipe.images_per_class,
    )
