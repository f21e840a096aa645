"""Batch Normalization: Accelerating Deep Network Training by Reducing Internal Covariate Shift.

Ioffe, Szegedy; ICML 2015; arXiv 1502.03167. GoogLeNet with batch norm, with two 3x3 convolutions in
place of the 5x5, and with one more Inception block at 28x28. It is the backbone of most papers on
deep metric learning before 2020. 10.3 million parameters without the classifier, 1024 features.

Weights: those of the Caffe model as R. Cadene ported them (pretrained-models.pytorch, BSD-3). The
channels and the names of the parameters are the port's, and so are pixels in 0..255, blue first.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from timm.layers import SelectAdaptivePool2d, create_classifier
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models._features import feature_take_indices
from torch import Tensor, nn
from torch.nn import functional

BLOCKS = {
    "3a": (64, (64, 64), (64, 96), 32),
    "3b": (64, (64, 96), (64, 96), 64),
    "3c": (0, (128, 160), (64, 96), 0),
    "4a": (224, (64, 96), (96, 128), 128),
    "4b": (192, (96, 128), (96, 128), 128),
    "4c": (160, (128, 160), (128, 160), 128),
    "4d": (96, (128, 192), (160, 192), 128),
    "4e": (0, (128, 192), (192, 256), 0),
    "5a": (352, (192, 320), (160, 224), 128),
    "5b": (352, (192, 320), (192, 224), 128),
}
"""Output channels of the branches of each block: the 1x1 convolution; the 3x3 convolution and the
reduction before it; the same of the double 3x3; the projection after pooling. A block with 0
channels in the first and the last branch halves the image."""
HALVING = {"3c", "4e"}
NUM_FEATURES = 1024

default_cfgs = generate_default_cfgs(
    {
        "bn_inception.caffe_in1k": {
            "url": "https://data.lip6.fr/cadene/pretrainedmodels/bn_inception-52deb4733.pth",
            "origin_url": "https://github.com/Cadene/pretrained-models.pytorch",
            "paper_ids": "arXiv:1502.03167",
            "license": "bsd-3-clause",
            "num_classes": 1000,
            "input_size": (3, 224, 224),
            "pool_size": (7, 7),
            "interpolation": "bilinear",
            # In the order blue, green, red; for pixels in [0, 1]
            "mean": (104 / 255, 117 / 255, 128 / 255),
            "std": (1 / 255, 1 / 255, 1 / 255),
            "first_conv": "conv1_7x7_s2",
            "classifier": "last_linear",
        }
    }
)


class BNInception(nn.Module):
    """BN-Inception: images (B, in_chans, S, S) -> logits (B, num_classes).

    If `num_classes` is 0, it gives the pooled features (B, 1024). The methods are those of timm's
    models.
    """

    channel_order = "BGR"
    global_pool: SelectAdaptivePool2d
    last_linear: nn.Module

    def __init__(
        self,
        num_classes: int = 1000,
        in_chans: int = 3,
        global_pool: str = "avg",
        drop_rate: float = 0.0,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.num_features = NUM_FEATURES
        self.drop_rate = drop_rate
        self._add("conv1_7x7_s2", in_chans, 64, kernel=7, stride=2)
        self._add("conv2_3x3_reduce", 64, 64, kernel=1)
        self._add("conv2_3x3", 64, 192, kernel=3)
        self.feature_info = [
            {"num_chs": 64, "reduction": 2, "module": "conv1_7x7_s2"},
            {"num_chs": 192, "reduction": 4, "module": "conv2_3x3"},
        ]
        channels, reduction = 192, 8
        for block, (single, (reduce, three), (reduce_double, double), projection) in BLOCKS.items():
            name, stride = f"inception_{block}", 2 if block in HALVING else 1
            if single:
                self._add(f"{name}_1x1", channels, single, kernel=1)
            self._add(f"{name}_3x3_reduce", channels, reduce, kernel=1)
            self._add(f"{name}_3x3", reduce, three, kernel=3, stride=stride)
            self._add(f"{name}_double_3x3_reduce", channels, reduce_double, kernel=1)
            self._add(f"{name}_double_3x3_1", reduce_double, double, kernel=3)
            self._add(f"{name}_double_3x3_2", double, double, kernel=3, stride=stride)
            if projection:
                self._add(f"{name}_pool_proj", channels, projection, kernel=1)
            channels = single + three + double + (projection or channels)
            reduction *= stride
            if block in HALVING or block == "5b":
                info = {"num_chs": channels, "reduction": reduction, "module": name}
                self.feature_info.append(info)
        self.reset_classifier(num_classes, global_pool)

    def _add(self, name: str, inputs: int, outputs: int, kernel: int, stride: int = 1) -> None:
        layer = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2)
        nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
        self.add_module(name, layer)
        self.add_module(f"{name}_bn", nn.BatchNorm2d(outputs))

    def get_classifier(self) -> nn.Module:
        return self.last_linear

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        self.num_classes = num_classes
        self.global_pool, self.last_linear = create_classifier(
            NUM_FEATURES, num_classes, pool_type=global_pool or self.global_pool.pool_type
        )
        self.head_hidden_size = NUM_FEATURES * self.global_pool.feat_mult()

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))

    def forward_features(self, x: Tensor) -> Tensor:
        for level in self._levels(x):
            x = level
        return x

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        x = functional.dropout(self.global_pool(x), self.drop_rate, self.training)
        return x if pre_logits else self.last_linear(x)

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | list[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> Any:
        """The features of the last level, and a list of those of the levels `indices`.

        Args:
            x: images (B, in_chans, S, S).
            indices: levels of `feature_info`; an int means that many last levels, None all.
            norm: ignored, as the model has no final norm.
            stop_early: stop after the last of the levels; the first result is then its features.
            output_fmt: NCHW.
            intermediates_only: return only the list.
        """
        if output_fmt != "NCHW":
            raise ValueError(f"output_fmt: '{output_fmt}' is not supported, only 'NCHW' is")
        take, last = feature_take_indices(len(self.feature_info), indices)
        intermediates = []
        for number, level in enumerate(self._levels(x)):
            x = level
            if number in take:
                intermediates.append(x)
            if number == last and (stop_early or intermediates_only):
                break
        return intermediates if intermediates_only else (x, intermediates)

    def _levels(self, x: Tensor) -> Iterator[Tensor]:
        """Features of the levels of `feature_info`, in their order."""
        for side in x.shape[2:]:
            # At other sizes, the strided convolutions of a block and its pooling disagree in size
            if side < 31 or (side + 1) % 32 > 7:
                raise ValueError(
                    f"bn_inception takes images of a multiple of 32 pixels, or of 1 less to 6 more "
                    f"(224, 227, 256), not of {side}: change backbones.<name>.image_size"
                )
        x = self._layer("conv1_7x7_s2", x)
        yield x
        x = functional.max_pool2d(x, 3, 2, ceil_mode=True)
        x = self._layer("conv2_3x3", self._layer("conv2_3x3_reduce", x))
        yield x
        x = functional.max_pool2d(x, 3, 2, ceil_mode=True)
        for block in BLOCKS:
            x = self._block(block, x)
            if block in HALVING or block == "5b":
                yield x

    def _block(self, block: str, x: Tensor) -> Tensor:
        name = f"inception_{block}"
        three = self._layer(f"{name}_3x3", self._layer(f"{name}_3x3_reduce", x))
        double = self._layer(f"{name}_double_3x3_1", self._layer(f"{name}_double_3x3_reduce", x))
        double = self._layer(f"{name}_double_3x3_2", double)
        if block in HALVING:
            return torch.cat([three, double, functional.max_pool2d(x, 3, 2, ceil_mode=True)], 1)
        pool = functional.max_pool2d if block == "5b" else functional.avg_pool2d
        pooled = self._layer(f"{name}_pool_proj", pool(x, 3, 1, padding=1))
        return torch.cat([self._layer(f"{name}_1x1", x), three, double, pooled], 1)

    def _layer(self, name: str, x: Tensor) -> Tensor:
        """Convolution, batch norm, ReLU."""
        x = getattr(self, f"{name}_bn")(getattr(self, name)(x))
        return functional.relu(x, inplace=True)


@register_model
def bn_inception(pretrained: bool = False, **options: Any) -> BNInception:
    """BN-Inception, also called GoogLeNet V2."""
    return build_model_with_cfg(
        BNInception,
        "bn_inception",
        pretrained,
        pretrained_filter_fn=_without_classifier,
        feature_cfg={"feature_cls": "getter"},
        **options,
    )


def _without_classifier(state: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """`state`, without the classifier if `model` has none."""
    if not isinstance(model, BNInception) or model.num_classes:
        return state
    return {name: value for name, value in state.items() if not name.startswith("last_linear.")}
