"""The step of a large batch in bounded memory: the batch is embedded in chunks, twice.

The gradient of the loss reaches the model through the embeddings alone. So a first pass, without a
graph, gives all embeddings; the loss gives their gradient; and a second pass embeds each chunk
again, with a graph, and hands its part of that gradient on. Patel, Tolias, Matas (CVPR 2022) train
batches of 4,000 images so. The gradient is that of the whole batch, added up chunk by chunk, if
each image is embedded by itself (`dmlbench.backbones.independence`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Chunk = dict[str, Tensor]
"""The images of a chunk, or their features: what `Inputs.to_model` takes, by name."""


def split(batch: dict[str, Tensor], size: int) -> list[Chunk]:
    """Cut a batch into chunks of `size` images; the last one may be smaller.

    Args:
        batch: `squares` (B, C, S, S) or `features` (B, F); all others have the images along their
            last dimension.

    >>> split({"squares": torch.zeros(5, 1, 2, 2), "hue": torch.arange(5)}, 3)[1]["hue"]
    tensor([3, 4])
    """
    parts = {
        name: tensor.split(size, dim=0 if name in ("squares", "features") else -1)
        for name, tensor in batch.items()
    }
    chunks = zip(*parts.values(), strict=True)
    return [dict(zip(parts, [t.contiguous() for t in chunk], strict=True)) for chunk in chunks]


def backward(
    embed: Callable[[Chunk, bool], Tensor],
    loss: Callable[[Tensor, Tensor], Tensor],
    chunks: Sequence[Chunk],
    labels: Tensor,
    train_trunk: bool,
) -> Tensor:
    """Add the gradient of the loss of a batch to the parameters of the model and of the loss.

    Args:
        embed: `embed(chunk, train_trunk)` brings the images of a chunk to the device, and gives
            their embeddings (b, D). Both calls for a chunk must give the same.
        loss: `loss(embeddings, labels)` of all embeddings (B, D).
        labels: (B,), in the order of the chunks.
        train_trunk: whether the trunk learns, or the head alone.

    Returns:
        the loss, without a graph.
    """
    with torch.no_grad():
        parts = [embed(chunk, False) for chunk in chunks]
    embeddings, sizes = torch.cat(parts), [*map(len, parts)]
    embeddings.requires_grad_()
    embeddings.grad = torch.zeros_like(embeddings)  # a loss need not depend on its embeddings
    value = loss(embeddings, labels)
    value.backward()
    for chunk, gradient in zip(chunks, embeddings.grad.split(sizes), strict=True):
        embed(chunk, train_trunk).backward(gradient)
    return value.detach()
