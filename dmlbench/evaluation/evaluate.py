"""All metrics of embeddings: pure functions of embeddings and labels, by numpy and faiss.

torch is needed only on a GPU.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dmlbench.evaluation.clustering import ami, nmi
from dmlbench.evaluation.kmeans import kmeans
from dmlbench.evaluation.placing import Placed, place
from dmlbench.evaluation.ranking import Ranking, rank
from dmlbench.evaluation.retrieval import (
    average_precision_at_r,
    is_nearest_relevant,
    mean_average_precision,
    mean_reciprocal_rank,
    r_precision,
    recall_at,
)
from dmlbench.evaluation.verification import verification_accuracy

if TYPE_CHECKING:
    from dmlbench.study.poincare_ball import PoincareBall

Ids = NDArray[np.integer]
Rows = NDArray[np.integer]


class Table(Protocol):
    """Columns by name: a dict of arrays, an Arrow table, a data frame."""

    def __getitem__(self, column: str, /) -> Any: ...


class QueryScores(NamedTuple):
    """The scores of the single queries of a protocol, one repetition after another."""

    protocol: str
    repetition: NDArray[np.int64]
    """(Q,) from 0."""
    ids: Ids
    """(Q,) of the images."""
    labels: NDArray[np.integer]
    """(Q,) their classes."""
    map_at_r: NDArray[np.float64]
    """(Q,) the average precision at R; NaN for a lone query, which MAP@R leaves out."""
    recall_at_1: NDArray[np.float64]
    """(Q,) 1 if the nearest image is relevant, else 0."""


class Scores(NamedTuple):
    """What `evaluate` gives."""

    rows: list[dict[str, Any]]
    """{"protocol", "metric", "value"} of each metric."""
    queries: list[QueryScores]
    """Of the first protocol that ranks images; empty if none does."""


def evaluate(
    embeddings: ArrayLike,
    ids: ArrayLike,
    index: Table,
    protocols: Table,
    settings: Mapping[str, Any],
    *,
    partial: bool = False,
    pairs: Table | None = None,
    levels: Sequence[str] = (),
    device: str = "cpu",
    clusters: bool = True,
    ball: PoincareBall | None = None,
) -> Scores:
    """Score embeddings under every protocol of a data set.

    Args:
        embeddings: (N, D), of any length.
        ids: (N,) of their images, unique, in any order.
        index: columns `id` and `label`, and those of `levels`.
        protocols: columns `protocol`, `id`, `role` (both, query or gallery) and `repetition`. The
            values of the repetitions of a protocol are averaged.
        settings: `recall_at` (list of K), `kmeans_seed`, `kmeans_iterations`, `kmeans_restarts`
            and `threads`.
        partial: score only the images that have an embedding, because only a part of the classes
            was embedded.
        pairs: columns `first` and `second` (ids), `same` (whether they share a class) and `fold`,
            for verification.
        levels: names of the columns of super-classes, the nearest to the class first.
        device: "cpu", or a device of torch that ranks and clusters, such as "cuda".
        clusters: whether to cluster too. Without it, nmi and ami are left out.
        ball: where images are compared by hyperbolic distance; None: by cosine.

    Returns:
        The metrics are recall@K, map@r, r_precision, map, mrr, nmi and ami (over all images of the
        protocol, with as many clusters as classes), queries and lone_queries (numbers of queries).
        With levels also "recall@K <level>" of each, h_ap, asi and ndcg (see graded.py). Pairs have
        the protocol "verification", with verification_accuracy, verification_error (its standard
        error) and pairs (their number).
        map@r and recall@1 of the first protocol also come query by query.

    Raises:
        UnusableEmbeddings: no metric is defined on the embeddings.
        ValueError: an image of a protocol has no embedding or no label, an image has two, or no
            query has an image of its class in the gallery.

    >>> ids = np.arange(6)
    >>> angles = np.deg2rad([0, 10, 25, 30, 60, 200])
    >>> index = {"id": ids, "label": np.array([0, 0, 1, 0, 1, 1])}
    >>> zero_shot = {"protocol": "zero_shot", "role": "both", "repetition": 0}
    >>> protocols = {"id": ids, **{name: np.full(6, value) for name, value in zero_shot.items()}}
    >>> settings = {"recall_at": [1, 2], "kmeans_seed": 0, "kmeans_iterations": 20,
    ...             "kmeans_restarts": 3, "threads": 1}
    >>> embeddings = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    >>> scores = evaluate(embeddings, ids, index, protocols, settings)
    >>> for row in scores.rows[:4]:
    ...     print(row["protocol"], row["metric"], round(row["value"], 4))
    zero_shot recall@1 0.5
    zero_shot recall@2 0.8333
    zero_shot map@r 0.3333
    zero_shot r_precision 0.4167
    >>> scores.queries[0].map_at_r.tolist()
    [0.5, 0.5, 0.0, 0.25, 0.25, 0.5]
    """
    images = _embedded_images(embeddings, ids, index, levels, ball)
    scorer = _Scorer(images, settings, device, clusters)
    rows: list[dict[str, Any]] = []
    of_queries: list[QueryScores] = []
    for protocol, repetitions in _by_protocol(protocols, images.ids if partial else None):
        values = defaultdict(list)
        singles = []
        for queries, gallery in repetitions:
            metrics, single = scorer.score(images.rows(queries), images.rows(gallery))
            singles.append(single)
            for metric, value in metrics.items():
                values[metric].append(value)
        of_queries = of_queries or [_join(protocol, images, singles)]
        rows += [
            {"protocol": protocol, "metric": metric, "value": float(np.mean(repeated))}
            for metric, repeated in values.items()
        ]
    if pairs is not None:
        rows += [
            {"protocol": "verification", "metric": metric, "value": float(value)}
            for metric, value in _verification_scores(images, pairs, partial).items()
        ]
    return Scores(rows, of_queries)


class _Single(NamedTuple):
    """The scores of the single queries (Q,) of a repetition."""

    rows: Rows
    map_at_r: NDArray[np.float64]
    recall_at_1: NDArray[np.bool_]


def _join(protocol: str, images: _Images, singles: Sequence[_Single]) -> QueryScores:
    """The scores of the single queries of all repetitions of a protocol."""
    rows = np.concatenate([single.rows for single in singles])
    return QueryScores(
        protocol,
        repetition=np.repeat(np.arange(len(singles)), [len(single.rows) for single in singles]),
        ids=images.ids[rows],
        labels=images.labels[rows],
        map_at_r=np.concatenate([single.map_at_r for single in singles]),
        recall_at_1=np.concatenate([single.recall_at_1 for single in singles]).astype(np.float64),
    )


@dataclass(frozen=True)
class _Images:
    """The embedded images in ascending order of their ids."""

    ids: Ids
    """(N,)"""
    placed: Placed
    labels: NDArray[np.integer]
    """(N,)"""
    groups: Mapping[str, NDArray[np.integer]]
    """Super-class (N,) of each image, from 0, by level."""

    def rows(self, ids: Ids) -> Rows:
        """The rows of the images `ids`."""
        return _find_rows(self.ids, ids, "embedding")


def _embedded_images(
    embeddings: ArrayLike,
    ids: ArrayLike,
    index: Table,
    levels: Sequence[str],
    ball: PoincareBall | None,
) -> _Images:
    order = np.argsort(ids)  # so that no score depends on the order of the embeddings
    ids, placed = np.asarray(ids)[order], place(np.asarray(embeddings)[order], ball)
    indexed = _find_rows(index["id"], ids, "label")
    groups = {
        level: np.unique(np.asarray(index[level])[indexed], return_inverse=True)[1]
        for level in levels
    }
    return _Images(ids, placed, np.asarray(index["label"])[indexed], groups)


def _by_protocol(
    protocols: Table, embedded: Ids | None
) -> Iterator[tuple[str, Iterator[tuple[Ids, Ids]]]]:
    """Each protocol, with the queries and the gallery of each of its repetitions, as sorted ids.

    Args:
        embedded: leave out all other images; None: keep all images.
    """
    name, image, role, repetition = (
        np.asarray(protocols[column]) for column in ("protocol", "id", "role", "repetition")
    )
    if embedded is not None:
        kept = np.isin(image, embedded)
        name, image, role, repetition = name[kept], image[kept], role[kept], repetition[kept]

    def splits(protocol: str) -> Iterator[tuple[Ids, Ids]]:
        for number in np.unique(repetition[name == protocol]):
            chosen = (name == protocol) & (repetition == number)
            yield (
                np.unique(image[chosen & (role != "gallery")]),
                np.unique(image[chosen & (role != "query")]),
            )

    for protocol in dict.fromkeys(name.tolist()):
        yield protocol, splits(protocol)


class _Scorer:
    """The metrics of splits of `images` into queries and gallery."""

    def __init__(
        self, images: _Images, settings: Mapping[str, Any], device: str, clusters: bool
    ) -> None:
        self.images, self.settings, self.device = images, settings, device
        self.clusters = clusters
        self._clustering_scores: dict[bytes, dict[str, float]] = {}

    def score(self, queries: Rows, gallery: Rows) -> tuple[dict[str, float], _Single]:
        """All metrics of one split, from one ranking and one clustering."""
        images, settings = self.images, self.settings
        ranking = rank(
            images.placed.gallery,
            images.labels,
            queries,
            gallery,
            query_vectors=images.placed.queries,
            threads=settings["threads"],
            levels=[*images.groups.values()],
            device=self.device,
        )
        if not len(ranking.ranks):
            raise ValueError("no query has an image of its class in the gallery")
        has_relevant = ranking.counts > 0
        precisions = np.full(len(queries), np.nan)
        precisions[has_relevant] = average_precision_at_r(ranking)
        metrics = {
            **{f"recall@{k}": recall_at(k, ranking) for k in settings["recall_at"]},
            **self._score_levels(ranking),
            "map@r": float(precisions[has_relevant].mean()),
            "r_precision": r_precision(ranking),
            "map": mean_average_precision(ranking),
            "mrr": mean_reciprocal_rank(ranking),
            **(self._score_clusters(np.union1d(queries, gallery)) if self.clusters else {}),
            "queries": len(queries),
            "lone_queries": int(np.count_nonzero(~has_relevant)),
        }
        return metrics, _Single(queries, precisions, is_nearest_relevant(ranking))

    def _score_levels(self, ranking: Ranking) -> dict[str, float]:
        """The metrics of super-classes; none without them."""
        if (graded := ranking.graded) is None:
            return {}
        recalls = {
            f"recall@{k} {name}": graded.recall_at(k, level)
            for level, name in enumerate(self.images.groups, 1)
            for k in self.settings["recall_at"]
        }
        return recalls | graded.means()

    def _score_clusters(self, rows: Rows) -> dict[str, float]:
        """NMI and AMI of the images `rows`. Repetitions often share their images: cluster once."""
        key = rows.tobytes()
        if key not in self._clustering_scores:
            labels, settings = self.images.labels[rows], self.settings
            clusters = kmeans(
                self.images.placed.vectors[rows],
                len(np.unique(labels)),
                settings["kmeans_seed"],
                settings["kmeans_iterations"],
                settings["kmeans_restarts"],
                threads=settings["threads"],
                device=self.device,
            )
            self._clustering_scores[key] = {
                "nmi": nmi(labels, clusters),
                "ami": ami(labels, clusters),
            }
        return self._clustering_scores[key]


def _verification_scores(images: _Images, pairs: Table, partial: bool) -> dict[str, float]:
    """The metrics of the pairs; if `partial`, of those whose images are both embedded."""
    first, second, same, fold = (
        np.asarray(pairs[column]) for column in ("first", "second", "same", "fold")
    )
    if partial:
        kept = np.isin(first, images.ids) & np.isin(second, images.ids)
        first, second, same, fold = first[kept], second[kept], same[kept], fold[kept]
    left = images.placed.queries[images.rows(first)]
    right = images.placed.gallery[images.rows(second)]
    similarity = np.einsum("nd,nd->n", left, right, dtype=np.float64)
    accuracy, error = verification_accuracy(similarity, same, fold)
    return {"verification_accuracy": accuracy, "verification_error": error, "pairs": len(same)}


def _find_rows(ids: ArrayLike, wanted: Ids, content: str) -> Rows:
    """The place of each wanted id in `ids`, which must be unique and hold them all.

    Args:
        content: what each id must have, for the messages of the ValueErrors.
    """
    ids = np.asarray(ids)
    order = np.argsort(ids)
    rows = order[np.minimum(np.searchsorted(ids, wanted, sorter=order), len(ids) - 1)]
    missing = np.count_nonzero(ids[rows] != wanted)
    if missing:
        raise ValueError(f"{missing} of {len(wanted)} images have no {content}")
    if np.any(np.diff(ids[order]) == 0):
        raise ValueError(f"an image has more than one {content}")
    return rows
