"""Rows of a table that need no training, and show what a trained number is worth."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from dmlbench.backbones.model import EmbeddingModel
from dmlbench.training.train import embed_test, set_up

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dmlbench.datasets.store.reader import Store
    from dmlbench.study.run import Run


def control_embeddings(
    run: Run, store: Store, device: torch.device
) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """The embeddings of the test split by the control that `run` names.

    - random: Gaussian vectors, the lower limit of every metric;
    - untrained: the model before the first step, as every training of this seed starts;
    - oracle: one random direction for each class, the upper limit.

    Returns:
        Embeddings (N, dim), and the rows (N,) of the store's index.
    """
    if run.control == "untrained":
        set_up(run.recipe, device)
        torch.manual_seed(run.seed)
        model = EmbeddingModel(run.model, run.recipe, store.channels).to(device)
        return embed_test(model, store, device, run)
    random = np.random.default_rng(run.seed)
    test = store.split("test", run.data.class_fraction)
    if run.control == "oracle":
        classes = int(test.labels.max()) + 1
        directions = random.standard_normal((classes, run.model.dim), dtype=np.float32)
        embeddings = directions[test.labels]
    else:
        embeddings = random.standard_normal((len(test.rows), run.model.dim), dtype=np.float32)
    return embeddings, test.rows.astype(np.int32)
