"""H-AP, ASI, NDCG and recall by level equal their definitions, written as loops in float64."""

import math
import tracemalloc
from unittest import mock

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from dmlbench.evaluation import numpy_blocks, numpy_near, numpy_ranking
from dmlbench.evaluation.ranking import rank, unit
from dmlbench.evaluation.retrieval import mean_average_precision

DIRECTIONS = np.deg2rad([0, 10, -10, 10.05, 30, 30.2, 77, 180, -179.9, 55, 120, 121, 200])
"""Few: duplicates, and mirrored ones, which tie but for rounding."""


def on_circle(picks):
    angles = DIRECTIONS[picks]
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


def ranked_gallery(vectors, query, gallery):
    """By falling similarity in float64, rounded to float32, then by row; without the query."""
    others = [g for g in gallery if g != query]
    exact = vectors.astype(np.float64)
    return sorted(others, key=lambda g: (-np.float32(exact[query] @ exact[g]), g))


def grades_of(levels, query, ranked):
    """L if the image shares levels[0], L - 1 if levels[1] is the nearest that it shares, ..."""
    grades = []
    for image in ranked:
        shared = [level for level, of in enumerate(levels) if of[image] == of[query]]
        grades.append(len(levels) - shared[0] if shared else 0)
    return grades


def slow_h_ap(grades, levels):
    relevance = [g / levels / grades.count(g) if g else 0.0 for g in grades]
    total = 0.0
    for k, own in enumerate(relevance):
        if own:
            total += sum(min(own, other) for other in relevance[: k + 1]) / (k + 1)
    return total / math.fsum(relevance)


def slow_asi(grades):
    """An ideal ranking may have images of one grade in any order: the best one counts."""
    ideal, size = sorted(grades, reverse=True), sum(g > 0 for g in grades)
    total = 0.0
    for depth in range(1, size + 1):
        found, best = grades[:depth], ideal[:depth]
        total += sum(min(found.count(g), best.count(g)) for g in {*best}) / depth
    return total / size


def slow_ndcg(grades):
    def gain(ranking):
        return math.fsum((2**g - 1) / math.log2(1 + r) for r, g in enumerate(ranking, 1))

    return gain(grades) / gain(sorted(grades, reverse=True))


def slow_metrics(vectors, levels, queries, gallery, ks):
    """Means over queries, by metric. `levels` are the classes, then super-classes by name."""
    values = {name: [] for name in ("h_ap", "asi", "ndcg")}
    recalls = {(k, name): [] for k in ks for name in [*levels][1:]}
    for query in queries:
        ranked = ranked_gallery(vectors, query, gallery)
        grades = grades_of([*levels.values()], query, ranked)
        if any(grades):
            values["h_ap"].append(slow_h_ap(grades, len(levels)))
            values["asi"].append(slow_asi(grades))
            values["ndcg"].append(slow_ndcg(grades))
        for (k, name), hits in recalls.items():
            of_level = levels[name]
            match = [of_level[g] == of_level[query] for g in ranked]
            if any(match):
                hits.append(any(match[:k]))
    by_level = {f"recall@{k} {name}": np.mean(hits) for (k, name), hits in recalls.items()}
    return by_level | {name: np.mean(of_queries) for name, of_queries in values.items()}


