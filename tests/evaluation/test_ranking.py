import tracemalloc
from unittest import mock

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dmlbench.evaluation import numpy_blocks, numpy_near, numpy_ranking
from dmlbench.evaluation.ranking import UnusableEmbeddings, rank, unit


def slow_ranks(vectors, labels, queries, gallery):
    """One query at a time in float64: by descending similarity, then ascending row."""
    vectors, gallery = vectors.astype(np.float64), np.asarray(gallery)
    for query in queries:
        others = gallery[gallery != query]
        similarity = np.einsum("nd,d->n", vectors[others], vectors[query]).astype(np.float32)
        ranked = others[np.lexsort((others, -similarity))]
        yield (1 + np.flatnonzero(labels[ranked] == labels[query])).tolist()


def by_query(ranking):
    return [of_query.tolist() for of_query in np.split(ranking.ranks, ranking.counts.cumsum())[:-1]]


def test_unit_scales_rows_of_any_length_to_length_one():
    rows = np.array([[3.0, 4.0], [-3e-20, 4e-20], [3e30, 4e30]], dtype=np.float32)
    np.testing.assert_allclose(unit(rows), [[0.6, 0.8], [-0.6, 0.8], [0.6, 0.8]], rtol=1e-6)
    assert unit(rows).dtype == np.float32


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_one_value_that_is_not_finite_is_refused(value):
    rows = np.eye(4)
    rows[2, 1] = value
    with pytest.raises(UnusableEmbeddings, match="1 of 4 embeddings hold NaN or infinity"):
        unit(rows)


def test_a_zero_vector_is_refused():
    with pytest.raises(UnusableEmbeddings, match="1 of 4 embeddings are the zero vector"):
        unit(np.diag([1.0, 1.0, 0.0, 1.0]))


@pytest.mark.parametrize("noise", [0.0, 1e-5], ids=["equal", "equal up to rounding"])
def test_collapsed_embeddings_are_refused(noise):
    rng = np.random.default_rng(0)
    rows = np.ones(8) * rng.uniform(1, 9, size=(50, 1)) + noise * rng.normal(size=(50, 8))
    with pytest.raises(UnusableEmbeddings, match="same vector"):
        unit(rows)


def test_close_but_distinct_embeddings_are_accepted():
    rng = np.random.default_rng(0)
    unit(np.ones(8) + 0.01 * rng.normal(size=(50, 8)))


@pytest.mark.parametrize("few", [0, 10_000], ids=["in buckets", "sorted at once"])
@given(data=st.data(), size=st.integers(2, 25))
@settings(max_examples=100, deadline=None)
def test_the_ranks_equal_a_slow_ranking_with_ties_and_any_overlap_of_query_and_gallery(
    few, data, size
):
    # Few directions: duplicates, mirrored ones (ties but for rounding), and lone classes.
    angles = np.deg2rad([0, 10, -10, 10.05, 30, 30.2, 77, 180, -179.9])
    picks = data.draw(
        st.lists(st.integers(0, len(angles) - 1), min_size=size, max_size=size).filter(
            lambda picks: len(set(picks)) > 1
        )
    )
    vectors = unit(np.stack([np.cos(angles[picks]), np.sin(angles[picks])], axis=1))
    labels = np.array(data.draw(st.lists(st.integers(0, 3), min_size=size, max_size=size)))
    rows = st.lists(st.integers(0, size - 1), min_size=1, unique=True).map(sorted).map(np.array)
    queries, gallery = data.draw(rows), data.draw(rows)
    with (
        mock.patch.object(numpy_ranking, "BLOCK", 60),
        mock.patch.object(numpy_blocks, "CHUNK", 40),
        mock.patch.multiple(numpy_near, FEW=few, BUCKETS=8, PER_IMAGE=1),
    ):
        ranking = rank(vectors, labels, queries, gallery)
    if ranking.counts.any():
        assert by_query(ranking) == list(slow_ranks(vectors, labels, queries, gallery))
    else:
        assert not len(ranking.ranks)


