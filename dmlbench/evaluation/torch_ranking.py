"""The ranking of a gallery by torch on a GPU. It gives the ranks of `ranking.rank`.

GPUs of data centres multiply float64 matrices as fast as float32 ones (an H200: 67 TFLOP/s). Others
are still fast enough: the 60,502 test images of SOP take 3.7 TFLOP. So every similarity is computed
in float64 here and rounded once. No tie has to be settled afterwards, however many images are
equal, and no setting of the process (TF32) matters. One similarity in 10⁸ is rounded to another
float32 number than on a CPU; that changes a rank only if another similarity is next to it.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dmlbench.evaluation import torch_graded
from dmlbench.evaluation.graded import Graded
from dmlbench.evaluation.relevant import Relevant

BLOCK = 2**25
"""Similarities at once: 0.5 GB with their products, 1.3 GB if they are sorted."""
GRADED = 2**23
"""Similarities at once if images are graded: 1 GB with the sums that grading needs."""
COMPARED = 16
"""Most relevant images of a query whose ranks are found by comparing, and not by sorting.

Comparing all similarities with a relevant one reads and writes 16 bytes per similarity and relevant
image. Sorting moves about 200, and starts fewer, slower kernels. On memory of 4 TB/s, SOP (R is 5
on average, 12 at most) takes 0.1 s by comparing, and 0.2 s at best by sorting. iNaturalist, with
hundreds of relevant images, takes 8 s or more by comparing, and 1 s at best by sorting."""


def rank_relevant(
    vectors: NDArray[np.float32],
    query_vectors: NDArray[np.float32],
    queries: NDArray[np.integer],
    gallery: NDArray[np.integer],
    relevant: Relevant,
    device: str,
) -> tuple[NDArray[np.int64], Graded | None]:
    """`Ranking.ranks` and `Ranking.graded`. See `ranking.rank` for the arguments."""
    counts, sizes = relevant.counts, relevant.highest[0] - relevant.lowest[0]
    levels = relevant.levels
    graded = Graded.empty(levels, len(queries)) if levels > 1 else None
    ranked = np.arange(len(queries)) if graded else np.flatnonzero(counts)
    ranked = ranked[np.argsort(sizes[ranked], kind="stable")]  # queries of a block have similar R
    starts, ranks = counts.cumsum() - counts, np.empty(counts.sum(), dtype=np.int64)

    all_images = torch.from_numpy(vectors).to(device)
    all_queries = all_images
    if query_vectors is not vectors:
        all_queries = torch.from_numpy(query_vectors).to(device)
    images = all_images[torch.from_numpy(gallery).to(device)].double().T
    by_class = torch.from_numpy(relevant.by_class[0]).to(device)
    classes = torch.from_numpy(relevant.classes).to(device)
    size = max(1, (GRADED if graded else BLOCK) // len(gallery))
    for start in range(0, len(ranked), size):
        rows = ranked[start : start + size]
        query, lowest, highest, own = (
            torch.from_numpy(values[rows]).to(device)
            for values in (queries, relevant.lowest[0], relevant.highest[0], relevant.own)
        )
        similarity = (all_queries[query].double() @ images).float()
        inside = (own >= 0)[:, None]
        itself = own[:, None].clamp(min=0)
        similarity.scatter_(1, itself, similarity.gather(1, itself).masked_fill(inside, -torch.inf))

        # The query's class in the gallery (rows, width). Smaller classes are padded; the padding is
        # ranked last of all, after the query itself.
        member = lowest[:, None] + torch.arange(max(1, sizes[rows[-1]]), device=device)
        column = by_class[member.clamp(max=len(gallery) - 1)]
        if graded:
            order = _order(similarity)
            wanted = torch.from_numpy(relevant.wanted[:, rows]).to(device)
            shared = torch.stack([a == b[:, None] for a, b in zip(classes, wanted, strict=True)])
            shared &= ~(inside & (itself == torch.arange(len(gallery), device=device)))
            found = torch_graded.grade(shared.gather(2, order.expand_as(shared)))
            class_ranks = _ranks_in(order, column)
        elif column.shape[1] <= COMPARED:
            class_ranks = _by_comparing(similarity, column)
        else:
            class_ranks = _ranks_in(_order(similarity), column)
        class_ranks.masked_fill_(member >= highest[:, None], len(gallery) + 1)
        numbers = class_ranks.sort(1).values.cpu().numpy()  # here the host waits for the block
        place = np.arange(numbers.shape[1])
        valid = place < counts[rows, None]
        ranks[(starts[rows, None] + place)[valid]] = numbers[valid]
        if graded:
            graded.put(rows, Graded(*(values.cpu().numpy() for values in found)))
    return ranks, graded


def _by_comparing(similarity: Tensor, column: Tensor) -> Tensor:
    """Ranks (Q, W), from 1, of the images in `column` (Q, W) among all (Q, G)."""
    columns = torch.arange(similarity.shape[1], device=similarity.device)
    ranks = []
    for image in column.T[:, :, None]:
        own = similarity.gather(1, image)
        before = (similarity > own).sum(1)
        ranks.append(before + ((similarity == own) & (columns <= image)).sum(1))
    return torch.stack(ranks, 1)


def _order(similarity: Tensor) -> Tensor:
    """The columns (Q, G) of each row in the order of the ranking."""
    return torch.sort(similarity, dim=1, descending=True, stable=True).indices


def _ranks_in(order: Tensor, column: Tensor) -> Tensor:
    """The ranks of `_by_comparing`, whatever W is, from the `order` (Q, G) of the ranking."""
    place = torch.arange(1, 1 + order.shape[1], dtype=torch.int32, device=order.device)
    ranks = torch.empty_like(order, dtype=torch.int32)
    return ranks.scatter_(1, order, place.expand_as(order)).gather(1, column).long()
