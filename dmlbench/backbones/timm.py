"""Any model that timm knows by its name, as a trunk: its own, and those that a file here registers
with it."""

from __future__ import annotations

import importlib
import textwrap
from dataclasses import dataclass
from pickle import UnpicklingError
from typing import Any

from torch import nn

from dmlbench.backbones.weights import MissingWeights, staged
from dmlbench.imports import importing
from dmlbench.installed import BROKEN_TIMM, BrokenInstallation, backbone_module, versions


@dataclass(frozen=True)
class Preprocessing:
    """What a trunk expects of pixels in [0, 1]; all by channel, in the order that it takes them."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    channel_order: str
    """RGB or BGR; of gray images it means nothing."""


def create_trunk(
    kind: str, *, channels: int, image_size: int, pooling: str | None, pretrained: bool | str
) -> tuple[nn.Module, Preprocessing]:
    """Build the model `kind` without its classifier.

    Returns:
        the trunk, (B, channels, image_size, image_size) -> (B, features), and what it expects of
        the images. A model whose attribute `channel_order` does not say otherwise takes RGB.

    Raises:
        MissingWeights: no weights file, or one of another model. true means timm's own, staged.
        BrokenInstallation: timm does not import.
    """
    try:
        with importing():
            import timm
    except (ImportError, RuntimeError) as error:  # torchvision's operators: RuntimeError
        found = versions("torch", "torchvision", "timm")
        shown = ", ".join(f"{name} {number}" for name, number in found.items())
        raise BrokenInstallation(BROKEN_TIMM.format(error=error, versions=shown)) from error

    importlib.import_module(backbone_module(kind))  # registers it
    config = timm.get_pretrained_cfg(kind, allow_unregistered=False)
    options: dict[str, Any] = {}
    if pooling is not None:
        options["global_pool"] = pooling
    if config is not None and config.fixed_input_size:
        options["img_size"] = image_size
    if pretrained:
        pretrained = str(staged(kind)) if pretrained is True else pretrained
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
