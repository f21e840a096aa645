"""How fast this machine trains and embeds: a few steps of the real training, on one batch of random
images that stays in memory. Runs in a process of its own: `python -m dmlbench.probe SPEC TIME`."""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from dmlbench.files import data_folder
from dmlbench.gpus import NOT_SEEN, lease, visible_gpus
from dmlbench.training.process import keep_freed_memory, keep_kernels

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    from dmlbench.datasets.store import Split, Store

SECONDS = 3.0
"""What is measured takes so long, or one step."""
WARM_STEPS = 3
"""Steps before, at most: the first ones allocate memory and choose kernels."""
CLASSES, EPOCH = 100, 64
"""Of the training set that the random batch stands for: its classes, and batches an epoch."""
LOSS = "normalized_softmax"
"""Stands for all: what others take beside it is small, or is known once they have run."""


class _Enough(Exception):
    """All is measured."""


class _Clock:
    """What a training asks once a step whether to stop: times the steps instead."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.times: list[float] = []

    def __call__(self) -> None:
        synchronize(self.device)
        self.times.append(time.monotonic())
        warm = self.warm
        if warm is not None and self.times[-1] - self.times[warm] > SECONDS:
            raise _Enough

    @property
    def warm(self) -> int | None:
        """Steps that do not count; None as long as all are such."""
        for step, now in enumerate(self.times[1:-1], start=1):
            if step == WARM_STEPS or now - self.times[0] > SECONDS:
                return step
        return None

    @property
    def step(self) -> float:
        """Seconds of a usual step: the median is not moved by a checkpoint."""
        times = self.times[self.warm :]
        return statistics.median(after - before for before, after in pairwise(times))


class _Images:
    """A store of `count` random images of which there is but one batch."""

    def __init__(self, channels: int, side: int, batch: int, count: int) -> None:
        import numpy as np

        self.channels, self.count = channels, count
        shape = (batch, channels, side, side)
        self.pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        self.sizes = np.full((count, 2), side)

    def split(self, name: str, class_fraction: float) -> Split:
        import numpy as np

        from dmlbench.datasets.store import Split

        rows = np.arange(self.count)
        return Split(rows, rows % CLASSES, [*map(str, range(CLASSES))], None)

    def __getitem__(self, row: int) -> NDArray[np.uint8]:
        return self.pixels[row % len(self.pixels)]


def probe(spec: Mapping[str, Any], asked: float) -> dict[str, float]:
    """Images a second in training and when embedding, the seconds from the time `asked` to the
    first step, and the number of the model's parameters.

    `spec`: what decides the speed, as `Speeds.model_of` gives it.
    """
    if spec["recipe"].get("gpu_compile"):
        keep_kernels(data_folder() / "compiled")
    import numpy as np
    import torch

    from dmlbench.backbones.model import EmbeddingModel
    from dmlbench.run import Run
    from dmlbench.settings import Backbone, Dataset, Evaluation, Recipe
    from dmlbench.training.train import EMBED_BATCH, embed, train

    keep_freed_memory()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if os.environ.get("CUDA_VISIBLE_DEVICES") and device.type == "cpu":
        raise SystemExit(f"{NOT_SEEN}: see its version, and the driver's")
    model = Backbone(**spec["backbone"])
    recipe = Recipe(**spec["recipe"], epochs=10**6, images_per_class=None)
    run = Run(
        dataset="random",
        backbone="probed",
        loss=LOSS,
        seed=0,
        data=Dataset(type="random"),
        facts={"channels": spec["channels"]},
        model=model,
        loss_type=LOSS,
        loss_options={},
        recipe=recipe,
        evaluation=Evaluation(),
    )
    largest = max(recipe.batch_size, EMBED_BATCH)
    count = EPOCH * max(recipe.batch_size, CLASSES)
    images = cast("Store", _Images(spec["channels"], model.side, largest, count))
    clock, now = _Clock(device), time.monotonic()
    start = time.time() - asked
    with tempfile.TemporaryDirectory() as state, contextlib.suppress(_Enough):
        train(run, images, device, Path(state), clock)
    start += clock.times[0] - now
    rate = recipe.batch_size / clock.step

    embedder = EmbeddingModel(model, recipe, spec["channels"]).to(device).eval()
    rows = np.arange(min(EMBED_BATCH, max(8, round(rate * SECONDS))))
    took = [_timed(lambda: embed(embedder, images, rows, device, run)) for _ in _for(SECONDS / 2)]
    return {
        "train": rate,
        "embed": len(rows) / statistics.median(took[1:]),
        "start": start,
        "parameters": sum(p.numel() for p in embedder.parameters()),
    }


def synchronize(device: torch.device) -> None:
    """Wait until the device has done what it was told to."""
    if device.type == "cuda":
        import torch

        torch.cuda.synchronize(device)


def _for(seconds: float) -> Iterator[None]:
    """Twice, and then again until `seconds` are over."""
    until = time.monotonic() + seconds
    yield
    yield
    while time.monotonic() < until:
        yield


def _timed(do: Any) -> float:
    started = time.monotonic()
    do()
    return time.monotonic() - started


def main() -> None:
    spec, asked = json.loads(sys.argv[1]), float(sys.argv[2])
    with lease(visible_gpus()) as gpu:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu or ""  # before torch looks
        print(json.dumps(probe(spec, asked)))


if __name__ == "__main__":
    main()
