"""Which backbones exist, known without importing timm in this process.

Another process imports it: `python -m dmlbench.backbones.catalogue models`, or `weights`, or
`imagenet1k`.
"""

from __future__ import annotations

import importlib
import json
import sys
from functools import cache
from typing import Any

from dmlbench.utils.discovery import ask_once, versions
from dmlbench.utils.errors import BrokenInstallation
from dmlbench.utils.fingerprint import code_digest
from dmlbench.utils.modules import PACKAGE, imported_modules

MAKES_NUMBERS = False
BROKEN_TIMM = """\
timm does not import: {error}
  It needs a torchvision that was built for the installed torch ({versions}).
  The default builds fit each other, and run without a GPU too:
    pip install --force-reinstall torch torchvision
  For CPU-only builds take both from the one CPU index that pytorch.org's page names:
    pip install --force-reinstall torch torchvision --index-url ..."""


@cache
def own_backbones() -> tuple[str, ...]:
    """The modules of this package that register a model with timm, under the name of their file.

    >>> own_backbones()
    ('dmlbench.backbones.bn_inception',)
    """
    files = sorted((PACKAGE / "backbones").glob("*.py"))
    modules = [f"dmlbench.backbones.{file.stem}" for file in files]
    return tuple(m for m in modules if "timm.models.register_model" in imported_modules(m))


def backbone_module(kind: str) -> str:
    """The module that builds the backbone `kind`, a name with or without a tag.

    >>> backbone_module("bn_inception.caffe_in1k"), backbone_module("resnet50")
    ('dmlbench.backbones.bn_inception', 'dmlbench.backbones.timm')
    """
    own = f"dmlbench.backbones.{kind.partition('.')[0]}"
    return own if own in own_backbones() else "dmlbench.backbones.timm"


@cache
def timm_models() -> frozenset[str]:
    """The names of all models that timm knows, with and without the tags of their weights.

    Raises:
        BrokenInstallation: timm does not import, for example because torchvision is for another
            torch.
    """
    return frozenset(_ask("models"))


@cache
def timm_weights() -> dict[str, str]:
    """The weights that models start from: name, with or without a tag -> name with its tag.

    Raises:
        BrokenInstallation: timm does not import.
    """
    weights: dict[str, str] = _ask("weights")
    return weights


@cache
def imagenet_classes(subset: str) -> dict[str, str]:
    """The classes of a part of ImageNet: WordNet id -> its lemmas, as "lemon" or "tench, Tinca
    tinca".

    Args:
        subset: a name of timm's `ImageNetInfo`, such as "imagenet1k".

    Raises:
        BrokenInstallation: timm does not import.
    """
    classes: dict[str, str] = _ask(subset)
    return classes


def lines() -> list[str]:
    """A line for each model: its name, and the weights that `pretrained: true` takes.

    A name with the tag of its weights stands alone.

    Raises:
        BrokenInstallation: timm does not import.
    """
    weights = timm_weights()
    return [
        name if weights.get(name, name) == name else f"{name}  pretrained: {weights[name]}"
        for name in sorted(timm_models())
    ]


def broken_timm(error: Exception) -> BrokenInstallation:
    """An error that says how to repair a timm that fails to import with `error`."""
    installed = versions("torch", "torchvision", "timm")
    shown = ", ".join(f"{name} {number}" for name, number in installed.items())
    return BrokenInstallation(BROKEN_TIMM.format(error=error, versions=shown))


def _ask(question: str) -> Any:
    modules = own_backbones()
    facts = [versions("torch", "torchvision", "timm"), code_digest(*modules)]
    try:
        return ask_once(f"timm-{question}", facts, __name__, question, *modules)
    except BrokenInstallation as error:
        raise broken_timm(error) from None


def main() -> None:
    """Import timm and the modules that register models with it; print the answer as JSON."""
    question, *modules = sys.argv[1:]
    import timm

    if question.startswith("imagenet"):
        print(json.dumps(timm.data.ImageNetInfo(question).label_descriptions(as_dict=True)))
        return
    for module in modules:
        importlib.import_module(module)
    names = timm.list_models() + timm.list_pretrained()
    if question == "models":
        print(json.dumps(names))
        return
    weights = {}
    for name in names:
        config = timm.get_pretrained_cfg(name, allow_unregistered=False)
        if config is not None and config.has_weights:
            weights[name] = ".".join(filter(None, [config.architecture, config.tag]))
    print(json.dumps(weights))


if __name__ == "__main__":
    main()
