"""How large models are: their parameters, activations and operations, counted without numbers.

Another process builds them on the device "meta": `python -m dmlbench.planning.model_size SPECS`.
"""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from dmlbench.backbones.catalogue import backbone_module
from dmlbench.study.run import Run
from dmlbench.utils.discovery import ask_once, versions
from dmlbench.utils.errors import BrokenInstallation
from dmlbench.utils.fingerprint import code_digest

if TYPE_CHECKING:
    from dmlbench.backbones.model import EmbeddingModel

MODEL_SETTINGS = ("type", "dim", "head", "image_size", "trunk")
"""The settings of a backbone that decide its size."""
BATCH = 2
"""Images that pass through a model: batch norm needs more than one."""


class ModelSize(NamedTuple):
    """What one image costs."""

    parameters: int
    activations: int
    """Numbers that the layers give for one image, all together."""
    operations: int
    """Additions and multiplications of one forward pass of one image."""
    features: int = 0
    """Pooled features of the trunk, which the head takes."""


def size_spec(run: Run) -> str:
    """The settings of `run` that decide the size of its model, in JSON."""
    model = {name: getattr(run.model, name) for name in MODEL_SETTINGS}
    return json.dumps([model, run.recipe.pooling, run.facts["channels"]])


def model_sizes(runs: Iterable[Run]) -> dict[str, ModelSize]:
    """`size_spec` -> size of each model of `runs`; empty if they cannot be built here.

    All are counted in one process, once for each version of the installed packages.
    """
    models = {size_spec(run): backbone_module(run.model.type) for run in runs if run.uses_model}
    if not models:
        return {}
    installed = versions("torch", "torchvision", "timm")
    code = code_digest("dmlbench.backbones.model", *sorted({*models.values()}))
    specs = sorted(models)
    try:
        facts = [installed, code, ModelSize._fields, specs]
        answer = ask_once("model-size", facts, __name__, json.dumps(specs))
    except BrokenInstallation:
        return {}
    return {spec: ModelSize(*size) for spec, size in zip(specs, answer, strict=True)}


def count_model(model: Mapping[str, Any], pooling: str | None, channels: int) -> ModelSize:
    """Count the model that these settings of a backbone and a recipe describe."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from dmlbench.backbones.model import EmbeddingModel, HeadModel, TrainedModel
    from dmlbench.study.backbone_settings import Backbone
    from dmlbench.study.settings import Recipe

    outputs = 0

    def count_output(_module: object, _inputs: object, output: object) -> None:
        nonlocal outputs
        outputs += output.numel() if isinstance(output, torch.Tensor) else 0

    with torch.device("meta"), torch.no_grad():
        backbone = Backbone(**model)
        whole = EmbeddingModel(backbone, Recipe(pooling=pooling), channels)
        side = backbone.image_size
        features = count_features(whole, channels, side)
        built: TrainedModel = whole
        argument = torch.empty(BATCH, channels, side, side)
        if backbone.is_frozen:  # no image passes through a step
            built, argument = HeadModel(backbone, features), torch.empty(BATCH, features)
        for module in built.modules():
            if not any(module.children()):
                module.register_forward_hook(count_output)
        with FlopCounterMode(display=False) as counter:
            built(argument)
    parameters = sum(parameter.numel() for parameter in built.parameters())
    return ModelSize(parameters, outputs // BATCH, counter.get_total_flops() // BATCH, features)


def count_features(model: EmbeddingModel, channels: int, side: int) -> int:
    """The number of pooled features that the trunk of `model` has for an image."""
    import torch

    device = next(model.parameters()).device
    with torch.no_grad():
        images = torch.zeros(BATCH, channels, side, side, device=device)
        return int(model.trunk(images).shape[1])


def main() -> None:
    """Print the size of each model of the argument as JSON."""
    warnings.filterwarnings("ignore")
    print(json.dumps([count_model(*json.loads(spec)) for spec in json.loads(sys.argv[1])]))


if __name__ == "__main__":
    main()
