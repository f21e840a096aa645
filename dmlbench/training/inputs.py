"""What a model takes: images of a packed store, or their features by a frozen trunk.

A batch is prepared on the CPU as a few tensors, travels to the device, and becomes the model's
argument there. All draws are a function of (seed, epoch, step).
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from dmlbench.backbones.concatenated import ConcatenatedModels
from dmlbench.backbones.model import EmbeddingModel, HeadModel
from dmlbench.training import batches

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dmlbench.datasets.store.part import Part
    from dmlbench.datasets.store.reader import Store
    from dmlbench.study.backbone_settings import Backbone
    from dmlbench.study.run import Run
    from dmlbench.study.settings import Recipe
    from dmlbench.training.prefetch import MapFunction

TRUNK_SEED = 0
"""The seed of a frozen trunk with random weights: all runs share its features."""

BatchKey = tuple[int, int, "NDArray[np.int64]"]
"""Epoch and step of a batch, from 0, and the rows (B,) of its images in the store."""


class ImageInputs:
    """The images of `store`, for a model with a trunk that is computed in each step."""

    def __init__(self, run: Run, store: Store) -> None:
        self.run = run
        self.store = store

    def create_model(self, pretrained: bool = True) -> EmbeddingModel:
        """The model of the run. It draws from torch's generator.

        Args:
            pretrained: False if all weights will be overwritten.
        """
        backbone = self.run.model
        if not pretrained:
            backbone = backbone.model_copy(update={"pretrained": False})
        return EmbeddingModel(backbone, self.run.recipe, self.store.channels)

    def training_batch(self, key: BatchKey, map_function: MapFunction) -> dict[str, Tensor]:
        """A batch with random crops, and the other changes that were drawn for it."""
        return self.random_batch(key[2], _generator(self.run, key), map_function)

    def random_batch(
        self, rows: NDArray[np.int64], random: np.random.Generator, map_function: MapFunction
    ) -> dict[str, Tensor]:
        """The images `rows` as `random` draws their changes."""
        boxes, drawn = batches.draw(self.store.sizes[rows], self.run.recipe.augmentation, random)
        side = self.run.model.image_size
        return {"squares": batches.crops(self.store, rows, boxes, side, map_function), **drawn}

    def test_batch(self, rows: NDArray[np.int64], map_function: MapFunction) -> dict[str, Tensor]:
        """The central squares of the images `rows`."""
        side = self.run.model.image_size
        boxes = batches.central_boxes(self.store.sizes[rows], side)
        return {"squares": batches.crops(self.store, rows, boxes, side, map_function)}

    def to_model(self, squares: Tensor, **drawn: Tensor) -> Tensor:
        """A batch that is on the device -> what the model takes (B, C, S, S), float in [0, 1]."""
        return batches.floats(squares=squares, **drawn)

    def whole_model(self, model: nn.Module) -> nn.Module:
        """`model`, which takes images."""
        return model


class FeatureInputs:
    """The features of the images of `store`, for a model that is a head alone.

    Raises:
        MissingResult: they are not computed, or damaged.
    """

    def __init__(self, run: Run, store: Store) -> None:
        self.run = run
        self.store = store
        _, self._test_view = self._open(views=0)

    def create_model(self, pretrained: bool = True) -> HeadModel:
        """The head of the run. It draws from torch's generator."""
        return HeadModel(self.run.model, self._test_view.shape[1])

    def training_batch(self, key: BatchKey, map_function: MapFunction) -> dict[str, Tensor]:
        """A batch of features: of a random view of each image, if the backbone has `views`."""
        rows, count = key[2], self.run.model.views
        if not count:
            return self.test_batch(rows, map_function)
        places, views = self._random_views
        drawn = _generator(self.run, key).integers(count, size=len(rows))
        return {"features": torch.from_numpy(views[np.searchsorted(places, rows), drawn])}

    @cached_property
    def _random_views(self) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The rows (M,) of the training images, and the features (M, views, F)."""
        part, views = self._open(self.run.model.views)
        return self.store.split("train", part).rows, views

    def _open(self, views: int) -> tuple[Part, NDArray[np.float32]]:
        """The features, and the part of the classes that has random views."""
        # a machine that only trains images, as for a benchmark, may lack what reads a study
        from dmlbench.study.features import Features, open_features

        features = Features(self.run, views)
        return features.part, open_features(self.store.path.parent, features)

    def test_batch(self, rows: NDArray[np.int64], map_function: MapFunction) -> dict[str, Tensor]:
        """The features of the central squares of the images `rows`."""
        return {"features": torch.from_numpy(self._test_view[rows])}

    def to_model(self, features: Tensor) -> Tensor:
        """A batch that is on the device -> what the model takes (B, F)."""
        return features

    def whole_model(self, model: nn.Module) -> nn.Module:
        """`model`, behind the frozen trunk: it takes images. Each of several models has its own."""
        if isinstance(model, ConcatenatedModels):
            return ConcatenatedModels(self._with_trunk(part) for part in model.models)
        return self._with_trunk(model)

    def _with_trunk(self, model: nn.Module) -> EmbeddingModel:
        whole = create_frozen(self.run.model, self.run.recipe, self.store.channels)
        whole.load_state_dict({**whole.state_dict(), **model.state_dict()})
        return whole


def create_frozen(backbone: Backbone, recipe: Recipe, channels: int) -> EmbeddingModel:
    """A model with the trunk whose features all runs share."""
    torch.manual_seed(TRUNK_SEED)
    return EmbeddingModel(backbone, recipe, channels)


def _generator(run: Run, key: BatchKey) -> np.random.Generator:
    """What the changes of a batch are drawn by."""
    epoch, step, _ = key
    # from 1: [seed, epoch, 0] would be the sampler's own stream
    return np.random.default_rng([run.seed, epoch, step + 1])


Inputs = ImageInputs | FeatureInputs


def open_inputs(run: Run, store: Store) -> Inputs:
    """What the model of `run` takes of the images of `store`."""
    return FeatureInputs(run, store) if run.model.trunk == "frozen" else ImageInputs(run, store)
