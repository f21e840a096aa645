"""The settings of a backbone in a study file."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import model_validator

from dmlbench.study.model import Model
from dmlbench.study.setting_types import Dimension, ImageSize, Side, Views


class Backbone(Model):
    """A model, the size of its images, and the embedding that its head computes."""

    type: str
    """The model: `bn_inception`, or any model of timm, with or without the tag of its weights."""
    dim: Dimension = 512
    """The dimension of the embedding."""
    head: Literal["linear", "mlp", "low_mid_high"] = "linear"
    """linear is one layer on the pooled features. mlp has a hidden layer before it, as wide as the
    features. low_mid_high concatenates embeddings of `dim / 3` from three depths, as in
    RLL-(L,M,H)."""
    trunk: Literal["trained", "frozen"] = "trained"
    """trained trains the whole backbone. frozen computes the features of all images once, for all
    losses and seeds, and trains only the head and the loss on them, in seconds. The leaderboard
    says so."""
    views: Views = 0
    """With `trunk: frozen`, train on the features of this many random views of each image, changed
    as `recipe.augmentation` says. 0 trains on the features of the view that a test sees."""
    image_size: ImageSize = 224
    """The side in pixels of the square that the backbone sees: a random crop in training, the
    centre in a test."""
    resize: Side | None = None
    """The short side in pixels of the packed images, from which the centre is cropped. null takes
    `image_size`."""
    pretrained: bool | str = False
    """true starts from the weights that timm knows, which are fetched once (`dmlbench weights`). A
    path starts from your own safetensors or .pth file, with the classifier or without. `package`
    starts `tf_efficientnet_lite0` from the weights of an installed package (`dmlbench[lite0]`).
    false starts from random weights."""
    recipe: dict[str, Any] = {}
    """Override these settings of the recipe for this backbone, for every loss alike."""

    @property
    def side(self) -> int:
        return self.resize or self.image_size

    @property
    def is_frozen(self) -> bool:
        """Whether only the head and the loss are trained."""
        return self.trunk == "frozen"

    @model_validator(mode="after")
    def _fits_together(self) -> Backbone:
        if self.side < self.image_size:
            raise ValueError(f"resize: {self.side} is below image_size: {self.image_size}")
        if self.head == "low_mid_high" and self.dim % 3:
            raise ValueError(
                f"dim: {self.dim} is not a multiple of 3, which head: low_mid_high needs "
                f"(1536 = 3 x 512)"
            )
        if self.head == "low_mid_high" and self.is_frozen:
            raise ValueError(
                "trunk: frozen keeps the pooled features alone, and head: low_mid_high takes those "
                "of three depths. Take head: linear or mlp, or trunk: trained"
            )
        if self.views and not self.is_frozen:
            raise ValueError(
                f"views: {self.views} is not used by trunk: trained, which sees a new random view "
                f"of an image in each step. Leave it out, or set `trunk: frozen`"
            )
        return self
