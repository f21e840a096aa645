"""`dmlbench.score_as`: the numbers of embeddings under the conventions of other codes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from dmlbench.evaluation.conventions import CONVENTIONS, Number, explain, find_hits
from dmlbench.evaluation.ranking import UnusableEmbeddings, unit
from dmlbench.library.scoring import check_embeddings, check_recall_at, number_classes
from dmlbench.utils.errors import InvalidArgument
from dmlbench.utils.text import did_you_mean

if TYPE_CHECKING:
    from dmlbench.library.scoring import Values

MAKES_NUMBERS = False


def score_as(
    embeddings: Values,
    labels: Values,
    conventions: Iterable[str],
    *,
    query_embeddings: Values | None = None,
    query_labels: Values | None = None,
    recall_at: Iterable[int] = (1, 2, 4, 8),
) -> dict[str, list[Number]]:
    """Score embeddings as other codes do, and say why their numbers differ from dmlbench's.

    Args:
        embeddings: (N, D), as for `dmlbench.score`.
        labels: (N,)
        conventions: names of `dmlbench.evaluation.conventions.CONVENTIONS`: dmlbench, pml,
            musgrave, oml, rdml, mieb, sklearn.
        query_embeddings: (Q, D), if the queries are other images than the gallery.
        query_labels: (Q,)
        recall_at: the K.

    Returns:
        Name of a convention -> its numbers: each has `name`, `value`, `ours` (the metric of
        dmlbench), `our_value` and `effects` (what each difference of convention does alone).

    Raises:
        InvalidArgument: no metric is defined on these arguments, or no convention has this name; it
            is a ValueError.

    >>> import numpy as np
    >>> embeddings = np.array([[1, 0], [1, 0], [0.9, 0.1], [0, 1]])  # the first two are equal
    >>> number = score_as(embeddings, [0, 1, 1, 0], ["rdml"])["rdml"][0]
    >>> number.name, number.value, number.our_value, number.effects["self_match"]
    ('e_recall@1', 0.25, 0.0, 0.25)
    """
    names = [*conventions]
    for name in names:
        if name not in CONVENTIONS:
            hint = did_you_mean(name, CONVENTIONS)
            raise InvalidArgument(f"conventions: no convention {name!r}. {hint}")
    ks = check_recall_at(recall_at)
    vectors, classes = check_embeddings("embeddings", embeddings, "labels", labels)
    size = len(vectors)
    if (query_embeddings is None) != (query_labels is None):
        missing = "query_labels" if query_labels is None else "query_embeddings"
        raise InvalidArgument(
            f"{missing}: missing. Queries need query_embeddings and query_labels."
        )
    inside = query_embeddings is None
    if not inside:
        more, more_classes = check_embeddings(
            "query_embeddings", query_embeddings, "query_labels", query_labels
        )
        if more.shape[1] != vectors.shape[1] or (more_classes.dtype.kind == "U") != (
            classes.dtype.kind == "U"
        ):
            raise InvalidArgument(
                f"query_embeddings: {more.shape[1]} dimensions with labels of type "
                f"{more_classes.dtype}, and the gallery has {vectors.shape[1]} with "
                f"{classes.dtype}. Both need the same."
            )
        vectors = np.concatenate([vectors, more])
        classes = np.concatenate([classes, more_classes])
    numbers = number_classes(classes, None if inside else size)
    try:
        vectors = unit(vectors)
    except UnusableEmbeddings as error:
        raise InvalidArgument(f"embeddings: {error}.") from None
    queries = None if inside else (vectors[size:], numbers[size:])
    hits = find_hits(vectors[:size], numbers[:size], queries)
    return {name: explain(CONVENTIONS[name], hits, ks) for name in names}
