"""Trunks: any model that timm knows by its name. A file here may register more models with timm."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dmlbench.backbones.catalogue import backbone_module, broken_timm
from dmlbench.backbones.checkpoint import describe_mismatch, read_checkpoint
from dmlbench.backbones.weights import checkpoint_file
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
            fetched; `package` for those of an installed package; or the path of a file with the
            weights of this model, with its classifier or without.

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
    options |= {"in_chans": channels, "num_classes": 0}
    if pretrained:
        state = _read_weights(kind, pretrained, options)
        options["pretrained_cfg_overlay"] = {"state_dict": state, "num_classes": 0}
    try:
        trunk = timm.create_model(kind, pretrained=bool(pretrained), **options)
    except (RuntimeError, ValueError, KeyError) as error:
        if not pretrained:
            raise
        colours = {**options, "in_chans": 3}  # timm adapts weights of colours to gray images
        difference = describe_mismatch(state, _state(kind, colours))
        raise MissingWeights(
            f"no weights of {kind} from {pretrained}: {difference or error}. Give a file of this "
            f"very model"
        ) from error
    expected: Any = trunk.pretrained_cfg
    expected.pop("state_dict", None)  # a second copy of the weights
    mean, std = expected["mean"], expected["std"]
    if channels != len(mean):  # gray images: the mean of the colours' statistics
        mean, std = ([sum(values) / len(values)] * channels for values in (mean, std))
    order = getattr(trunk, "channel_order", "RGB")
    return trunk, Preprocessing(tuple(mean), tuple(std), order)


def _read_weights(kind: str, pretrained: bool | str, options: dict[str, Any]) -> dict[str, Tensor]:
    """The weights of the trunk of `kind`, with timm's names and without the classifier."""
    path = checkpoint_file(kind, pretrained)
    trunk, whole = _state(kind, options), _state(kind, {**options, "num_classes": 1000})
    state = read_checkpoint(path, trunk)
    if pretrained == "package":  # the tensors have other names, in the same order
        state = dict(zip(whole, state.values(), strict=True))
    classifier = whole.keys() - trunk.keys()
    return {name: tensor for name, tensor in state.items() if name not in classifier}


def _state(kind: str, options: dict[str, Any]) -> dict[str, Tensor]:
    """The names of the tensors of a model, with tensors that have only a shape."""
    import timm

    options = {name: options[name] for name in options if name != "pretrained_cfg_overlay"}
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        state: dict[str, Tensor] = timm.create_model(kind, **options).state_dict()
    return state
