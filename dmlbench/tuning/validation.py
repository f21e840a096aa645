"""One trial: its folds are trained one after the other, and scored on classes not trained on.

No function here reads a test image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from dmlbench.datasets.store.folds import cut_folds, draw_folds, hold_out, published_fold
from dmlbench.datasets.store.format import VALIDATION
from dmlbench.evaluation.placing import place
from dmlbench.evaluation.ranking import Ranking, UnusableEmbeddings, rank
from dmlbench.evaluation.retrieval import average_precision_at_r, r_precision, recall_at
from dmlbench.training.checkpoint import finish_copying
from dmlbench.training.embedding import embed
from dmlbench.training.inputs import open_inputs
from dmlbench.training.prefetch import THREADS
from dmlbench.training.provenance import count_parameters
from dmlbench.training.run_state import CHECKPOINT, FINISHED, PREVIOUS_CHECKPOINT
from dmlbench.training.train import Diverged, train
from dmlbench.utils.cores import usable_cores
from dmlbench.utils.errors import StudyError
from dmlbench.utils.files import read_json_if_whole, write_json

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    from dmlbench.backbones.model import TrainedModel
    from dmlbench.datasets.store.reader import Split, Store
    from dmlbench.study.poincare_ball import PoincareBall
    from dmlbench.study.run import Run
    from dmlbench.study.tuning import Trial
    from dmlbench.study.tuning_settings import Tuning
    from dmlbench.training.time_limit import StopRequests

METRICS: dict[str, Callable[[Ranking], float]] = {
    "map@r": lambda ranking: float(average_precision_at_r(ranking).mean()),
    "recall@1": lambda ranking: recall_at(1, ranking),
    "r_precision": r_precision,
}


def make_folds(run: Run, tuning: Tuning, store: Store) -> Iterator[tuple[Split, Split]]:
    """The folds of the training classes of `run` that are used: (train, validation) of each.

    Raises:
        StudyError: there are too few classes, or the data set has no validation part.
    """
    split = store.split("train", run.data.part)
    try:
        if tuning.classes == "published":
            # a holdout deals the classes of the validation part out too
            is_held_out = store.index["split"][split.rows] == VALIDATION
            folds = [published_fold(split, is_held_out & (run.data.holdout is None))]
        elif tuning.classes == "contiguous":
            folds = cut_folds(split, tuning.folds)
        else:
            folds = draw_folds(split, tuning.folds, tuning.seed)
    except ValueError as error:
        raise StudyError("tuning", [f"datasets.{run.dataset}: {error}."]) from None
    for classes in folds[: tuning.folds_in_use]:
        yield hold_out(split, classes)


class Fold(NamedTuple):
    """A fold of a trial, trained and scored."""

    history: list[dict[str, Any]]
    """A row for each epoch. Those that were validated have a `score`."""
    classes: tuple[int, int]
    """Numbers of classes that were trained on and held out."""
    images: tuple[int, int]
    """Numbers of images that were trained on and held out."""
    loss_parameters: int = 0
    """The number of values that the loss learnt beside the model."""


def run_trial(
    trial: Trial, store: Store, device: torch.device, state: Path, stop: StopRequests
) -> Iterator[Fold]:
    """Train and score the folds of `trial`, or continue; see `run_folds`."""
    run, tuning = trial.run, trial.tuning

    def validation(held_out: Split, _folder: Path) -> Validation:
        return Validation(run, store, held_out, device, tuning)

    yield from run_folds(run, tuning, trial.key, store, device, state, stop, validation)


def run_folds(
    run: Run,
    tuning: Tuning,
    key: str,
    store: Store,
    device: torch.device,
    state: Path,
    stop: StopRequests,
    validation: Callable[[Split, Path], Validation],
) -> Iterator[Fold]:
    """Train and score folds of the training classes of `run`, or continue.

    Args:
        key: of the results and the checkpoints.
        state: the folder of what it needs to continue; each fold has a folder in it.
        validation: makes the validation of a fold from what it holds out, and from its folder.

    Raises:
        Stopped: `stop` gave a reason; the folds that are finished and the steps of the one that is
            not are in `state`.
        Diverged: the loss or the embeddings of a fold became NaN or infinite.
    """
    for number, (split, held_out) in enumerate(make_folds(run, tuning, store)):
        folder = fold_folder(state, number)
        saved = read_json_if_whole(folder / FINISHED)
        if saved and saved["key"] == key:
            history, parameters = saved["history"], saved["loss_parameters"]
        else:
            folder.mkdir(exist_ok=True)
            validate = validation(held_out, folder)
            with stop.ending_at_once():
                _, loss, history = train(
                    run, store, split, device, folder, stop, validate, key, validate.is_enough
                )
            finish_copying()
            parameters = count_parameters(loss)
            done = {"key": key, "history": history, "loss_parameters": parameters}
            write_json(folder / FINISHED, done)
            for name in (CHECKPOINT, PREVIOUS_CHECKPOINT):
                (folder / name).unlink(missing_ok=True)
        yield Fold(
            history,
            (len(split.class_names), len(held_out.class_names)),
            (len(split.rows), len(held_out.rows)),
            parameters,
        )


def fold_folder(state: Path, number: int) -> Path:
    """The folder of what a fold, from 0, needs to continue."""
    return state / f"fold{number}"


class Validation:
    """Scores a model on images that it is not trained on: for `after_epoch` of `train`.

    Args:
        held_out: these images.
        tuning: the metric, a name of METRICS, and after which epochs to score.
    """

    def __init__(
        self,
        run: Run,
        store: Store,
        held_out: Split,
        device: torch.device,
        tuning: Tuning,
    ) -> None:
        self.run = run
        self.store = store
        self.held_out = held_out
        self.device = device
        self.tuning = tuning

    def __call__(
        self, model: TrainedModel, epoch: int, history: list[dict[str, Any]]
    ) -> dict[str, float]:
        if not self.tuning.validates_after(epoch, self.run.recipe.epochs):
            return {"score": float("nan")}
        inputs = open_inputs(self.run, self.store)
        embeddings = embed(model.eval(), inputs, self.held_out.rows, self.device)
        if not np.isfinite(embeddings).all():
            raise Diverged(f"the embeddings hold NaN or infinity after epoch {epoch}", history)
        # on a GPU, the threads that prepare images have nothing to do now
        is_cpu = self.device.type == "cpu"
        threads = self.run.recipe.cpu_threads if is_cpu else min(THREADS, usable_cores())
        labels, metric = self.held_out.labels, self.tuning.metric
        return {"score": score(embeddings, labels, metric, threads, self.run.ball)}

    def is_enough(self, history: list[dict[str, Any]]) -> bool:
        """Whether the training ends after the epochs of `history`, before its last one."""
        return False


def score(
    embeddings: NDArray[np.float32],
    labels: NDArray[np.int64],
    metric: str,
    threads: int = 1,
    ball: PoincareBall | None = None,
) -> float:
    """The value of `metric`, where each image is a query and all others are the gallery.

    Embeddings that rank nothing have score 0: all of them are the same, or one of them is zero.

    Args:
        embeddings: (N, D), finite.
        labels: (N,) class of each.
        threads: of the ranking; no score depends on them.
        ball: where images are compared by hyperbolic distance; None: by cosine.

    Raises:
        ValueError: no class has two images.

    >>> angles = np.deg2rad([0, 10, 25, 30, 60, 200])
    >>> embeddings = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    >>> round(score(embeddings, np.array([0, 0, 1, 0, 1, 1]), "map@r"), 4)
    0.3333
    """
    try:
        placed = place(embeddings, ball)
    except UnusableEmbeddings:
        return 0.0
    rows = np.arange(len(labels))
    ranking = rank(
        placed.gallery, labels, rows, rows, query_vectors=placed.queries, threads=threads
    )
    if not ranking.counts.any():
        raise ValueError("no class of the validation has two images, so nothing can be scored")
    return METRICS[metric](ranking)
