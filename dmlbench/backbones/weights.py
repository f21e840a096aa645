"""Pretrained weights, staged: fetched once where there is internet, read by every training.

They stand in <data>/weights/<model>.<tag>.safetensors. Which weights a model's name means is in a
run's key by their tag, whether the file is there yet or not.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

from dmlbench.files import data_folder, replacing
from dmlbench.installed import backbone_module, timm_models, timm_weights
from dmlbench.problems import did_you_mean


class MissingWeights(RuntimeError):
    """Pretrained weights are neither here nor to be had; the message says what to do."""


def weights_file(kind: str) -> Path:
    """Where the weights of the model `kind` stand, or will. Raises MissingWeights if timm knows of
    none, or of no such model."""
    name = timm_weights().get(kind)
    if name is None:
        if kind not in timm_models():
            hint = did_you_mean(kind, timm_models())
            raise MissingWeights(f"timm has no model '{kind}'. {hint}".rstrip())
        raise MissingWeights(f"timm has no weights of {kind}, it begins with random ones")
    return data_folder() / "weights" / f"{name}.safetensors"


def staged(kind: str) -> Path:
    """The file of the weights of the model `kind`. Raises MissingWeights, naming the command that
    fetches it."""
    path = weights_file(kind)
    if not path.is_file():
        raise MissingWeights(
            f"there is no {path}. Where there is internet (on a cluster: the login node), run "
            f"`dmlbench weights {kind}`, and ask again."
        )
    return path


def stage(kind: str) -> Path:
    """Fetch the weights of the model `kind` from where timm finds them, if they are not there
    already. What comes by a URL has the checksum that is in its name.

    Raises:
        MissingWeights: they cannot be had from here, or not written.
    """
    path = weights_file(kind)
    if path.is_file():
        return path
    import timm
    from safetensors import SafetensorError
    from safetensors.torch import save_file
    from timm.models import set_pretrained_check_hash

    importlib.import_module(backbone_module(kind))
    set_pretrained_check_hash()
    name = path.stem
    try:
        model = timm.create_model(name, pretrained=True, num_classes=0)
    except (OSError, RuntimeError, ValueError, KeyError, UnpicklingError) as error:
        known: Any = timm.get_pretrained_cfg(name)
        source = "timm's hub" if known.hf_hub_id else known.url
        raise MissingWeights(
            f"cannot fetch {name} from {source}: {' '.join(str(error).split())}\n"
            f"Run `dmlbench weights {kind}` where there is internet, and copy its file to {path}; "
            f"or name a file of your own: backbones.<name>.pretrained: <path>."
        ) from error
    # each tensor by itself, contiguous: others are refused
    state = {key: value.clone().contiguous() for key, value in model.state_dict().items()}
    try:
        with replacing(path) as temporary:
            save_file(state, temporary, metadata={"model": name})
    except (OSError, SafetensorError) as error:
        raise MissingWeights(
            f"{path} cannot be written: {error}. "
            f"DMLBENCH_DATA=<folder> keeps data in a folder of your own."
        ) from None
    return path