@pytest.mark.parametrize("tree", [True, False], ids=["a tree", "levels that do not nest"])
@given(
    data=st.data(),
    size=st.integers(3, 24),
    chunk=st.sampled_from([1, 60, 2**18]),
    few=st.sampled_from([0, 10, 100]),
)
@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_the_metrics_equal_their_definitions_with_ties_lone_queries_and_roles(
    scores, tree, data, size, chunk, few
):
    def column(values):
        return np.array(data.draw(st.lists(values, min_size=size, max_size=size)))

    picks, labels = column(st.integers(0, len(DIRECTIONS) - 1)), column(st.integers(0, 6))
    roles = column(st.sampled_from(["both", "both", "query", "gallery"]))
    queries, gallery = np.flatnonzero(roles != "gallery"), np.flatnonzero(roles != "query")
    assume(len(set(picks)) > 1)
    assume(any(labels[q] == labels[g] and q != g for q in queries for g in gallery))
    near = np.array([*"aabbccc"])
    far = np.array([*"xxxxyyy"] if tree else [*"xyxyxyx"])
    levels = {"level_1": near[labels], "level_2": far[labels]}
    if not tree and data.draw(st.booleans()):  # nor are the images of a class in one super-class
        levels["level_1"] = near[column(st.integers(0, 6))]

    vectors, ks = on_circle(picks), [1, 3, 30]
    rows = [("p", *row, 0) for row in enumerate(roles)]
    with (
        mock.patch.object(numpy_blocks, "CHUNK", chunk),
        mock.patch.multiple(numpy_near, FEW=few, BUCKETS=8, PER_IMAGE=1),
    ):
        result = scores(vectors, labels, rows, levels, recall_at=ks)
    expected = slow_metrics(unit(vectors), {"": labels, **levels}, queries, gallery, ks)
    found = {name: result[name] for name in expected}
    assert found == pytest.approx(expected, abs=1e-12, nan_ok=True)
    flat = scores(vectors, labels, rows, recall_at=ks)
    assert flat.keys() == result.keys() - expected.keys()
    assert flat.items() <= result.items()


