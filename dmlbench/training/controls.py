"""Rows of a table that need no training, and show what a trained number is worth."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from dmlbench.training.embedding import embed, embed_test
from dmlbench.training.execution import set_up
from dmlbench.training.inputs import open_inputs

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dmlbench.datasets.store.reader import Store
    from dmlbench.study.run import Run

BLOCK = 4096
"""Vectors that are held in float64 at once."""


def control_embeddings(
    run: Run, train: Store | None, test: Store, device: torch.device
) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """The embeddings of the test split by the control that `run` names.

    - random: Gaussian vectors, the lower limit of every metric;
    - untrained: the model before the first step, as every training of this seed starts;
    - untrained_pca: the features of its trunk, whitened by a PCA of the training images;
    - frozen: the features of its trunk as they are;
    - oracle: one random direction for each class, the upper limit.

    Args:
        train: the images that a training would see; only untrained_pca reads them.
        test: the images to embed.

    Returns:
        Embeddings (N, dim), and the rows (N,) of the index of `test`. For frozen, dim is the number
        of features; for untrained_pca it may be smaller than the recipe's, see `whiten`.

    Raises:
        ValueError: the features of all training images are equal.
    """
    if run.uses_model:
        set_up(run.recipe, device)
        torch.manual_seed(run.seed)
        if run.control == "untrained":
            model = open_inputs(run.tested, test).create_model().to(device)
            return embed_test(model, test, device, run.tested)
        bare = replace(run, model=run.model.model_copy(update={"head": "none"}))
        model = open_inputs(bare.tested, test).create_model().to(device).eval()
        features, rows = embed_test(model, test, device, bare.tested)
        if train is not None:
            seen = train.split("train", run.data.part).rows
            trained = embed(model, open_inputs(bare, train), seen, device)
            features = whiten(trained, features, run.model.dim)
        return features, rows
    random = np.random.default_rng(run.seed)
    split = test.split("test", run.tested.data.part)
    if run.control == "oracle":
        classes = int(split.labels.max()) + 1
        directions = random.standard_normal((classes, run.model.dim), dtype=np.float32)
        embeddings = directions[split.labels]
    else:
        embeddings = random.standard_normal((len(split.rows), run.model.dim), dtype=np.float32)
    return embeddings, split.rows.astype(np.int32)


def whiten(train: NDArray[np.float32], test: NDArray[np.float32], dim: int) -> NDArray[np.float32]:
    """Project `test` on the first principal components of `train`, each divided by its standard
    deviation there.

    Components whose variance is no more than round-off are left out. So there are at most N - 1
    components for N training vectors.

    Args:
        train: vectors (N, F), of which mean and components are computed, in float64.
        test: vectors (M, F).
        dim: the number of components that are wanted.

    Returns:
        (M, K), with K = `dim` or fewer.

    Raises:
        ValueError: no component is left, because the vectors of `train` are all equal.
    """
    # torch keeps to the recipe's threads; numpy would take every core, and give other bits
    vectors = torch.from_numpy(train)
    mean = vectors.mean(dim=0, dtype=torch.float64)
    scatter = torch.zeros(len(mean), len(mean), dtype=torch.float64)
    for block in vectors.split(BLOCK):
        centred = block.double() - mean
        scatter += centred.T @ centred
    spreads, axes = (values.flip(-1) for values in torch.linalg.eigh(scatter))  # largest first
    rounding = max(train.shape) * torch.finfo(torch.float64).eps
    count = min(dim, int((spreads > rounding * spreads[0]).sum()))
    if not count:
        raise ValueError(
            f"the features of all {len(train):,} training images are equal, so there is nothing to "
            f"whiten: leave untrained_pca out of plan.controls"
        )
    deviations = (spreads[:count] / (len(train) - 1)).sqrt()
    projection = axes[:, :count] / deviations
    blocks = [(block.double() - mean) @ projection for block in torch.from_numpy(test).split(BLOCK)]
    return torch.cat(blocks).float().numpy()
