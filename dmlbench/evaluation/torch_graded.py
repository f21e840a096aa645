"""The metrics of graded relevance by torch on a GPU.

They are those of `graded.grade`, which says where they come from. A GPU has room for the whole
ranking of a block of queries, so nothing is picked out of it: then the host need not wait.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dmlbench.evaluation.graded import ALPHA


def grade(shared: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The fields of `graded.Graded` of a block of queries.

    Args:
        shared: (levels, Q, G), whether the query shares each level with each image, in the order of
            the ranking.
    """
    levels, _, size = shared.shape
    rank = torch.arange(1, 1 + size, device=shared.device)
    exact = rank.double()
    nearer = torch.zeros_like(shared[0])  # whether the image shares a nearer level
    is_grade = []  # grade L first
    for of_level in shared:
        is_grade.append(of_level & ~nearer)
        nearer |= of_level
    totals = [own.sum(1, keepdim=True) for own in is_grade]
    weights = [((levels - level) / levels) ** ALPHA for level in range(levels)]
    relevance = [
        weight / total.clamp(min=1).double() for weight, total in zip(weights, totals, strict=True)
    ]
    own_relevance = sum(own * of_grade for own, of_grade in zip(is_grade, relevance, strict=True))
    all_graded = nearer.sum(1, keepdim=True)

    h_rank = torch.zeros_like(own_relevance)
    common = torch.zeros_like(rank).expand_as(nearer).clone()
    gain, ideal_gain = torch.zeros_like(own_relevance), torch.zeros_like(own_relevance)
    before = torch.zeros_like(all_graded)  # images of higher grades
    for level, own in enumerate(is_grade):
        hits, total = own.cumsum(1), totals[level]
        h_rank += hits * torch.minimum(own_relevance, relevance[level])
        ideal = (rank - before).clamp(min=0).minimum(total)
        common += hits.minimum(ideal)
        worth = 2.0 ** (levels - level) - 1
        gain += own.double() * worth
        ideal_gain += ((rank > before) & (rank <= before + total)).double() * worth
        before = before + total
    discount = 1 / torch.log2(1 + exact)
    norm = sum(weight * (total > 0).double() for weight, total in zip(weights, totals, strict=True))
    # 0 / 0 is NaN, where a query has no graded image
    h_ap = (h_rank / exact).sum(1) / norm[:, 0]
    asi = (common / exact * (rank <= all_graded)).sum(1) / all_graded[:, 0]
    ndcg = (gain * discount).sum(1) / (ideal_gain * discount).sum(1)
    first = (1 + shared.to(torch.int8).argmax(2)) * shared.any(2)
    return first, h_ap, asi, ndcg
