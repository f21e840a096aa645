"""The scores of a run that trained several models: of each model alone, and of all side by side.

Source: Musgrave, Belongie, Lim: A Metric Learning Reality Check, ECCV 2020.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from dmlbench.evaluation.evaluate import QueryScores, Scores
from dmlbench.evaluation.ranking import UnusableEmbeddings, unit
from dmlbench.study.reality_check import CONCATENATED, SEPARATED, scored_as


def score_models(
    embeddings: NDArray[np.floating], models: int, score: Callable[[NDArray[np.float32]], Scores]
) -> Scores:
    """Score the embeddings of several models, concatenated and separated.

    Concatenated: the embeddings of an image by all models, each scaled to unit length, stand side
    by side. Separated: each score is the mean of the scores of the models. One model has the same
    scores in both ways.

    Args:
        embeddings: (N, models * D), those of the first model in the first D columns.
        score: gives what `evaluate` gives for embeddings (N, D) of any D.

    Returns:
        As `evaluate`. The names of the protocols end with "concatenated" and "separated".

    Raises:
        UnusableEmbeddings: no metric is defined on the embeddings of a model.

    >>> def score(embeddings):
    ...     row = {"protocol": "p", "metric": "m", "value": float(embeddings[0, 0])}
    ...     return Scores([row], [])
    >>> for row in score_models(np.array([[4.0, 3.0, 0.0, 5.0], [0, 1, 1, 0]]), 2, score).rows:
    ...     print(row["protocol"], round(row["value"], 4))
    p concatenated 0.5657
    p separated 0.4
    """
    parts = [*_unit_parts(embeddings, models)]
    together = score(unit(np.concatenate(parts, axis=1)))
    alone = [score(part) for part in parts] if models > 1 else [together]
    values: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
    for scores in alone:
        for row in scores.rows:
            values[row["protocol"], row["metric"]].append(row["value"])
    rows = [
        *({**row, "protocol": scored_as(row["protocol"], CONCATENATED)} for row in together.rows),
        *(
            {
                "protocol": scored_as(protocol, SEPARATED),
                "metric": metric,
                "value": float(np.mean(of_models)),
            }
            for (protocol, metric), of_models in values.items()
        ),
    ]
    queries = [
        of_all._replace(protocol=scored_as(of_all.protocol, CONCATENATED))
        for of_all in together.queries
    ]
    of_models = zip(*(scores.queries for scores in alone), strict=True)
    return Scores(rows, queries + [_mean_of_queries(of_each) for of_each in of_models])


def _mean_of_queries(of_each: Sequence[QueryScores]) -> QueryScores:
    """The mean over the models of each score of a query."""
    first = of_each[0]
    return first._replace(
        protocol=scored_as(first.protocol, SEPARATED),
        map_at_r=np.mean([scores.map_at_r for scores in of_each], axis=0),
        recall_at_1=np.mean([scores.recall_at_1 for scores in of_each], axis=0),
    )


def _unit_parts(embeddings: NDArray[np.floating], models: int) -> Iterator[NDArray[np.float32]]:
    for number, part in enumerate(np.split(embeddings, models, axis=1), start=1):
        try:
            yield unit(part)
        except UnusableEmbeddings as error:
            if models == 1:
                raise
            raise UnusableEmbeddings(f"model {number} of {models}: {error}") from None
