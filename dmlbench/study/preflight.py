"""What would make a job fail, or its result worthless, and is known before any job.

`dmlbench plan` and the workflow ask it once. Jobs do not: it looks at tables, weights and models,
and remembers the answers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from dmlbench.backbones import trial as backbone_trial
from dmlbench.backbones.trial import backbone_problems
from dmlbench.datasets.store.format import MANIFEST_FILE
from dmlbench.datasets.store.part import Part, UnusableHoldout
from dmlbench.losses import _trial as loss_trial
from dmlbench.losses._trial import loss_problems
from dmlbench.study.class_sizes import ClassSizes, SplitSizes, class_sizes
from dmlbench.study.image_checks import image_problems
from dmlbench.study.loss_fit import loss_misfits, loss_question, recipe_key
from dmlbench.study.row_names import EMBEDDINGS
from dmlbench.study.run import Run
from dmlbench.study.study import Study
from dmlbench.study.study_names import folder_problem, length_problem
from dmlbench.study.tuning_preflight import fold_problems, trial_problems
from dmlbench.utils.discovery import find_problems
from dmlbench.utils.errors import DatasetError, StudyError
from dmlbench.utils.files import file_state
from dmlbench.utils.text import count_of

EMBEDDING_TRIAL = "dmlbench.training.embedding_trial"
"""The module that reads files of external embeddings, in another process."""


class ExternalFile(NamedTuple):
    """A file of external embeddings, and the data set whose images it must hold."""

    file: str
    type: str
    options: dict[str, Any]
    part: Part
    store: str
    """The folder of the packed images, which need not exist."""


def check_before_jobs(study: Study, stores: Path) -> None:
    """Refuse a study whose jobs would fail for a reason that is known now.

    Args:
        stores: the folder of the packed images.

    Raises:
        StudyError: with everything that is wrong in one message.
    """
    run_folders = [study.files.run(path).folder for path in study.runs]
    run_folders += [study.files.trial(path).folder for path in study.trials]
    name_problems = (folder_problem(study.folder), length_problem(run_folders))
    problems = [*filter(None, name_problems), *image_problems(study, stores)]
    sizes = _sizes_of_datasets(study, stores, problems)
    cells = _cells(study.runs.values())
    problems += _training_problems(cells, sizes)
    problems += fold_problems(cells, sizes)
    problems += _test_problems(cells, sizes, study)
    problems += _backbone_problems(cells)
    problems += _loss_problems(cells, sizes)
    problems += trial_problems(study, sizes) if not problems else []
    problems += _embedding_problems(cells, stores)
    if problems:
        raise StudyError(study.name, dict.fromkeys(problems))  # each once, in order


def _cells(runs: Iterable[Run]) -> list[Run]:
    """One run of each data set, backbone and loss: the seed decides nothing here."""
    return [*{(run.dataset, run.backbone, run.loss): run for run in runs}.values()]


def _sizes_of_datasets(study: Study, stores: Path, problems: list[str]) -> dict[str, ClassSizes]:
    """Data set -> its sizes, where they are known. Every problem is added to `problems`."""
    sizes = {}
    for name, run in {run.dataset: run for run in study.readers}.items():
        try:
            if known := class_sizes(run, stores):
                sizes[name] = known
        except UnusableHoldout as error:
            problems.append(f"datasets.{name}.holdout: {error}.")
        except DatasetError as error:
            problems.append(f"datasets.{name}: {error}")
    return sizes


def _training_problems(cells: Iterable[Run], sizes: Mapping[str, ClassSizes]) -> Iterator[str]:
    """Problems of the batches of each data set and backbone."""
    for run in {(run.dataset, run.backbone): run for run in cells if run.trains}.values():
        known = sizes.get(run.dataset)
        if known and known.train:
            yield from _batch_problems(run, known.train)


def _batch_problems(run: Run, train: SplitSizes) -> Iterator[str]:
    size, per_class = run.recipe.batch_size, run.recipe.images_per_class
    if train.classes < 2:
        yield f"datasets.{run.dataset}: it trains on 1 class. {_more_classes(run, 'train')}"
        return
    if train.images < size:
        yield (
            f"{recipe_key(run, 'batch_size')}: {size} is more than the "
            f"{count_of(train.images, 'image')} that {run.dataset} trains on. Take "
            f"{_multiple_below(train.images, per_class or 1)} or less."
        )
    if per_class and size == per_class:
        yield (
            f"{recipe_key(run, 'images_per_class')}: {per_class} fills a batch of {size} with one "
            f"class, which has no negatives. Take {size // 2} or less, or a larger batch_size."
        )
    elif per_class and train.largest is not None and train.largest < per_class:
        yield (
            f"{recipe_key(run, 'images_per_class')}: {per_class} is more than any class of "
            f"{run.dataset} has: the largest that it trains on has "
            f"{count_of(train.largest, 'image')}. Take {train.largest} or less."
        )


def _multiple_below(count: int, step: int) -> int:
    return max(count // step * step, 2)


def _more_classes(run: Run, split: str) -> str:
    if run.data.class_fraction < 1:
        return f"Raise class_fraction: {run.data.class_fraction}."
    if run.data.holdout:
        return f"Give it more classes, or leave out holdout: {run.data.holdout}."
    return f"Give it images of another class in the split {split}."


def _test_problems(
    cells: Iterable[Run], sizes: Mapping[str, ClassSizes], study: Study
) -> Iterator[str]:
    """Problems of each data set that is tested on."""
    for run in {(run.dataset, run.tested.dataset): run for run in cells}.values():
        test = run.tested
        known = sizes.get(test.dataset)
        if not known or not known.test:
            continue
        path, classes = f"datasets.{test.dataset}", known.test.classes
        if classes < 2:
            yield (
                f"{path}: its test has 1 class: every embedding would score 100 %, a random one "
                f"too. {_more_classes(test, 'test')}"
            )
            continue
        for protocol, counts in known.protocols.items():
            if not counts.answerable:
                yield (
                    f"{path}: no query of the test {protocol} has another image of its class in "
                    f"the gallery, so nothing can be scored. Give both the same classes."
                )
        if known.protocols:
            gallery = min(counts.gallery for counts in known.protocols.values())
            yield from _recall_problems(run, gallery, study)


def _recall_problems(run: Run, gallery: int, study: Study) -> Iterator[str]:
    """The K of Recall@K that the study sets, and that no gallery is large enough for."""
    test = run.tested
    for key, chosen in (
        ("evaluation.recall_at", study.settings.evaluation.recall_at),
        (f"datasets.{run.dataset}.recall_at", run.data.recall_at),
        (f"datasets.{test.dataset}.recall_at", test.data.recall_at),
    ):
        if chosen:
            for k in chosen:
                if k >= gallery:
                    yield (
                        f"{key}: Recall@{k} is 100 % for every embedding, since the gallery of "
                        f"{test.dataset} has {count_of(gallery, 'image')}. Leave {k} out, or set "
                        f"recall_at for each data set alone."
                    )
            return  # the others are not used


def _backbone_problems(cells: Iterable[Run]) -> Iterator[str]:
    """The problem of building each backbone, for the channels of its images."""
    asked: dict[backbone_trial.Question, Run] = {}
    for run in cells:
        if run.uses_model:
            model = run.model
            weights = model.pretrained if isinstance(model.pretrained, str) else None
            question = backbone_trial.Question(
                model.type,
                model.image_size,
                model.dim,
                model.head,
                run.facts["channels"],
                run.recipe.pooling,
                weights,
                bool(run.recipe.freeze_bn),
                None if model.is_frozen else run.recipe.chunk,  # then a step has no trunk
            )
            asked.setdefault(question, run)
    reported: set[str] = set()
    for question, problem in backbone_problems(asked).items():
        run = asked[question]
        key, _, text = problem.partition(": ")
        path = f"backbones.{run.backbone}.{key}"
        if key.startswith("recipe."):
            path = recipe_key(run, key.removeprefix("recipe."))
        if path not in reported:
            reported.add(path)
            yield f"{path}: {text}."


def _loss_problems(cells: Iterable[Run], sizes: Mapping[str, ClassSizes]) -> Iterator[str]:
    """Problems of each loss with its options, its batches and the classes of each data set."""
    asked: list[tuple[Run, loss_trial.Question]] = []
    for run in cells:
        if run.trains:
            for problem in loss_misfits(run):
                yield f"losses.{run.loss}{problem}"
            known = sizes.get(run.dataset)
            if known and known.train and known.train.classes > 1:
                asked.append((run, loss_question(run, known.train)))
    asked.sort(key=lambda cell: cell[1].classes)  # what fits the fewest classes fits the others
    reported: set[str] = set()
    for (run, question), problem in zip(asked, loss_problems(q for _, q in asked), strict=True):
        if not problem:
            continue
        if problem.startswith("recipe.batch_size:") and question.images < question.batch_size:
            continue  # a batch with fewer images is asked for already
        path = f"losses.{run.loss}"
        if problem.startswith("recipe."):
            key, _, problem = problem.partition(": ")
            path = recipe_key(run, key.removeprefix("recipe."))
        if path not in reported:
            reported.add(path)
            yield f"{path}: on {run.dataset}: {problem}."


def _embedding_problems(cells: Iterable[Run], stores: Path) -> Iterator[str]:
    """Problems of the files of external embeddings."""
    asked: dict[str, ExternalFile] = {}
    facts = []
    for run in cells:
        if run.embeddings and run.loss not in asked:
            test, store = run.tested, stores / run.tested.store
            asked[run.loss] = ExternalFile(
                str(run.embeddings),
                test.data.type,
                test.data.options,
                test.data.part,
                str(store),
            )
            is_packed = (store / MANIFEST_FILE).is_file()
            facts.append([file_state(run.embeddings), dict(test.facts), asked[run.loss], is_packed])
    answers = find_problems("embeddings", EMBEDDING_TRIAL, [*asked.values()], facts)
    for row, problem in zip(asked, answers, strict=True):
        if problem:
            yield f"embeddings.{row.removeprefix(EMBEDDINGS)}.file: {problem.rstrip('.')}."
