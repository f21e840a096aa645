"""Trunks: any model that timm knows by its name. A file here may register more models with timm."""

from __future__ import annotations

import importlib
import textwrap
from dataclasses import dataclass
from pickle import UnpicklingError
from typing import Any

from torch import nn

from dmlbench.backbones.catalogue import backbone_module, broken_timm
from dmlbench.backbones.weights import staged_weights
from dmlbench.utils.errors import MissingWeights
from dmlbench.utils.startup import heavy_imports


@dataclass(frozen=True)
class Preprocessing:
    """How a trunk takes pixels in [0, 1]. All is per channel, in the order that the trunk takes."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    channel_order: str
    """RGB or BGR. It has no meaning for gray images."""


def create_trunk(
    kind: str, *, channels: int, image_size: int, pooling: str | None, pretrained: bool | str
) -> tuple[nn.Module, Preprocessing]:
    """Build the model `kind` of timm without its classifier.

    Args:
        kind: a name of timm, with or without the tag of its weights.
        channels: 3 or 1. For gray images, mean and std are the mean of those of the colours.
        image_size: side of the images in pixels.
        pooling: timm's `global_pool`; None means the model's default.
        pretrained: False for random weights; True for timm's weights, which `dmlbench weights` has
            fetched; or the path of a weights file of this model.

    Returns:
        the trunk, (B, channels, image_size, image_size) -> (B, features); and how it takes pixels.
        A model takes RGB, unless its attribute `channel_order` says otherwise.

    Raises:
        MissingWeights: there is no weights file, or it is of another model.
        BrokenInstallation: timm does not import.

    >>> trunk, preprocessing = create_trunk(
    ...     "test_resnet", channels=3, image_size=32, pooling="avg", pretrained=False
    ... )
    >>> preprocessing.channel_order, preprocessing.mean
    ('RGB', (0.5, 0.5, 0.5))
    """
    try:
        with heavy_imports():
            import timm
    except (ImportError, RuntimeError) as error:  # RuntimeError by torchvision's operators
        raise broken_timm(error) from error

    importlib.import_module(backbone_module(kind))  # it registers the model
    config = timm.get_pretrained_cfg(kind, allow_unregistered=False)
    options: dict[str, Any] = {}
    if pooling is not None:
        options["global_pool"] = pooling
    if config is not None and config.fixed_input_size:
        options["img_size"] = image_size
    if pretrained:
        pretrained = str(staged_weights(kind)) if pretrained is True else pretrained
        options["pretrained_cfg_overlay"] = {"file": pretrained, "num_classes": 0}
    try:
        trunk = timm.create_model(
            kind, pretrained=bool(pretrained), in_chans=channels, num_classes=0, **options
        )
    except (OSError, RuntimeError, ValueError, KeyError, EOFError, UnpicklingError) as error:
        if not pretrained:
            raise
        raise MissingWeights(
            f"no weights of {kind} from {pretrained}. Give a file of this very model: "
            f"backbones.<name>.pretrained: <path>. The reason: "
            f"{textwrap.shorten(str(error), 200)}"
        ) from error
    expected: Any = trunk.pretrained_cfg
    mean, std = expected["mean"], expected["std"]
    if channels != len(mean):  # gray images: the mean of the colours' statistics
        mean, std = ([sum(values) / len(values)] * channels for values in (mean, std))
    order = getattr(trunk, "channel_order", "RGB")
    return trunk, Preprocessing(tuple(mean), tuple(std), order)
