"""queries.parquet: the scores of the single queries of a run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from dmlbench.evaluation.evaluate import QueryScores
from dmlbench.utils.arrow import repeat_text, to_table

MAKES_NUMBERS = False
"""The arithmetic is in evaluate.py."""


def write_query_scores(path: Path, scores: Sequence[QueryScores]) -> None:
    """Write one row for each protocol, repetition and query.

    Its columns are `protocol`, `repetition`, `id` (the row in the store's index.parquet), `class`
    (its label there), `map@r` (NaN for a lone query) and `recall@1`.
    """
    tables = [
        to_table(
            {
                "protocol": repeat_text(of.protocol, len(of.ids)),
                "repetition": of.repetition.astype(np.int32),
                "id": of.ids.astype(np.int32),
                "class": of.labels.astype(np.int32),
                "map@r": of.map_at_r,
                "recall@1": of.recall_at_1,
            }
        )
        for of in scores
    ]
    table = pa.concat_tables(tables).unify_dictionaries()
    pq.write_table(table, path, compression="zstd")


class ClassScores(NamedTuple):
    """What the queries of each class give to a score: sum of `totals` / sum of `weights`."""

    classes: NDArray[np.int64]
    """(C,) in ascending order."""
    weights: NDArray[np.float64]
    """(C,) the sum of the weights of their queries; those of a repetition have the sum 1."""
    totals: NDArray[np.float64]
    """(C,) the weighted sum of their scores."""


def read_class_scores(path: Path, protocol: str, metric: str = "map@r") -> ClassScores | None:
    """The scores of `protocol` by class; None if the file does not have this protocol.

    The score of a run is the mean over repetitions of the mean over queries.
    """
    with pq.ParquetFile(path, read_dictionary=["protocol"]) as file:
        table = file.read(["protocol", "repetition", "class", metric], use_threads=False)
    names = table["protocol"].unify_dictionaries().combine_chunks()
    if names.dictionary.to_pylist() != [protocol]:
        table = table.filter(pc.equal(names.cast(pa.string()), protocol))
    repetition, labels, values = (
        table[name].to_numpy() for name in ("repetition", "class", metric)
    )
    counts = ~np.isnan(values)
    if not counts.any():
        return None
    repetition, labels, values = repetition[counts], labels[counts], values[counts]
    # all repetitions have the same weight, whatever their number of queries
    weights = 1 / np.bincount(repetition)[repetition]
    classes, places = np.unique(labels, return_inverse=True)
    return ClassScores(
        classes.astype(np.int64),
        np.bincount(places, weights).astype(np.float64),
        np.bincount(places, weights * values).astype(np.float64),
    )
