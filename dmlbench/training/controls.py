"""Rows that need no training, and show what a trained number is worth."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from dmlbench.backbones.model import EmbeddingModel
from dmlbench.training.train import embed, set_up

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dmlbench.datasets.store import Split, Store
    from dmlbench.study import Run


def control_embeddings(
    run: Run, store: Store, test: Split, device: torch.device
) -> NDArray[np.float32]:
    """Embeddings (len(test.rows), dim) of the control that `run` names.

    random: Gaussian vectors, the floor of every metric. untrained: the model as every training
    of this seed finds it. oracle: one random direction a class, the ceiling.
    """
    random = np.random.default_rng(run.seed)
    if run.control == "random":
        return random.standard_normal((len(test.rows), run.model.dim), dtype=np.float32)
    if run.control == "oracle":
        classes = int(test.labels.max()) + 1
        directions = random.standard_normal((classes, run.model.dim), dtype=np.float32)
        return directions[test.labels]
    set_up(run.recipe, device)
    torch.manual_seed(run.seed)
    model = EmbeddingModel(run.model, run.recipe, store.channels).to(device).eval()
    return embed(model, store, test.rows, device, run)
