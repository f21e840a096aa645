"""What would make every trial of a tuned study fail, and is known before any job."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from dmlbench.losses._trial import Question, loss_problems
from dmlbench.study.class_sizes import ClassSizes, SplitSizes
from dmlbench.study.loss_fit import loss_question, recipe_key
from dmlbench.study.reality_check import BLOCKS
from dmlbench.study.run import Run
from dmlbench.study.study import Study
from dmlbench.study.tuning_settings import Tuning
from dmlbench.utils.text import count_of, short_repr


def fold_problems(cells: Iterable[Run], sizes: Mapping[str, ClassSizes]) -> Iterator[str]:
    """Problems of the folds of each data set, and of their batches.

    Args:
        cells: a run of each cell.
        sizes: data set -> its sizes, where they are known.
    """
    for run in {(run.dataset, run.backbone): run for run in cells if run.trains}.values():
        known = sizes.get(run.dataset)
        if known and known.train:
            for place, tuning in _foldings(run).items():
                if problem := _too_few_classes(run, tuning, known):
                    yield f"{place}: {problem}"
                else:
                    yield from _batch_problems(run, tuning, smallest_fold(tuning, known))


def _foldings(run: Run) -> dict[str, Tuning]:
    """How the training classes of `run` are cut into folds: key of the study -> settings."""
    foldings = {}
    if run.tuning:
        key = "classes" if run.tuning.classes == "published" else "folds"
        foldings[f"tuning.{key}"] = run.tuning
    if run.models > 1:
        foldings["protocol: reality_check"] = BLOCKS
    return foldings


def smallest_fold(tuning: Tuning, known: ClassSizes) -> SplitSizes:
    """The sizes of the fold that trains on the fewest classes.

    The number of images is exact if all classes have as many.
    """
    assert known.train
    classes, images = known.train.classes, known.train.images
    if known.validation and tuning.classes == "published":
        left, left_images = classes - known.validation.classes, images - known.validation.images
    else:
        left = classes - -(-classes // tuning.folds)
        left_images = images * left // classes
    parents = known.train.parents
    return SplitSizes(
        left, left_images, known.train.largest, parents and [_dense(p[:left]) for p in parents]
    )


def _dense(numbers: list[int]) -> list[int]:
    """`numbers` in their order as 0, 1, 2 and so on."""
    place = {number: i for i, number in enumerate(sorted({*numbers}))}
    return [place[number] for number in numbers]


def _too_few_classes(run: Run, tuning: Tuning, known: ClassSizes) -> str | None:
    """Why the training classes of `run` cannot be cut into folds; None if they can."""
    assert known.train
    classes = known.train.classes
    if tuning.classes == "published":
        held_out = known.validation.classes if known.validation else 0
        if not held_out:
            name = f"{run.dataset} with its holdout" if run.data.holdout else run.dataset
            return f"published, and {name} has no validation part. Take random or contiguous."
        if held_out < 2 or classes - held_out < 2:
            return (
                f"published, and of {run.dataset} {count_of(held_out, 'class')} of "
                f"{classes} is held out. Both parts need 2 classes or more."
            )
        return None
    if classes >= 2 * tuning.folds:
        return None
    may_take_fewer = run.models == 1 and classes >= 4
    fix = f"Take {classes // 2} or fewer." if may_take_fewer else "Give it more classes."
    return (
        f"{tuning.folds} folds of the {count_of(classes, 'class')} that {run.dataset} "
        f"trains on, and each fold needs 2 classes or more. {fix}"
    )


def _batch_problems(run: Run, tuning: Tuning, fold: SplitSizes) -> Iterator[str]:
    """Problems of batches that fit all training images, and not those of a fold."""
    size, per_class = run.recipe.batch_size, run.recipe.images_per_class
    where = f"a fold of {run.dataset} trains on"
    may_cut_more = tuning is not BLOCKS and tuning.classes != "published"
    more_folds = ", or more tuning.folds" if may_cut_more else ""
    if per_class and size // per_class > fold.classes:
        yield (
            f"{recipe_key(run, 'batch_size')}: {size} / images_per_class {per_class} = "
            f"{size // per_class} classes a batch, and {where} {fold.classes}. Take batch_size: "
            f"{fold.classes * per_class} or less{more_folds}."
        )
    elif fold.images < size:
        most = max(fold.images // (per_class or 1) * (per_class or 1), 2)
        yield (
            f"{recipe_key(run, 'batch_size')}: {size} is more than the "
            f"{count_of(fold.images, 'image')} that {where}. Take {most} or less{more_folds}."
        )


class _Asked(NamedTuple):
    """A question about a loss, and where it comes from."""

    question: Question
    loss: str
    about: str
    """The trial or the model that asks it."""
    see: str
    """The settings that could help."""


def trial_problems(study: Study, sizes: Mapping[str, ClassSizes]) -> Iterator[str]:
    """Problems of losses on the classes of a fold: those of trials, with the searched options, and
    those of the models of protocol: reality_check.

    Equal options are tried once, with the fewest classes.
    """
    asked: dict[str, _Asked] = {}
    for each in _questions(study, sizes):
        question = each.question
        name = json.dumps([question.type, question.options, question.dim], sort_keys=True)
        if name not in asked or question.classes < asked[name].question.classes:
            asked[name] = each
    answers = loss_problems(each.question for each in asked.values())
    reported: set[str] = set()
    for each, problem in zip(asked.values(), answers, strict=True):
        if problem and each.loss not in reported:
            reported.add(each.loss)
            yield f"losses.{each.loss}: {each.about}: {problem}. See {each.see}."


def _questions(study: Study, sizes: Mapping[str, ClassSizes]) -> Iterator[_Asked]:
    """What each cell that trains on a fold asks its loss."""
    for run in {run.cell: run for run in study.runs.values()}.values():
        known = sizes.get(run.dataset)
        if not known or not known.train:
            continue
        if run.tuning:
            fold = smallest_fold(run.tuning, known)
            for trial in study.tuned_cells[run.cell]:
                about = (
                    f"trial {trial.number} of its tuning, with {short_repr(dict(trial.options))}, "
                    f"on a fold of {run.dataset}"
                )
                see = "tuning.spaces and tuning.folds"
                yield _Asked(loss_question(trial.run, fold), run.loss, about, see)
        if run.models > 1:
            question = loss_question(run, smallest_fold(BLOCKS, known))
            about = f"a model that trains on three of the four blocks of {run.dataset}"
            yield _Asked(question, run.loss, about, "protocol: reality_check")