@pytest.mark.parametrize("few", [0, 100, 10_000], ids=["in buckets", "some", "sorted at once"])
@pytest.mark.parametrize("reach", [3, 300, 3e5], ids=["near ties only", "few", "no near ties"])
def test_buckets_keep_all_ties_and_count_the_other_values_above(reach, few):
    random, tie = np.random.default_rng(0), np.float32(2**-20)
    values = (0.2 + tie * random.uniform(0, reach, size=(200, 500))).astype(np.float32)
    values[::2] *= -1
    relevant = np.sort(random.permuted(values, axis=1)[:, :3])
    relevant[:100] = np.sort(values[:100])[:, -3:]  # few others are above them
    with mock.patch.multiple(numpy_near, FEW=few, BUCKETS=64):
        near = numpy_near.near_graded(values, relevant, tie)
    for row, (own, kept, buckets) in enumerate(zip(values, near.places, near.buckets, strict=True)):
        tied = np.abs(own[:, None] - relevant[row]) <= tie
        assert set(np.flatnonzero(tied.any(axis=1))) <= set(kept)
        np.testing.assert_array_equal(near.values[row], own[kept])
        others = np.delete(own, kept)
        above = (others[:, None] > own[kept]).sum(axis=0)
        np.testing.assert_array_equal(near.above[buckets], above)


def test_only_images_that_may_tie_are_sorted_among_many():
    random = np.random.default_rng(0)
    values = random.normal(size=(3, 20_000), scale=0.05).astype(np.float32)
    near = numpy_near.near_graded(values, np.sort(values[:, :20]), np.float32(1e-6))
    assert all(20 <= len(places) < 2_000 for places in near.places)


@pytest.mark.parametrize("spread", [0.02, 0.5, 8.0], ids=["almost collapsed", "good", "random"])
def test_the_ranks_equal_a_slow_ranking_on_many_images(clusters, spread):
    embeddings, labels = clusters(4000, 40, dim=64, spread=spread)
    if spread < 0.1:
        embeddings = 1 + 0.002 * embeddings  # all similarities within a few rounding errors
    embeddings[::7] = embeddings[700]
    vectors, queries = unit(embeddings), np.arange(0, 4000, 50)
    ranking = rank(vectors, labels, queries, np.arange(4000))
    assert by_query(ranking) == list(slow_ranks(vectors, labels, queries, range(4000)))


def test_only_the_query_itself_is_excluded_among_its_duplicates():
    vectors = unit(np.array([[1.0, 0.0]] * 3 + [[0.0, 1.0]]))
    ranking = rank(vectors, np.array([0, 1, 0, 1]), np.arange(4), np.arange(4))
    assert by_query(ranking) == [[2], [3], [1], [2]]


def test_r_excludes_the_query_only_if_it_is_in_the_gallery():
    vectors, labels = unit(np.eye(5)), np.array([0, 0, 1, 0, 2])
    ranking = rank(vectors, labels, np.array([0, 3, 4]), np.array([0, 1, 2]))
    np.testing.assert_array_equal(ranking.counts, [1, 2, 0])


@pytest.mark.parametrize("block", [2**13, 2**23])
def test_the_ranking_depends_neither_on_the_threads_nor_on_the_size_of_blocks(clusters, block):
    embeddings, labels = clusters(2400, 30, dim=128)
    embeddings[1::2] = embeddings[::2]  # of different classes
    rows, vectors = np.arange(2400), unit(embeddings)
    before = faiss.omp_get_max_threads()
    single = rank(vectors, labels, rows, rows)
    with mock.patch.object(numpy_ranking, "BLOCK", block):
        threaded = rank(vectors, labels, rows, rows, threads=2)
    for field in ("ranks", "counts"):
        np.testing.assert_array_equal(getattr(single, field), getattr(threaded, field))
    assert faiss.omp_get_max_threads() == before


def test_all_similarities_are_never_held_at_once(clusters):
    embeddings, labels = clusters(4000, 2000, dim=4)
    rows, vectors = np.arange(4000), unit(embeddings)
    with (
        mock.patch.object(numpy_ranking, "BLOCK", 2**16),
        mock.patch.object(numpy_blocks, "CHUNK", 2**14),
    ):
        tracemalloc.start()
        rank(vectors, labels, rows, rows)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 4000**2 / 4  # all of them, 4 bytes each, would take 16 times as much


def test_many_ties_are_settled_for_a_block_of_queries_at_once(clusters):
    embeddings, labels = clusters(1000, 30, dim=16)
    embeddings[::2] = embeddings[0]  # a network that has collapsed in part
    embeddings[1::4] = embeddings[1] + 1e-7 * embeddings[1::4]
    rows, vectors = np.arange(1000), unit(embeddings)
    exact = numpy_blocks.exact_similarities
    with (
        mock.patch.object(numpy_ranking, "BLOCK", 250_000),
        mock.patch.object(numpy_blocks, "exact_similarities", wraps=exact) as products,
    ):
        ranking = rank(vectors, labels, rows, rows)
    assert by_query(ranking) == list(slow_ranks(vectors, labels, rows, rows))
    assert 0 < products.call_count < 40  # blocks of queries with equally many relevant images
