"""The features of a frozen trunk, computed once for all runs that read them.

The file grows by blocks of images. If the job is killed, the next one goes on with the block that
was not finished; the bits are the same.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from dmlbench.datasets.store.reader import Store
from dmlbench.study.features import Features, are_there, features_file, note_features
from dmlbench.training.embedding import EMBED_BATCH, embed
from dmlbench.training.execution import set_up
from dmlbench.training.inputs import ImageInputs, create_frozen
from dmlbench.training.process import keep_freed_memory
from dmlbench.utils.device import choose_device
from dmlbench.utils.errors import UserError
from dmlbench.utils.files import read_json_if_whole, write_json
from dmlbench.utils.gpu_lease import lease_gpu
from dmlbench.utils.locks import locked
from dmlbench.utils.text import count_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dmlbench.study.run import Run
    from dmlbench.study.study import Study
    from dmlbench.training.prefetch import MapFunction

BLOCK = 16 * EMBED_BATCH
"""Images after which the progress is noted."""
VIEW_SEED = 0
"""The seed of the random views: all runs share them."""


class UnusableFeatures(UserError):
    """The features of a frozen trunk hold NaN or infinity."""


class RandomView(ImageInputs):
    """A random view of each image, the same for all runs.

    Args:
        view: its number, from 0.
    """

    def __init__(self, run: Run, store: Store, view: int) -> None:
        super().__init__(run, store)
        self.view = view

    def test_batch(
        self, rows: NDArray[np.int64], map_function: MapFunction
    ) -> dict[str, torch.Tensor]:
        """The images `rows` as they were drawn for this view."""
        random = np.random.default_rng([VIEW_SEED, self.view, int(rows[0])])
        return self.random_batch(rows, random, map_function)


def features_job(study: Study, features: Features, stores: Path) -> str:
    """Compute `features` on a GPU, if there is one; see `compute_features`."""
    keep_freed_memory()
    with lease_gpu(study.settings.runs_per_gpu):
        device = choose_device(features.run.recipe.gpu_precision)
        return compute_features(stores, features, device)


def compute_features(stores: Path, features: Features, device: torch.device) -> str:
    """Compute `features` and write them, if they are not there already.

    If two processes want the same ones, one computes and the other waits.

    Args:
        stores: the folder of the packed images.

    Returns:
        What is there, in words.

    Raises:
        DatasetError: the store is damaged or not packed.
        MissingWeights: the weights of the trunk are missing.
        UnusableFeatures: the features hold NaN or infinity.
    """
    file = features_file(stores, features.path)
    with locked(file.with_suffix(".lock"), f"{file}: another process computes them; waiting"):
        if are_there(stores, features):
            return f"{file}: the features are there already"
        store = Store(stores / features.store)
        rows = store.split("train", features.part).rows if features.views else np.arange(len(store))
        _write(store, features, rows, file.with_suffix(".npy"), device)
        note_features(stores, features)
    return f"{file}: the features of {count_of(len(rows), 'image')}"


def _write(
    store: Store,
    features: Features,
    rows: NDArray[np.int64],
    target: Path,
    device: torch.device,
) -> None:
    """Write the features of the images `rows` to the file `target`."""
    run = features.run
    set_up(run.recipe, device)
    backbone = run.model.model_copy(update={"head": "none"})
    model = create_frozen(backbone, run.recipe, store.channels).to(device).eval()
    views = [RandomView(run, store, view) for view in range(features.views)]

    partial = target.with_name(f"{target.stem}.partial.npy")
    note = partial.with_suffix(".json")
    origin = {"images": store.manifest["content"], "rows": len(rows)}
    progress: dict[str, Any] = read_json_if_whole(note) or {}
    done = progress.get("done", 0) if progress.get("of") == origin else 0
    output: np.memmap | None = np.lib.format.open_memmap(partial, "r+") if done else None
    for first in range(done, len(rows), BLOCK):
        block = rows[first : first + BLOCK]
        if views:
            values = np.stack([embed(model, view, block, device) for view in views], axis=1)
        else:
            values = embed(model, ImageInputs(run, store), block, device)
        if not np.isfinite(values).all():
            raise UnusableFeatures(f"the features of {run.backbone} hold NaN or infinity")
        if output is None:
            shape = (len(rows), *values.shape[1:])
            output = np.lib.format.open_memmap(partial, "w+", np.float32, shape)
        output[first : first + len(block)] = values
        output.flush()
        write_json(note, {"of": origin, "done": first + len(block)})
        print(f"{first + len(block):,} of {len(rows):,} images", flush=True)
    del output
    partial.replace(target)
    note.unlink()
