"""Can a backbone be built at its image size, and do its weights fit? Known before any job.

Another process builds it: `python -m dmlbench.backbones.trial` reads questions as JSON. A model is
built on the device "meta", without numbers, which takes a fraction of a second.
"""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Iterable
from typing import Any, NamedTuple

from dmlbench.backbones.catalogue import backbone_module
from dmlbench.backbones.weights import checkpoint_file
from dmlbench.utils.discovery import find_problems, versions
from dmlbench.utils.errors import MissingWeights
from dmlbench.utils.files import file_state
from dmlbench.utils.fingerprint import code_digest
from dmlbench.utils.text import count_of

MAKES_NUMBERS = False
SIDES = (8, 14, 16, 28, 32)
"""A message proposes an image size that is a multiple of one of these."""

LARGEST = 1024
"""Side of the largest images that are tried in real numbers, which takes memory."""


class Question(NamedTuple):
    """A model, as an entry of a study and its recipe describe it."""

    type: str
    image_size: int
    dim: int
    head: str
    channels: int
    pooling: str | None
    weights: str | None
    """A path, or `package`; None for random weights and for those that are still to be fetched."""
    freeze_bn: bool = False
    chunk: int | None = None
    """Images that are embedded at once in training, where a batch is cut into chunks."""


def backbone_problems(questions: Iterable[Question]) -> dict[Question, str]:
    """Why each model cannot be built; without those that can be.

    Raises:
        BrokenInstallation: timm does not import.
    """
    questions, problems = list(dict.fromkeys(questions)), {}
    asked, facts = [], []
    installed = versions("torch", "torchvision", "timm")
    for question in questions:
        weights = None
        if question.weights:
            try:
                weights = file_state(checkpoint_file(question.type, question.weights))
            except MissingWeights as error:
                problems[question] = f"pretrained: {error}"
                continue
        modules = ("dmlbench.backbones.model", "dmlbench.backbones.independence")
        code = code_digest(*modules, backbone_module(question.type))
        asked.append(question)
        facts.append([installed, code, question, weights])
    answers = find_problems("backbone", __name__, asked, facts)
    return problems | {q: problem for q, problem in zip(asked, answers, strict=True) if problem}


def _problem(question: Question) -> str:
    import torch

    try:
        # On another device than in a training, so a problem counts only if it is there in both
        with torch.device("meta"):
            trunk = _build(question)
    except Exception as error:  # models raise anything
        if question.image_size > LARGEST:
            return _explain(question, error)
        try:
            trunk = _build(question)
        except MissingWeights as error:
            return f"pretrained: {error}"
        except Exception as error:
            return _explain(question, error)
    return _unseen_margin(question) or _coupled_images(question, trunk)


def _build(question: Question) -> Any:
    """The trunk, after one batch of two images has passed through it and its head."""
    import torch

    from dmlbench.backbones.heads import HEADS
    from dmlbench.backbones.timm import create_trunk

    trunk, _ = create_trunk(
        question.type,
        channels=question.channels,
        image_size=question.image_size,
        pooling=question.pooling,
        pretrained=question.weights or False,
    )
    images = torch.zeros(2, question.channels, question.image_size, question.image_size)
    with torch.no_grad():
        head = HEADS[question.head](trunk.eval(), images, question.dim)
        trunk.train()
        head(head.features(trunk, images))
    return trunk


def _explain(question: Question, error: Exception) -> str:
    """The problem in words: is it the size of the images, or something else?"""
    reason = " ".join(str(error).split()).rstrip(".")
    if reason.startswith("backbones.<name>."):  # written for the user
        return reason.removeprefix("backbones.<name>.")
    if question.pooling is not None and _fits(question._replace(pooling=None)):
        return f"recipe.pooling: {question.pooling!r} does not fit {question.type}: {reason}"
    if fitting := _fitting_sides(question):
        sides = " or ".join(map(str, fitting))
        return (
            f"image_size: {question.type} cannot take images of {question.image_size} pixels: "
            f"{reason}. Take image_size: {sides}"
        )
    return f"type: {question.type} cannot be built with these settings: {reason}"


def _fitting_sides(question: Question) -> list[int]:
    """The nearest size below that of the study that the model can take, and the nearest above."""
    import timm

    config: Any = timm.get_pretrained_cfg(question.type, allow_unregistered=False)
    side = question.image_size
    usual = config.input_size[-1] if config is not None else 224
    multiples = {side // step * step + up for step in SIDES for up in (0, step)}
    sides = sorted({*multiples, 32, 64, 96, 128, usual} - {side, 0}, key=lambda n: abs(n - side))
    below = next((n for n in sides if n < side and _fits(question._replace(image_size=n))), None)
    above = next((n for n in sides if n > side and _fits(question._replace(image_size=n))), None)
    return [n for n in (below, above) if n is not None and n >= SIDES[0]]


def _fits(question: Question) -> bool:
    import torch

    try:
        with torch.device("meta"):
            _build(question._replace(weights=None))
    except Exception:
        return False
    return not _unseen_margin(question)


def _unseen_margin(question: Question) -> str:
    """The problem of a transformer whose patches do not cover the image; empty if they do."""
    import torch
    from timm.layers import PatchEmbed

    with torch.device("meta"):
        trunk = _build(question._replace(weights=None))
    side, embed = question.image_size, getattr(trunk, "patch_embed", None)
    if not isinstance(embed, PatchEmbed) or embed.dynamic_img_pad:
        return ""
    patch = max(embed.patch_size)
    if not (rest := side % patch):
        return ""
    return (
        f"image_size: {side} is not a multiple of {patch}, the patch of {question.type}, which "
        f"would not see {count_of(rest, 'pixel')}. Take image_size: {side - rest} or "
        f"{side - rest + patch}"
    )


def _coupled_images(question: Question, trunk: Any) -> str:
    """The problem of a trunk that cannot be trained in chunks; empty if it can, or need not."""
    from dmlbench.backbones.independence import advice, coupling

    if question.chunk is None:
        return ""
    reason = coupling(trunk, question.freeze_bn)
    return advice(question.chunk, reason) if reason else ""


def main() -> None:
    """Build each model, and print the list of their problems."""
    warnings.filterwarnings("ignore")
    questions = [Question(*question) for question in json.load(sys.stdin)]
    print(json.dumps([_problem(question) for question in questions]))


if __name__ == "__main__":
    main()
