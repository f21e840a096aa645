"""`protocol: reality_check`: a run trains four models, each without one block of training classes.

Source: Musgrave, Belongie, Lim: A Metric Learning Reality Check, ECCV 2020. Each model is validated
on the block that it leaves out, after each epoch, and its best epoch counts.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from dmlbench.backbones.concatenated import ConcatenatedModels
from dmlbench.backbones.model import TrainedModel
from dmlbench.study.reality_check import BLOCKS
from dmlbench.training.checkpoint import Checkpoint
from dmlbench.training.embedding import embed_test
from dmlbench.training.execution import set_up
from dmlbench.training.inputs import open_inputs
from dmlbench.tuning.validation import Validation, fold_folder, run_folds
from dmlbench.utils.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    from dmlbench.datasets.store.reader import Split, Store
    from dmlbench.study.run import Run
    from dmlbench.training.time_limit import StopRequests


class Trained(NamedTuple):
    """The models of a run."""

    model: ConcatenatedModels
    """Each at its best epoch."""
    history: list[dict[str, Any]]
    """A row for each epoch of each model: with the number of the `model`, from 1, its `epoch`, the
    `step` of all models together, and its `score`."""
    facts: list[dict[str, Any]]
    """The best epoch and score of each model, its epochs, and what it was trained on."""


class DamagedModel(UserError):
    """The model of the best epoch of a fold is not what was written."""


def train_models(
    run: Run, store: Store, device: torch.device, state: Path, stop: StopRequests
) -> Trained:
    """Train the models of `run` one after the other, or continue.

    Args:
        state: the folder of what it needs to continue.

    Raises:
        Stopped: `stop` gave a reason; what was done is in `state`.
        Diverged: the loss or the embeddings of a model became NaN or infinite.
        DamagedModel: the disk damaged a model. The next call trains it again.
    """
    set_up(run.recipe, device)  # for the test images, if all models are finished already
    single = replace(run, protocol="standard")  # each model alone is an ordinary training

    def validation(held_out: Split, folder: Path) -> BestModel:
        best = Checkpoint(folder / "best", run.train_key)
        return BestModel(single, store, held_out, device, run.recipe.patience, best)

    models: list[TrainedModel] = []
    history: list[dict[str, Any]] = []
    facts: list[dict[str, Any]] = []
    folds = run_folds(single, BLOCKS, run.train_key, store, device, state, stop, validation)
    for number, fold in enumerate(folds):
        folder, best = fold_folder(state, number), best_row(fold.history)
        saved = Checkpoint(folder / "best", run.train_key).load()
        if not saved or saved["epoch"] != best["epoch"]:
            shutil.rmtree(folder)
            raise DamagedModel(f"model {number + 1}: its file is damaged. It is trained again.")
        model = open_inputs(single, store).create_model(pretrained=False)
        model.load_state_dict(saved["model"])
        models.append(model)
        before = history[-1]["step"] if history else 0
        history += [
            {**row, "step": before + row["step"], "model": number + 1} for row in fold.history
        ]
        facts.append(
            {
                "best_epoch": best["epoch"],
                "best_score": best["score"],
                "epochs": len(fold.history),
                "classes": fold.classes,
                "images": fold.images,
                "loss_parameters": fold.loss_parameters,
            }
        )
    return Trained(ConcatenatedModels(models).to(device), history, facts)


class BestModel(Validation):
    """Validates a model, and keeps it at its best epoch.

    Args:
        patience: the training ends after this many epochs without a better score; None: never.
        best: where the "model" of the best epoch is kept, with its "epoch".
    """

    def __init__(
        self,
        run: Run,
        store: Store,
        held_out: Split,
        device: torch.device,
        patience: int | None,
        best: Checkpoint,
    ) -> None:
        super().__init__(run, store, held_out, device, BLOCKS)
        self.patience = patience
        self.best = best

    def __call__(
        self, model: TrainedModel, epoch: int, history: list[dict[str, Any]]
    ) -> dict[str, float]:
        measured = super().__call__(model, epoch, history)
        if best_row([*history, {"epoch": epoch, **measured}])["epoch"] == epoch:
            self.best.save({"model": model.state_dict(), "epoch": epoch})
        return measured

    def is_enough(self, history: list[dict[str, Any]]) -> bool:
        if not history or self.patience is None:
            return False
        return history[-1]["epoch"] - best_row(history)["epoch"] >= self.patience


def best_row(history: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """The first epoch with the largest score.

    >>> best_row([{"epoch": e, "score": s} for e, s in ((1, 0.2), (2, 0.3), (3, 0.3))])["epoch"]
    2
    """
    return max(history, key=lambda row: (row["score"], -row["epoch"]))


def embed_by_models(
    model: ConcatenatedModels, test: Store, device: torch.device, run: Run
) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Embed the test split by all models.

    Returns:
        Embeddings (N, models * dim), and the rows (N,) of the store's index.
    """
    return embed_test(model, test, device, run.tested)
