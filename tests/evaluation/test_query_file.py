"""queries.parquet holds the scores of single queries, and gives those of classes."""

import numpy as np
import pandas as pd
import pytest

from dmlbench.evaluation.evaluate import QueryScores, evaluate
from dmlbench.evaluation.query_file import read_class_scores, write_query_scores


@pytest.fixture
def write(tmp_path):
    def run(*scores):
        path = tmp_path / "queries.parquet"
        write_query_scores(path, scores)
        return path

    return run


def queries(protocol="zero_shot", repetition=(0, 0, 0, 0), **changes):
    columns = {
        "ids": np.array([7, 3, 5, 9]),
        "labels": np.array([2, 0, 2, 1]),
        "map_at_r": np.array([0.5, 0.25, 1.0, np.nan]),
        "recall_at_1": np.array([1.0, 0.0, 1.0, 0.0]),
    }
    return QueryScores(protocol, np.array(repetition), **(columns | changes))


def test_the_file_is_a_table_that_pandas_reads(write):
    table = pd.read_parquet(write(queries()))
    assert [*table] == ["protocol", "repetition", "id", "class", "map@r", "recall@1"]
    assert table["id"].tolist() == [7, 3, 5, 9]
    assert table["class"].tolist() == [2, 0, 2, 1]
    assert table["map@r"].dtype == table["recall@1"].dtype == np.float64
    assert table["map@r"].tolist()[:3] == [0.5, 0.25, 1.0]
    assert set(table["protocol"].astype(str)) == {"zero_shot"}


def test_classes_sum_their_queries_and_lone_queries_do_not_count(write):
    scores = read_class_scores(write(queries()), "zero_shot")
    assert scores.classes.tolist() == [0, 2]
    assert (3 * scores.weights).tolist() == [1, 2]
    assert (3 * scores.totals).tolist() == [0.25, 1.5]
    recall = read_class_scores(write(queries()), "zero_shot", "recall@1")
    assert recall.totals.sum() / recall.weights.sum() == 0.5


def test_protocols_are_kept_apart(write):
    path = write(queries("a"), queries("b", map_at_r=np.zeros(4)))
    assert read_class_scores(path, "a").totals.sum() == pytest.approx(1.75 / 3)
    assert read_class_scores(path, "b").totals.sum() == 0
    assert read_class_scores(path, "c") is None


def test_repetitions_of_different_sizes_have_the_same_weight(write):
    values = np.array([0.2, 0.4, 0.6, 0.9])
    path = write(queries(repetition=(0, 0, 0, 1), map_at_r=values))
    scores = read_class_scores(path, "zero_shot")
    assert scores.totals.sum() / scores.weights.sum() == pytest.approx((0.4 + 0.9) / 2)


@pytest.mark.parametrize("metric", ["map@r", "recall@1"])
def test_classes_together_have_the_score_of_the_evaluation(
    clusters, metric_settings, write, metric
):
    embeddings, labels = clusters(120, 8)
    labels[5] = 99  # a lone query
    ids = np.arange(120)
    roles = np.where(ids % 3, "gallery", "query"), np.where(ids % 5, "gallery", "query")
    protocols = {
        "protocol": np.full(240, "split"),
        "id": np.tile(ids, 2),
        "role": np.concatenate(roles),
        "repetition": np.repeat([0, 1], 120),
    }
    index = {"id": ids, "label": labels}
    result = evaluate(embeddings, ids, index, protocols, metric_settings)
    values = {row["metric"]: row["value"] for row in result.rows}
    scores = read_class_scores(write(*result.queries), "split", metric)
    assert scores.totals.sum() / scores.weights.sum() == pytest.approx(values[metric], abs=1e-12)


def test_equal_scores_give_equal_bytes(write):
    assert write(queries()).read_bytes() == write(queries()).read_bytes()
