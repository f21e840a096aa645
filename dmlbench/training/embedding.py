"""Embed images, or the features of a frozen trunk, by a model that is not trained here."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from dmlbench.training.determinism import repeatable
from dmlbench.training.execution import autocast
from dmlbench.training.inputs import Inputs, open_inputs
from dmlbench.training.prefetch import device_batches

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dmlbench.datasets.store.reader import Store
    from dmlbench.study.run import Run

EMBED_BATCH = 256
"""Images that are embedded at once. It is fixed: another size sums in another order, and gives
other bits."""


def embed_test(
    model: nn.Module, store: Store, device: torch.device, run: Run
) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Embed the test split after the last step; nothing is chosen by its result.

    Returns:
        Embeddings (N, dim), and the rows (N,) of the store's index.
    """
    rows = store.split("test", run.data.part).rows
    return embed(model.eval(), open_inputs(run, store), rows, device), rows.astype(np.int32)


@torch.no_grad()
@repeatable
def embed(
    model: nn.Module, inputs: Inputs, rows: NDArray[np.int64], device: torch.device
) -> NDArray[np.float32]:
    """Embed the images `rows` by the test transform; `model` is in eval mode.

    Returns:
        (len(rows), dim).
    """
    keys = [rows[first : first + EMBED_BATCH] for first in range(0, len(rows), EMBED_BATCH)]
    embeddings = torch.empty(0, device=device)
    for number, batch in enumerate(device_batches(inputs.test_batch, keys, device)):
        with autocast(inputs.run.recipe, device):
            output = model(inputs.to_model(**batch))
        if not number:
            embeddings = torch.empty((len(rows), output.shape[1]), device=device)
        embeddings[number * EMBED_BATCH :][: len(output)] = output
    return embeddings.cpu().numpy()
