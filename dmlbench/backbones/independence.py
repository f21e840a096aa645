"""Does a model embed each image by itself? Only then can a batch be embedded in chunks.

Batch norm that computes with the statistics of its batch mixes the images of a batch. Dropout and
stochastic depth draw anew in each pass, so two passes give two embeddings of an image.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

ROUNDING = 1e-3  # relative to the largest number; float32 in another order differs by 1e-5
IMAGES = 4


def coupling(model: nn.Module, freeze_bn: bool = False) -> str:
    """The first module of `model`, in training mode, that mixes images or draws at random.

    Args:
        freeze_bn: the batch norms are to be frozen, even if they are in training mode here.

    Returns:
        The reason, as `bn1 (BatchNorm2d) computes with the statistics of its batch`; empty if there
        is none among the modules of torch and timm.

    >>> coupling(nn.Sequential(nn.Conv2d(3, 8, 3), nn.Dropout(0.5)))
    '1 (Dropout) draws at random in each pass'
    """
    for name, module in model.named_modules():
        title = f"{name} ({type(module).__name__})"
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            is_frozen = freeze_bn or not module.training
            if not is_frozen or module.running_mean is None:
                return f"{title} computes with the statistics of its batch"
        elif module.training and _draws(module):
            return f"{title} draws at random in each pass"
    return ""


def _draws(module: nn.Module) -> bool:
    if isinstance(module, nn.RReLU):
        return True
    probabilities = [getattr(module, "drop_prob", 0)]  # timm's DropPath and DropBlock
    if isinstance(module, nn.modules.dropout._DropoutNd):
        probabilities.append(module.p)
    if type(module).__name__ == "PatchDropout":  # of timm
        probabilities.append(module.prob)
    return any(isinstance(p, int | float) and p > 0 for p in probabilities)


def advice(chunk: int, reason: str) -> str:
    """The message that refuses `recipe.chunk` for the `reason` that `coupling` gives.

    >>> advice(56, "bn1 (BatchNorm2d) computes with the statistics of its batch")
    'recipe.chunk: 56 needs a model that embeds each image by itself, and bn1 (BatchNorm2d) computes
    with the statistics of its batch. Set freeze_bn: true, or leave chunk out'
    """
    fix = "Leave chunk out"
    if "statistics" in reason:
        fix = "Set freeze_bn: true, or leave chunk out"
    return (
        f"recipe.chunk: {chunk} needs a model that embeds each image by itself, and {reason}. {fix}"
    )


@torch.no_grad()
def check_independence(model: nn.Module, chunk: int, image: Tensor) -> None:
    """Refuse to train `model` in chunks if it does not embed each image by itself.

    Its modules are looked at; then it embeds four random images together and in two halves, in
    training mode, which finds what no list of modules has. Nothing is drawn from torch's global
    generators, and the model is left in training mode.

    Args:
        chunk: `recipe.chunk`, for the message.
        image: (C, S, S), of the size and on the device of the training images.

    Raises:
        ValueError: the images depend on each other, on chance or on earlier passes.
    """
    model.train()
    if reason := coupling(model):
        raise ValueError(advice(chunk, reason))
    buffers = [buffer.clone() for buffer in model.buffers()]
    generator = torch.Generator().manual_seed(0)
    images = torch.rand((IMAGES, *image.shape), generator=generator).to(image)
    whole = model(images)
    halves = torch.cat([model(half) for half in images.split(IMAGES // 2)])
    if (halves - whole).abs().max() > ROUNDING * whole.abs().max():
        reason = "the embedding of an image changes with the other images of its batch"
        raise ValueError(advice(chunk, reason))
    if not all(map(torch.equal, buffers, model.buffers())):
        raise ValueError(advice(chunk, "each pass changes what the next one computes"))
