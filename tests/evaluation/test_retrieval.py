import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator

from dmlbench.evaluation.ranking import Ranking, unit
from dmlbench.evaluation.retrieval import (
    average_precision_at_r,
    mean_average_precision,
    mean_reciprocal_rank,
    r_precision,
    recall_at,
)

THEIRS = {
    "r_precision": "r_precision",
    "mean_average_precision_at_r": "map@r",
    "mean_average_precision": "map",
    "mean_reciprocal_rank": "mrr",
}


def on_circle(degrees):
    return np.stack([np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))], axis=1)


def slow_metrics(vectors, labels, queries, gallery, ks):
    """The definitions, as loops in float64."""
    recall, precision, at_r, average, reciprocal = {k: [] for k in ks}, [], [], [], []
    for q in queries:
        others = [g for g in gallery if g != q]
        ranked = sorted(others, key=lambda g: (-round(float(vectors[q] @ vectors[g]), 6), g))
        match = [labels[g] == labels[q] for g in ranked]
        for k in ks:
            recall[k].append(any(match[:k]))
        if r := sum(match):
            precision.append(sum(match[:r]) / r)
            ratios = [sum(match[: i + 1]) / (i + 1) if match[i] else 0 for i in range(len(match))]
            at_r.append(sum(ratios[:r]) / r)
            average.append(sum(ratios) / r)
            reciprocal.append(1 / (1 + match.index(True)))
    return {
        **{f"recall@{k}": np.mean(recall[k]) for k in ks},
        "r_precision": np.mean(precision),
        "map@r": np.mean(at_r),
        "map": np.mean(average),
        "mrr": np.mean(reciprocal),
        "queries": len(queries),
        "lone_queries": len(queries) - len(precision),
    }


def test_six_angles_give_the_published_check_values(scores):
    result = scores(on_circle([0, 10, 25, 30, 60, 200]), [0, 0, 1, 0, 1, 1])
    assert result["recall@1"] == 0.5
    assert result["r_precision"] == pytest.approx(0.4166667, abs=1e-7)
    assert result["map@r"] == pytest.approx(0.3333333, abs=1e-7)


def ranked(*ranks):
    """A ranking from the ranks of the relevant images of each query."""
    counts = np.array([len(of_query) for of_query in ranks])
    return Ranking(np.concatenate(ranks).astype(int), counts)


def test_the_metrics_of_three_matches_at_ranks_one_three_and_seven():
    ranking = ranked([1, 3, 7])
    assert average_precision_at_r(ranking).mean() == pytest.approx(5 / 9, abs=1e-15)
    assert r_precision(ranking) == pytest.approx(2 / 3, abs=1e-15)
    assert mean_average_precision(ranking) == pytest.approx((1 + 2 / 3 + 3 / 7) / 3, abs=1e-15)
    assert mean_reciprocal_rank(ranking) == 1


def test_matches_beyond_rank_r_count_only_for_recall_map_and_mrr():
    ranking = ranked([2])
    assert (average_precision_at_r(ranking).tolist(), r_precision(ranking)) == ([0], 0)
    assert [recall_at(k, ranking) for k in (1, 2, 3)] == [0, 1, 1]
    assert (mean_average_precision(ranking), mean_reciprocal_rank(ranking)) == (0.5, 0.5)


def test_each_query_has_the_same_weight_however_large_its_class_is():
    ranking = ranked([1, 2, 3, 4], [2], [], [3])
    assert mean_average_precision(ranking) == pytest.approx((1 + 1 / 2 + 1 / 3) / 3, abs=1e-15)
    assert mean_reciprocal_rank(ranking) == pytest.approx((1 + 1 / 2 + 1 / 3) / 3, abs=1e-15)
    assert average_precision_at_r(ranking).tolist() == [1, 0, 0]
    assert r_precision(ranking) == pytest.approx(1 / 3, abs=1e-15)
    assert recall_at(2, ranking) == 2 / 4


def test_a_lone_query_counts_as_a_miss_in_recall_and_is_left_out_of_other_metrics(scores):
    result = scores(on_circle([0, 1, 90]), [0, 0, 1])
    assert result["recall@1"] == pytest.approx(2 / 3)
    assert [result[name] for name in ("map@r", "r_precision", "map", "mrr")] == [1, 1, 1, 1]
    assert (result["queries"], result["lone_queries"]) == (3, 1)


