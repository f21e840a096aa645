"""The retrieval metrics of one ranking under the conventions of other evaluation codes.

Published numbers of one metric differ because the codes differ in what they do with the query, with
queries that have no relevant image, with the divisor, with the end of the ranking and with ties. A
`Convention` says that as data, `score_under` computes under any of them, and `explain` changes one
field at a time to tell which difference moves a number by how much.

All conventions rank unit vectors by cosine here. No code but dmlbench and scikit-learn defines the
order of equal similarities (faiss and torch.topk may give any): they get dmlbench's, by row.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

BLOCK = 2**22
"""Similarities at once: 32 MB in float64."""
RECALL, MAP_AT_K = "recall@{k}", "map@{k}"


@dataclass(frozen=True)
class Convention:
    """How an evaluation code turns rankings into numbers."""

    source: str
    """The code that was read."""
    names: Mapping[str, str]
    """Name of a metric here -> its name there; {k} is one of the K."""
    self_match: Literal["query excluded", "first hit dropped"] = "query excluded"
    """Of a query that is in the gallery. The first hit is another image if that has the same
    embedding and a lower row: then the query stays in its ranking, as a relevant image."""
    lone_queries: Literal["miss in recall", "miss", "left out"] = "miss in recall"
    """A query with R = 0: it counts as 0 in recall, in every metric, or in none."""
    divisor: Literal["R", "R with the query", "min(R, K)"] = "R"
    """Of an average precision, and of R-Precision. R with the query also ends the ranking there."""
    cap: Literal["gallery", "largest R", "K"] = "gallery"
    """Where a ranking ends for MAP and MRR: after the gallery, after as many images as the query
    with the most relevant ones has, or after K images."""
    ties: Literal["by row", "together"] = "by row"
    """Equal similarities are ordered by row, or have the precision at the end of the tie."""


FIELDS = ("self_match", "lone_queries", "divisor", "cap", "ties")
"""What conventions differ in."""

_PML = {
    "recall@1": "precision_at_1",
    "r_precision": "r_precision",
    "map@r": "mean_average_precision_at_r",
    "map": "mean_average_precision",
    "mrr": "mean_reciprocal_rank",
}
DMLBENCH = Convention(
    source="docs/metrics.md",
    names={name: name for name in (RECALL, "r_precision", "map@r", "map", "mrr")},
)
CONVENTIONS: Mapping[str, Convention] = {
    "dmlbench": DMLBENCH,
    "pml": Convention(
        source="pytorch-metric-learning 2.9, AccuracyCalculator with k=None",
        names=_PML,
        lone_queries="left out",
    ),
    "musgrave": Convention(
        source="the same with k='max_bin_count', as in A Metric Learning Reality Check (2020)",
        names=_PML,
        lone_queries="left out",
        cap="largest R",
    ),
    "oml": Convention(
        source="open-metric-learning, functional/metrics.py",
        names={RECALL: "cmc@{k}", MAP_AT_K: "map@{k}"},
        divisor="min(R, K)",
        cap="K",
    ),
    "rdml": Convention(
        source="Revisiting_Deep_Metric_Learning_PyTorch (Roth et al., 2020), e_recall and mAP_c",
        names={RECALL: "e_recall@{k}", "map@r": "mAP_c"},
        self_match="first hit dropped",
        lone_queries="miss",
        divisor="R with the query",
    ),
    "mieb": Convention(
        source="MTEB, Any2AnyRetrievalEvaluator with skip_first_result",
        names={RECALL: "cv_recall@{k}"},
        self_match="first hit dropped",
        lone_queries="left out",
    ),
    "sklearn": Convention(
        source="scikit-learn, the mean of average_precision_score over queries",
        names={"map": "average_precision_score"},
        lone_queries="left out",
        ties="together",
    ),
}
"""The conventions by name."""


class Hits(NamedTuple):
    """Where the images of a query's class are in the ranking of the whole gallery.

    The query is in its own ranking if it is in the gallery.
    """

    query: NDArray[np.int64]
    """(H,) the query of each hit, ascending."""
    rank: NDArray[np.int64]
    """(H,) from 1, ascending for each query. Equal similarities are ordered by row."""
    end: NDArray[np.int64]
    """(H,) the last rank that has the same similarity."""
    own: NDArray[np.int64]
    """(Q,) rank of the query itself; 0 if it is not in the gallery."""
    relevant: NDArray[np.int64]
    """(Q,) R, the number of other images of its class."""


def find_hits(
    vectors: NDArray[np.float32],
    labels: NDArray[np.integer],
    queries: tuple[NDArray[np.float32], NDArray[np.integer]] | None = None,
) -> Hits:
    """Rank the gallery for each query, by float32 similarity as `ranking.rank` does.

    Args:
        vectors: (G, D) unit vectors of the gallery.
        labels: (G,) their classes.
        queries: unit vectors (Q, D) and classes (Q,), if the queries are other images.
    """
    inside = queries is None
    asked, wanted = (vectors, labels) if queries is None else queries
    asked, gallery, size = asked.astype(np.float64), vectors.astype(np.float64).T, len(vectors)
    own = np.zeros(len(asked), dtype=np.int64)
    parts = []
    step = max(1, BLOCK // size)
    for start in range(0, len(asked), step):
        rows = np.arange(start, min(start + step, len(asked)))
        similarity = (asked[rows] @ gallery).astype(np.float32)
        order = np.argsort(-similarity, axis=1, kind="stable")
        ranked = np.take_along_axis(similarity, order, axis=1)
        query, place = np.nonzero(labels[order] == wanted[rows, None])
        is_last = np.append(ranked[:, 1:] != ranked[:, :-1], np.ones((len(rows), 1), bool), axis=1)
        ends = np.where(is_last, np.arange(1, size + 1), size)
        ends = np.minimum.accumulate(ends[:, ::-1], axis=1)[:, ::-1]
        parts.append((rows[query], place + 1, ends[query, place]))
        if inside:
            own[rows] = 1 + np.nonzero(order == rows[:, None])[1]
    query, rank, end = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    relevant = np.bincount(query, minlength=len(asked)) - inside
    return Hits(query, rank, end, own, relevant)


def score_under(convention: Convention, hits: Hits, ks: Sequence[int]) -> dict[str, float]:
    """The metrics by their names here: recall@K, r_precision, map@r, map and mrr; with the cap K,
    map@K for each K in the place of map.

    A metric is NaN if every query is left out of it.

    >>> vectors = np.array([[1, 0], [1, 0], [1, 0], [0, 1]], dtype=np.float32)
    >>> hits = find_hits(vectors, np.array([0, 1, 1, 0]))
    >>> score_under(CONVENTIONS["dmlbench"], hits, [1])["recall@1"]
    0.25
    >>> score_under(CONVENTIONS["rdml"], hits, [1])["recall@1"]  # row 1 finds itself behind row 0
    0.75
    """
    query, rank, end = _drop(convention.self_match, hits)
    total, relevant = len(hits.own), hits.relevant
    counts = np.bincount(query, minlength=total)
    starts = counts.cumsum() - counts
    number = np.arange(1, len(query) + 1) - starts[query]
    precision = number / rank
    if convention.ties == "together":
        is_last = np.append((query[1:] != query[:-1]) | (end[1:] != end[:-1]), True)
        last = np.flatnonzero(is_last)[np.concatenate([[0], is_last[:-1].cumsum()])]
        precision = number[last] / end
    size = relevant + ((hits.own > 0) & (convention.divisor == "R with the query"))
    nearest = np.full(total, np.iinfo(np.int64).max)
    nearest[counts > 0] = rank[starts[counts > 0]]

    def mean(values: NDArray[np.float64], is_recall: bool = False) -> float:
        misses = convention.lone_queries == "miss"
        if misses or (is_recall and convention.lone_queries == "miss in recall"):
            return float(values.mean())
        answered = values[relevant > 0]
        return float(answered.mean()) if len(answered) else float("nan")

    def summed(values: NDArray[np.float64], limit: NDArray[np.int64]) -> NDArray[np.float64]:
        """The sum over the hits of each query that are within its limit."""
        within = rank <= limit[query]
        sums: NDArray[np.float64] = np.bincount(
            query[within], values[within].astype(np.float64), minlength=total
        ).astype(np.float64)
        return sums

    def average_precision(limit: int, divisor: NDArray[np.int64]) -> float:
        return mean(summed(precision, np.full(total, limit)) / np.maximum(divisor, 1))

    limit = int(relevant.max()) if convention.cap == "largest R" else np.iinfo(np.int64).max
    scores = {f"recall@{k}": mean((nearest <= k).astype(float), is_recall=True) for k in ks}
    scores["r_precision"] = mean(summed(np.ones(len(rank)), size) / np.maximum(size, 1))
    scores["map@r"] = mean(summed(precision, size) / np.maximum(size, 1))
    if convention.cap == "K":
        for k in ks:
            is_least = convention.divisor == "min(R, K)"
            scores[f"map@{k}"] = average_precision(k, np.minimum(size, k) if is_least else size)
    else:
        scores["map"] = average_precision(limit, size)
    scores["mrr"] = mean(np.where(nearest <= limit, 1 / nearest, 0))
    return scores


def _drop(
    self_match: str, hits: Hits
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Query, rank and end of the hits after one image of each ranking that holds its query has been
    dropped: the query itself, or the first one."""
    dropped = hits.own if self_match == "query excluded" else np.minimum(hits.own, 1)
    place = dropped[hits.query]
    kept = hits.rank != place
    query, rank, end, place = hits.query[kept], hits.rank[kept], hits.end[kept], place[kept]
    is_inside = place > 0
    return query, rank - (is_inside & (rank > place)), end - (is_inside & (end >= place))