@pytest.mark.parametrize("spread", [0.02, 0.5, 8.0], ids=["almost collapsed", "good", "random"])
def test_the_metrics_equal_their_definitions_on_many_images(clusters, spread):
    embeddings, labels = clusters(1500, 40, dim=32, spread=spread)
    if spread < 0.1:
        embeddings = 1 + 0.002 * embeddings  # all similarities within a few rounding errors
    embeddings[::7] = embeddings[700]
    vectors, gallery, queries = unit(embeddings), np.arange(1500), np.arange(0, 1500, 190)
    levels = {"": labels, "near": labels // 4, "far": labels // 16}
    ranking = rank(vectors, labels, queries, gallery, levels=[levels["near"], levels["far"]])
    expected = slow_metrics(vectors, levels, queries, gallery, [1, 5])
    assert ranking.graded.means() == pytest.approx(
        {name: expected[name] for name in ("h_ap", "asi", "ndcg")}, abs=1e-12
    )
    for level, name in enumerate(("near", "far"), 1):
        assert ranking.graded.recall_at(5, level) == expected[f"recall@5 {name}"]
    flat = rank(vectors, labels, queries, gallery)
    np.testing.assert_array_equal(ranking.ranks, flat.ranks)
    np.testing.assert_array_equal(
        ranking.graded.first[0], flat.ranks[flat.counts.cumsum() - flat.counts]
    )


def test_h_ap_of_one_more_level_that_holds_nothing_else_is_the_average_precision(clusters):
    embeddings, labels = clusters(300, 12)
    rows = np.arange(300)
    ranking = rank(unit(embeddings), labels, rows, rows, levels=[labels])
    expected = mean_average_precision(ranking)
    assert ranking.graded.means()["h_ap"] == pytest.approx(expected, abs=1e-12)


def test_an_ideal_ranking_scores_one_and_the_opposite_one_less_in_every_metric(scores):
    labels = np.repeat(np.arange(6), 4)
    levels = {"level_1": labels // 2}
    ideal = np.eye(6)[labels] + 0.3 * np.eye(6)[labels // 2 * 2]
    result = scores(ideal, labels, levels=levels)
    names = ("h_ap", "asi", "ndcg", "recall@1 level_1")
    assert [result[name] for name in names] == pytest.approx([1, 1, 1, 1], abs=1e-12)
    assert max(result[name] for name in names) <= 1  # a result above 1 is refused as damaged
    wrong = scores(np.eye(4)[np.arange(24) % 4], labels, levels=levels)
    assert all(wrong[name] < 1 for name in names)


def test_a_wrong_image_of_the_super_class_costs_less_than_one_of_another(scores):
    labels, levels = [0, 0, 1, 1, 2, 2], {"level_1": [0, 0, 0, 0, 1, 1]}
    result = {}
    for name, nearest in {"fellow": 2, "stranger": 4}.items():
        angles = np.array([0, 40, 90, 91, 180, 181.0])
        angles[nearest] = 5
        vectors = np.stack([np.cos(np.deg2rad(angles)), np.sin(np.deg2rad(angles))], axis=1)
        result[name] = scores(vectors, labels, levels=levels)
    assert result["fellow"]["recall@1"] == result["stranger"]["recall@1"]
    for name in ("h_ap", "asi", "ndcg", "recall@1 level_1"):
        assert result["fellow"][name] > result["stranger"][name]


def test_a_query_that_is_alone_in_its_class_is_graded_by_its_super_class(scores):
    # the last image has no fellow at any level, the third only one of its super-class
    vectors = on_circle([0, 4, 1, 7])
    result = scores(vectors, [0, 0, 1, 2], levels={"level_1": [5, 5, 5, 6]})
    assert (result["lone_queries"], result["recall@1 level_1"]) == (2, 1)
    expected = [slow_h_ap(grades, 2) for grades in ([1, 2, 0], [1, 2, 0], [1, 1, 0])]
    assert result["h_ap"] == pytest.approx(np.mean(expected), abs=1e-15)


def test_many_ties_are_settled_for_a_block_of_queries_at_once(clusters):
    embeddings, labels = clusters(600, 30, dim=16)
    embeddings[::2] = embeddings[0]  # a network that has collapsed in part
    vectors, rows = unit(embeddings), np.arange(600)
    exact = numpy_blocks.exact_similarities
    with (
        mock.patch.object(numpy_blocks, "CHUNK", 60_000),
        mock.patch.object(numpy_blocks, "exact_similarities", wraps=exact) as products,
    ):
        ranking = rank(vectors, labels, rows, rows, levels=[labels // 5])
    queries = rows[::75]
    expected = slow_metrics(vectors, {"": labels, "near": labels // 5}, queries, rows, [1])
    some = rank(vectors, labels, queries, rows, levels=[labels // 5]).graded
    assert some.means() == pytest.approx({name: expected[name] for name in some.means()}, abs=1e-12)
    np.testing.assert_array_equal(ranking.graded.asi[queries], some.asi)
    assert 0 < products.call_count < 12  # blocks of queries with equally many graded images


def test_the_metrics_depend_neither_on_the_threads_nor_on_the_size_of_blocks(clusters):
    embeddings, labels = clusters(1200, 30, dim=32)
    embeddings[1::2] = embeddings[::2]  # of different classes
    rows, vectors, levels = np.arange(1200), unit(embeddings), [labels // 5]
    single = rank(vectors, labels, rows, rows, levels=levels)
    with (
        mock.patch.object(numpy_ranking, "BLOCK", 2**13),
        mock.patch.object(numpy_blocks, "CHUNK", 2**13),
    ):
        threaded = rank(vectors, labels, rows, rows, levels=levels, threads=2)
    np.testing.assert_array_equal(single.ranks, threaded.ranks)
    for values, again in zip(single.graded, threaded.graded, strict=True):
        np.testing.assert_array_equal(values, again)


def test_all_ranks_are_never_held_at_once(clusters):
    embeddings, labels = clusters(3000, 1500, dim=4)
    rows, vectors = np.arange(3000), unit(embeddings)
    with (
        mock.patch.object(numpy_ranking, "BLOCK", 2**16),
        mock.patch.object(numpy_blocks, "CHUNK", 2**13),
    ):
        tracemalloc.start()
        rank(vectors, labels, rows, rows, levels=[labels % 2])
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 3000**2 / 2  # the ranks of half of all pairs, 8 bytes each, take 8 times as much
