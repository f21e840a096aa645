"""The embeddings of the test images after each epoch, for `report_optimism`.

Nothing is chosen by them: the evaluation says what the best epoch by its test score would have
given. They are unit vectors, or clipped ones if they are compared in a Poincaré ball, in float16,
which takes half the room of float32. A cosine of two such vectors is off by less than 0.001.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from dmlbench.study.result_files import RunFiles, epoch_file
from dmlbench.study.tuning_settings import is_due
from dmlbench.training.run_state import CHECKPOINT, PREVIOUS_CHECKPOINT
from dmlbench.utils.files import replacing

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dmlbench.backbones.model import TrainedModel
    from dmlbench.study.run import Run

MAKES_NUMBERS = False
KEY = "key.txt"


def begin_epoch_embeddings(files: RunFiles, run: Run, every: int = 1) -> None:
    """Prepare the folder of the embeddings, before a training begins or continues.

    A training that began without them, or with those of other epochs, begins again. Without
    `report_optimism`, the folder is removed.

    Args:
        every: as in `epoch_embedder`.
    """
    marker = files.optimism / KEY
    key = f"{run.train_key}, every {every}"
    if run.report_optimism and marker.is_file() and marker.read_text("utf-8") == key:
        return
    shutil.rmtree(files.optimism, ignore_errors=True)
    if run.report_optimism:
        for name in (CHECKPOINT, PREVIOUS_CHECKPOINT):
            (files.state / name).unlink(missing_ok=True)
        files.optimism.mkdir(parents=True)
        marker.write_text(key, "utf-8")


def epoch_embedder(
    files: RunFiles,
    run: Run,
    embed: Callable[[TrainedModel], NDArray[np.float32]],
    every: int = 1,
) -> Callable[[TrainedModel, int, list[dict[str, Any]]], dict[str, float]]:
    """A function for `after_epoch` of `train` that writes the embeddings of the test images.

    Args:
        embed: gives the embeddings (N, dim) of the test images.
        every: after each of this many epochs, and after the last one.
    """
    last = run.last_epoch or run.recipe.epochs

    def write_embeddings(
        model: TrainedModel, epoch: int, _history: list[dict[str, Any]]
    ) -> dict[str, float]:
        if is_due(epoch, every, last):
            embeddings = embed(model)
            factors = np.linalg.norm(embeddings, axis=1, keepdims=True)
            if run.ball:
                factors = np.maximum(factors / run.ball.radius, 1)
            vectors = embeddings / np.maximum(factors, np.finfo(np.float32).tiny)
            path = files.optimism / epoch_file(epoch)
            with replacing(path) as temporary, temporary.open("wb") as file:
                np.save(file, vectors.astype(np.float16))
        return {}

    return write_embeddings