class Number(NamedTuple):
    """A number under a convention, and why it is not dmlbench's."""

    name: str
    """Of the metric, in the code of the convention."""
    value: float
    ours: str
    """Name of the metric of dmlbench that is nearest to it."""
    our_value: float
    effects: dict[str, float]
    """Field of `Convention` -> how far the number moves if only this field is changed from
    dmlbench's. Fields that are the same are not there."""

    @property
    def rest(self) -> float:
        """What the fields do together beyond the sum of what each does alone."""
        return self.value - self.our_value - sum(self.effects.values())


def explain(convention: Convention, hits: Hits, ks: Sequence[int]) -> list[Number]:
    """The numbers of a convention, and what each of its differences from dmlbench's does alone."""
    fields = [name for name in FIELDS if getattr(convention, name) != getattr(DMLBENCH, name)]
    asked = sorted({1, *ks})  # precision_at_1 has no other K
    ours, theirs = score_under(DMLBENCH, hits, asked), score_under(convention, hits, asked)
    alone = {}
    for name in fields:
        changed = dataclasses.replace(DMLBENCH, **{name: getattr(convention, name)})
        alone[name] = score_under(changed, hits, asked)
    numbers = []
    for metric, there in convention.names.items():
        for k in ks if "{k}" in metric else ks[:1]:
            name = metric.format(k=k)
            near = name if name in ours else "map"
            effects = {
                field: scores.get(name, scores.get(near, ours[near])) - ours[near]
                for field, scores in alone.items()
            }
            numbers.append(Number(there.format(k=k), theirs[name], near, ours[near], effects))
    return numbers
