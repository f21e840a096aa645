import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from dmlbench.evaluation.retrieval import (
    map_at_r,
    r_precision,
    recall_at,
    relevance,
    relevant_counts,
)


def on_circle(degrees):
    return np.stack([np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))], axis=1)


def slow_metrics(vectors, labels, queries, gallery, ks):
    """The definitions, in loops and float64. An image is its row."""
    recall, precision, average = {k: [] for k in ks}, [], []
    for q in queries:
        others = [g for g in gallery if g != q]
        ranked = sorted(others, key=lambda g: (-round(float(vectors[q] @ vectors[g]), 6), g))
        match = [labels[g] == labels[q] for g in ranked]
        for k in ks:
            recall[k].append(any(match[:k]))
        if r := sum(match):
            precision.append(sum(match[:r]) / r)
            average.append(sum(sum(match[: i + 1]) / (i + 1) for i in range(r) if match[i]) / r)
    return {
        **{f"recall@{k}": np.mean(recall[k]) for k in ks},
        "r_precision": np.mean(precision),
        "map@r": np.mean(average),
        "queries": len(queries),
        "lone_queries": len(queries) - len(precision),
    }


def test_six_angles_give_the_published_check_values(scores):
    found = scores(on_circle([0, 10, 25, 30, 60, 200]), [0, 0, 1, 0, 1, 1])
    assert found["recall@1"] == 0.5
    assert found["r_precision"] == pytest.approx(0.4166667, abs=1e-7)
    assert found["map@r"] == pytest.approx(0.3333333, abs=1e-7)


def test_a_match_at_ranks_one_and_three_of_three_gives_five_ninths():
    relevant, counts = np.array([[True, False, True]]), np.array([3])
    assert map_at_r(relevant, counts) == pytest.approx(5 / 9, abs=1e-15)
    assert r_precision(relevant, counts) == pytest.approx(2 / 3, abs=1e-15)


def test_matches_beyond_rank_r_count_for_recall_only():
    relevant, counts = np.array([[False, True, True]]), np.array([1])
    assert (map_at_r(relevant, counts), r_precision(relevant, counts)) == (0, 0)
    assert [recall_at(k, relevant) for k in (1, 2, 3)] == [0, 1, 1]


def test_a_lone_query_misses_its_recall_and_is_left_out_of_the_rest(scores):
    found = scores(on_circle([0, 1, 90]), [0, 0, 1])
    assert found["recall@1"] == pytest.approx(2 / 3)
    assert (found["map@r"], found["r_precision"]) == (1, 1)
    assert (found["queries"], found["lone_queries"]) == (3, 1)


def test_no_query_with_a_match_is_an_error(scores):
    with pytest.raises(ValueError, match="no query has an image of its class"):
        scores(on_circle([0, 40, 90]), [0, 1, 2])


def test_a_missing_neighbour_is_never_relevant():
    nearest = np.array([[1, -1]])
    labels = np.array([5, 5])
    np.testing.assert_array_equal(relevance(nearest, labels[:1], labels), [[True, False]])


def test_r_counts_the_query_out_only_where_it_stands_in_the_gallery():
    counts = relevant_counts(
        np.array([1, 9, 4]), np.array([0, 0, 2]), np.array([1, 2, 3]), np.array([0, 0, 1])
    )
    np.testing.assert_array_equal(counts, [1, 2, 0])


@given(data=st.data(), size=st.integers(3, 20))
@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_equals_the_definitions_with_duplicates_lone_queries_and_separate_roles(scores, data, size):
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
    found = scores(vectors, labels, rows, recall_at=[1, 3, 30])
    expected = slow_metrics(vectors, labels, queries, gallery, ks=[1, 3, 30])
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-12)


def test_equals_pytorch_metric_learning(scores, clusters):
    torch = pytest.importorskip("torch")
    accuracy_calculator = pytest.importorskip("pytorch_metric_learning.utils.accuracy_calculator")
    embeddings, labels = clusters(800, 30)
    names = {
        "precision_at_1": "recall@1",
        "r_precision": "r_precision",
        "mean_average_precision_at_r": "map@r",
    }
    calculator = accuracy_calculator.AccuracyCalculator(include=tuple(names), k="max_bin_count")
    reference = calculator.get_accuracy(
        torch.nn.functional.normalize(torch.tensor(embeddings)), torch.tensor(labels)
    )
    found = scores(embeddings, labels)
    assert 0.2 < found["map@r"] < 0.8
    for theirs, ours in names.items():
        assert found[ours] == pytest.approx(reference[theirs], abs=1e-12), ours