def test_it_is_an_error_if_no_query_has_a_match(scores):
    with pytest.raises(ValueError, match="no query has an image of its class"):
        scores(on_circle([0, 40, 90]), [0, 1, 2])


@given(data=st.data(), size=st.integers(3, 20))
@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_the_metrics_equal_their_definitions_with_ties_lone_queries_and_roles(scores, data, size):
    def column(values):
        return np.array(data.draw(st.lists(values, min_size=size, max_size=size)))

    # Few distinct, well separated directions: exact ties, no near ones.
    picks, labels = column(st.integers(0, 12)), column(st.integers(0, 4))
    roles = column(st.sampled_from(["both", "query", "gallery"]))
    vectors = on_circle(np.arange(0, 13) ** 1.9)[picks]
    queries, gallery = np.flatnonzero(roles != "gallery"), np.flatnonzero(roles != "query")
    assume(len(set(picks)) > 1)
    assume(any(labels[q] == labels[g] and q != g for q in queries for g in gallery))

    rows = [("p", row, role, 0) for row, role in enumerate(roles)]
    result = scores(vectors, labels, rows, recall_at=[1, 3, 30])
    expected = slow_metrics(vectors, labels, queries, gallery, ks=[1, 3, 30])
    assert {name: result[name] for name in expected} == pytest.approx(expected, abs=1e-12)


def pytorch_metric_learning(vectors, labels, queries, gallery):
    """The scores of pytorch-metric-learning, with neighbours in our order: its own breaks ties as
    faiss does.

    `gallery` is `queries` (then each query is left out of its own list), or other images.
    """
    vectors, same = unit(vectors).astype(np.float64), queries is gallery

    def neighbours(query, k, reference, ref_includes_query):
        lists = []
        for q in queries:
            others = gallery[gallery != q]
            similarity = (vectors[others] @ vectors[q]).astype(np.float32)
            lists.append(np.searchsorted(gallery, others[np.lexsort((others, -similarity))]))
        lists = torch.tensor(np.array(lists))
        assert ref_includes_query == same
        assert lists.shape[1] == k  # the whole gallery
        return torch.zeros(lists.shape), lists

    calculator = AccuracyCalculator(
        include=("precision_at_1", *THEIRS), knn_func=neighbours, device=torch.device("cpu")
    )
    torch.set_default_dtype(torch.float64)  # for its reciprocal ranks
    try:
        if same:
            return calculator.get_accuracy(vectors, labels)
        return calculator.get_accuracy(
            vectors[queries], labels[queries], vectors[gallery], labels[gallery]
        )
    finally:
        torch.set_default_dtype(torch.float32)


def assert_equal(result, reference):
    for theirs, ours in THEIRS.items():
        assert result[ours] == pytest.approx(reference[theirs], abs=1e-12), ours
    answered = result["recall@1"] * result["queries"] / (result["queries"] - result["lone_queries"])
    assert answered == pytest.approx(reference["precision_at_1"], abs=1e-12)


@given(data=st.data(), size=st.integers(3, 20), together=st.booleans())
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_the_metrics_equal_pytorch_metric_learning_s_with_ties_and_lone_queries(
    scores, data, size, together
):
    def column(values):
        return np.array(data.draw(st.lists(values, min_size=size, max_size=size)))

    picks, labels = column(st.integers(0, 8)), column(st.integers(0, 4))
    vectors = on_circle(np.array([0, 20, -20, 50, 60, 90, 180, 200, 271]))[picks]
    roles = column(st.sampled_from(["both"] if together else ["query", "gallery"]))
    queries, gallery = np.flatnonzero(roles != "gallery"), np.flatnonzero(roles != "query")
    assume(len(set(picks)) > 1)
    assume(any(labels[q] == labels[g] and q != g for q in queries for g in gallery))
    result = scores(vectors, labels, [("p", row, role, 0) for row, role in enumerate(roles)])
    gallery = queries if together else gallery
    assert_equal(result, pytorch_metric_learning(vectors, labels, queries, gallery))


def test_the_metrics_equal_pytorch_metric_learning_s_on_many_images(scores, clusters):
    embeddings, labels = clusters(800, 30)
    result = scores(embeddings, labels)
    assert 0.2 < result["map@r"] < result["map"] < result["mrr"] < 1
    rows = np.arange(800)
    assert_equal(result, pytorch_metric_learning(embeddings, labels, rows, rows))
