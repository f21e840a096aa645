"""Any timm model by its name, as a trunk that gives one feature vector an image."""

from __future__ import annotations

import textwrap
from typing import Any

from torch import nn

from dmlbench.backbones.weights import MissingWeights, staged
from dmlbench.installed import BROKEN_TIMM, BrokenInstallation, versions


def create_trunk(
    kind: str, *, channels: int, image_size: int, pooling: str | None, pretrained: bool | str
) -> tuple[nn.Module, tuple[float, ...], tuple[float, ...]]:
    """Build timm's model `kind` without its classifier.

    Returns:
        the trunk, (B, channels, image_size, image_size) -> (B, features), and the mean and
        standard deviation by channel of the pixels in [0, 1] that it expects.

    Raises:
        MissingWeights: no weights file, or one of another model. true means timm's own, staged.
        BrokenInstallation: timm does not import.
    """
    try:
        import timm
    except (ImportError, RuntimeError) as error:  # torchvision's operators: RuntimeError
        found = versions("torch", "torchvision", "timm")
        shown = ", ".join(f"{name} {number}" for name, number in found.items())
        raise BrokenInstallation(BROKEN_TIMM.format(error=error, versions=shown)) from error

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
    except (OSError, RuntimeError, ValueError, KeyError) as error:
        if not pretrained:
            raise
        raise MissingWeights(
            f"no weights of {kind} from {pretrained}. Give a safetensors file of this very model: "
            f"backbones.<name>.pretrained: <path>. The reason: "
            f"{textwrap.shorten(str(error), 200)}"
        ) from error
    expected: Any = trunk.pretrained_cfg
    mean, std = expected["mean"], expected["std"]
    if channels != len(mean):  # gray images: the mean of the colours' statistics
        mean, std = ([sum(values) / len(values)] * channels for values in (mean, std))
    return trunk, tuple(mean), tuple(std)
