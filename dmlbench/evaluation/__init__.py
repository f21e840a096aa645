"""Metrics: pure functions of embeddings and labels. numpy and faiss; torch on a GPU alone."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dmlbench.evaluation.clustering import ami, nmi
from dmlbench.evaluation.kmeans import kmeans
from dmlbench.evaluation.ranking import UnusableEmbeddings, rank, unit
from dmlbench.evaluation.retrieval import (
    map_at_r,
    mean_average_precision,
    mean_reciprocal_rank,
    r_precision,
    recall_at,
    recall_at_1_of,
)
from dmlbench.evaluation.verification import verification_accuracy

__all__ = ["UnusableEmbeddings", "evaluate"]


class Table(Protocol):
    """Columns by name: a dict of arrays, an Arrow table, a data frame."""

    def __getitem__(self, column: str, /) -> Any: ...


def evaluate(
    embeddings: ArrayLike,
    ids: ArrayLike,
    index: Table,
    protocols: Table,
    settings: Mapping[str, Any],
    partial: bool = False,
    pairs: Table | None = None,
    levels: Sequence[str] = (),
    device: str = "cpu",
) -> list[dict[str, Any]]:
    """Score `embeddings` (N, D) of the images `ids` (N,) under every protocol.

    `index` has the columns id and label, and `levels` names those of super-classes, if it has any;
    `protocols` has protocol, id, role (both, query or gallery) and repetition, whose values are
    averaged. `settings`: recall_at (list of K), kmeans_seed, kmeans_iterations, kmeans_restarts,
    threads. `partial`: score the images that have an embedding, where a part of the classes was
    embedded. `pairs`: first and second (ids), same (whether they are of one class) and fold, to be
    verified. `device`: "cpu", or where torch is to rank and to cluster, as "cuda".

    Returns rows {"protocol", "metric", "value"} with the metrics recall@K, "recall@1 <level>",
    map@r, r_precision, map, mrr, nmi and ami (over all images of the protocol, as many clusters as
    classes), queries and lone_queries (numbers of queries). Of pairs, the protocol is
    "verification", with verification_accuracy, verification_error (its standard error) and pairs
    (their number). Raises UnusableEmbeddings, or ValueError if an image of a protocol has no
    embedding or no label, or if no query has an image of its class in the gallery.
    """
    order = np.argsort(ids)  # so that no score depends on the order of the embeddings
    ids, vectors = np.asarray(ids)[order], unit(embeddings)[order]
    indexed = _rows(index["id"], ids, "label")
    labels = np.asarray(index["label"])[indexed]
    groups = {
        level: np.unique(np.asarray(index[level])[indexed], return_inverse=True)[1]
        for level in levels
    }
    name, image, role, repetition = (
        np.asarray(protocols[column]) for column in ("protocol", "id", "role", "repetition")
    )
    if partial:
        kept = np.isin(image, ids)
        name, image, role, repetition = name[kept], image[kept], role[kept], repetition[kept]
    clusterings: dict[bytes, dict[str, float]] = {}

    def score(queries: NDArray[np.integer], gallery: NDArray[np.integer]) -> dict[str, float]:
        """All metrics of one repetition, from one ranking and one clustering."""
        ranking = rank(vectors, labels, queries, gallery, settings["threads"], bool(groups), device)
        if not len(ranking.ranks):
            raise ValueError("no query has an image of its class in the gallery")
        images = np.union1d(queries, gallery)
        if images.tobytes() not in clusterings:  # repetitions often share their images
            clusters = kmeans(
                vectors[images],
                len(np.unique(labels[images])),
                settings["kmeans_seed"],
                settings["kmeans_iterations"],
                settings["kmeans_restarts"],
                settings["threads"],
                device,
            )
            clusterings[images.tobytes()] = {
                "nmi": nmi(labels[images], clusters),
                "ami": ami(labels[images], clusters),
            }
        return {
            **{f"recall@{k}": recall_at(k, ranking) for k in settings["recall_at"]},
            **{
                f"recall@1 {level}": recall_at_1_of(of_image, queries, gallery, ranking)
                for level, of_image in groups.items()
            },
            "map@r": map_at_r(ranking),
            "r_precision": r_precision(ranking),
            "map": mean_average_precision(ranking),
            "mrr": mean_reciprocal_rank(ranking),
            **clusterings[images.tobytes()],
            "queries": len(queries),
            "lone_queries": int(np.count_nonzero(ranking.counts == 0)),
        }

    rows = []
    for protocol in dict.fromkeys(name.tolist()):
        values = defaultdict(list)
        for number in np.unique(repetition[name == protocol]):
            here = (name == protocol) & (repetition == number)
            queries = np.unique(image[here & (role != "gallery")])
            gallery = np.unique(image[here & (role != "query")])
            for metric, value in score(
                _rows(ids, queries, "embedding"), _rows(ids, gallery, "embedding")
            ).items():
                values[metric].append(value)
        rows += [
            {"protocol": protocol, "metric": metric, "value": float(np.mean(numbers))}
            for metric, numbers in values.items()
        ]
    if pairs is not None:
        rows += _verify(vectors, ids, pairs, partial)
    return rows


def _verify(
    vectors: NDArray[np.float32], ids: NDArray[np.integer], pairs: Table, partial: bool
) -> list[dict[str, Any]]:
    """The rows of the pairs."""
    first, second, same, fold = (
        np.asarray(pairs[column]) for column in ("first", "second", "same", "fold")
    )
    if partial:
        kept = np.isin(first, ids) & np.isin(second, ids)
        first, second, same, fold = first[kept], second[kept], same[kept], fold[kept]
    left, right = (vectors[_rows(ids, images, "embedding")] for images in (first, second))
    similarity = np.einsum("nd,nd->n", left, right, dtype=np.float64)
    accuracy, error = verification_accuracy(similarity, same, fold)
    found = {"verification_accuracy": accuracy, "verification_error": error, "pairs": len(same)}
    return [
        {"protocol": "verification", "metric": metric, "value": float(value)}
        for metric, value in found.items()
    ]


def _rows(ids: ArrayLike, wanted: NDArray[np.integer], what: str) -> NDArray[np.integer]:
    """Where each wanted id stands in `ids`, which must be unique and hold them all."""
    ids = np.asarray(ids)
    order = np.argsort(ids)
    found = order[np.minimum(np.searchsorted(ids, wanted, sorter=order), len(ids) - 1)]
    missing = np.count_nonzero(ids[found] != wanted)
    if missing:
        raise ValueError(f"{missing} of {len(wanted)} images have no {what}")
    if np.any(np.diff(ids[order]) == 0):
        raise ValueError(f"an image has more than one {what}")
    return found
