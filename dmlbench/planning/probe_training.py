"""Measure how fast this machine trains and embeds: a few steps of the real training, on one batch
of random images in memory.

It runs in a process of its own: `python -m dmlbench.planning.probe_training SPEC TIME`.
"""

from __future__ import annotations

import contextlib
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from dmlbench.training.process import keep_freed_memory, keep_kernels
from dmlbench.training.time_limit import Stopped
from dmlbench.utils.device import choose_device
from dmlbench.utils.errors import UserError
from dmlbench.utils.files import data_folder
from dmlbench.utils.gpu_lease import lease_gpu

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    from dmlbench.datasets.store.part import Part
    from dmlbench.datasets.store.reader import Split, Store
    from dmlbench.study.run import Run

SECONDS = 3.0
"""Measure for this long, and one step at least."""
MAX_WARMUP_STEPS = 3
"""Leave out this many first steps at most: they allocate memory and choose kernels."""
CLASSES, STEPS_PER_EPOCH = 100, 64
"""The size of the training set that the random images stand for."""
VECTORS = 8192
"""Random features of a frozen trunk, of as many images."""
LOSS = "normalized_softmax"
"""It stands for all losses. What others add to a step is small, or is known once they have run."""


class StepTimer:
    """Times the steps of a training. `train` calls it before each step, as its argument `stop`."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.times: list[float] = []
        """The beginning of each step."""

    def __call__(self) -> str | None:
        synchronize(self.device)
        self.times.append(time.monotonic())
        warmup = self.warmup_steps
        if warmup is not None and self.times[-1] - self.times[warmup] > SECONDS:
            return "measured"
        return None

    @property
    def warmup_steps(self) -> int | None:
        """Number of first steps to leave out; None until the first step that counts has begun."""
        for step, now in enumerate(self.times[1:-1], start=1):
            if step == MAX_WARMUP_STEPS or now - self.times[0] > SECONDS:
                return step
        return None

    @property
    def step_seconds(self) -> float:
        """Seconds of a step: the median, as a step that also saves a checkpoint must not count."""
        times = self.times[self.warmup_steps :]
        return statistics.median(after - before for before, after in pairwise(times))


class RandomImages:
    """The part of a `Store` that `train` and `embed` use, with one batch of random images.

    It stands for `count` images, which repeat those of the batch. Nothing is at its `path`.
    """

    def __init__(self, path: Path, channels: int, side: int, batch: int, count: int) -> None:
        import numpy as np

        self.path, self.channels, self.count = path, channels, count
        shape = (batch, channels, side, side)
        self.pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        self.sizes = np.full((count, 2), side)

    def split(self, name: str, part: Part) -> Split:
        import numpy as np

        from dmlbench.datasets.store.reader import Split

        rows = np.arange(self.count)
        return Split(rows, rows % CLASSES, [*map(str, range(CLASSES))], None)

    def __getitem__(self, row: int) -> NDArray[np.uint8]:
        return self.pixels[row % len(self.pixels)]


def probe(spec: Mapping[str, Any], asked: float) -> dict[str, float]:
    """Measure a model.

    Args:
        spec: the settings that decide the speed, as `Throughput.training_spec` gives them.
        asked: the time (seconds since 1970) at which the caller started this process.

    Returns:
        Images per second in training as `train` and when embedding as `embed`, seconds from `asked`
        to the first step as `start`, the number of `parameters` of the model, and the number of
        `features` of its trunk.

    Raises:
        UserError: torch cannot compute on the GPU, or not in the precision of the recipe.
    """
    if spec["recipe"].get("gpu_compile"):
        keep_kernels(data_folder() / "compiled")
    import numpy as np

    from dmlbench.backbones.model import EmbeddingModel
    from dmlbench.planning.model_size import count_features
    from dmlbench.study.backbone_settings import Backbone
    from dmlbench.study.run import Run
    from dmlbench.study.settings import Dataset, Evaluation, Recipe
    from dmlbench.training.embedding import EMBED_BATCH, embed
    from dmlbench.training.inputs import open_inputs
    from dmlbench.training.train import train

    keep_freed_memory()
    model = Backbone(**spec["backbone"])
    recipe = Recipe(**spec["recipe"], epochs=100_000, images_per_class=None)
    device = choose_device(recipe.gpu_precision)
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
    count = STEPS_PER_EPOCH * max(recipe.batch_size, CLASSES)
    channels, side, start = spec["channels"], model.image_size, time.time() - asked
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "stores/random"
        if model.is_frozen:
            count = max(VECTORS, largest)
            features = count_features(EmbeddingModel(model, recipe, channels), channels, side)
            _write_features(run, path.parent, count, features)
        images = cast("Store", RandomImages(path, channels, model.side, largest, count))
        timer, now = StepTimer(device), time.monotonic()
        with contextlib.suppress(Stopped):
            split = images.split("train", run.data.part)
            train(run, images, split, device, Path(folder) / "state", timer)
        start += timer.times[0] - now
        rate = recipe.batch_size / timer.step_seconds

        inputs = open_inputs(run, images)
        embedder = inputs.create_model().to(device).eval()
        rows = np.arange(min(EMBED_BATCH, max(8, round(rate * SECONDS))))
        seconds = [
            _seconds_of(lambda: embed(embedder, inputs, rows, device))
            for _ in _repeat_for(SECONDS / 2)
        ]
    if isinstance(embedder, EmbeddingModel):
        features = count_features(embedder, channels, side)
    return {
        "train": rate,
        "embed": len(rows) / statistics.median(seconds[1:]),
        "start": start,
        "parameters": sum(p.numel() for p in embedder.parameters()),
        "features": features,
    }


def _write_features(run: Run, stores: Path, count: int, features: int) -> None:
    """Write random vectors as the features of a frozen trunk."""
    import numpy as np

    from dmlbench.study.features import Features, features_file, note_features

    of_run = Features(run, 0)
    file = features_file(stores, of_run.path).with_suffix(".npy")
    file.parent.mkdir(parents=True)
    np.save(file, np.random.default_rng(0).standard_normal((count, features), np.float32))
    note_features(stores, of_run)


def synchronize(device: torch.device) -> None:
    """Wait until `device` has finished its work."""
    if device.type == "cuda":
        import torch

        torch.cuda.synchronize(device)


def _repeat_for(seconds: float) -> Iterator[None]:
    """Yield twice, and then again until `seconds` are over."""
    until = time.monotonic() + seconds
    yield
    yield
    while time.monotonic() < until:
        yield


def _seconds_of(call: Callable[[], object]) -> float:
    began = time.monotonic()
    call()
    return time.monotonic() - began


def main() -> None:
    """Print the answer to the arguments as JSON."""
    spec, asked = json.loads(sys.argv[1]), float(sys.argv[2])
    try:
        with lease_gpu():
            print(json.dumps(probe(spec, asked)))
    except UserError as error:
        raise SystemExit(str(error)) from None


if __name__ == "__main__":
    main()
