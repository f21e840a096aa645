import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dmlbench.evaluation.neighbours import (
    BLOCK,
    SLACK,
    UnusableEmbeddings,
    nearest_neighbours,
    omp_threads,
    unit,
)


def slow_neighbours(queries, query_ids, gallery, gallery_ids, k):
    """One query at a time in float64: by falling similarity, then rising id."""
    lists = np.full((len(queries), k), -1)
    for row, (query, own) in enumerate(zip(queries, query_ids, strict=True)):
        others = [
            (-round(float(np.dot(query.astype(float), image.astype(float))), 6), number, place)
            for place, (image, number) in enumerate(zip(gallery, gallery_ids, strict=True))
            if number != own
        ]
        found = [place for _, _, place in sorted(others)[:k]]
        lists[row, : len(found)] = found
    return lists


def test_unit_scales_rows_to_length_one_whatever_their_size():
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


@given(data=st.data(), size=st.integers(2, 25), k=st.integers(1, 12))
@settings(max_examples=150, deadline=None)
def test_equals_the_slow_search_with_duplicates_and_any_overlap_of_query_and_gallery(data, size, k):
    # Few distinct, well separated directions: many exact ties, no near ones. At most SLACK equal
    # images, beyond which the choice among ties at rank k is left open.
    angles = np.deg2rad(np.arange(0, 360, 7) ** 1.03)
    pick = st.lists(st.integers(0, len(angles) - 1), min_size=size, max_size=size)
    usable = pick.filter(lambda p: len(set(p)) > 1 and max(map(p.count, p)) <= SLACK)
    picks = np.array(data.draw(usable))
    images = unit(np.stack([np.cos(angles[picks]), np.sin(angles[picks])], axis=1))
    ids = np.array(data.draw(st.permutations(range(100, 100 + size))))
    queries = np.array(data.draw(st.lists(st.integers(0, size - 1), min_size=1, unique=True)))
    gallery = np.array(data.draw(st.lists(st.integers(0, size - 1), min_size=1, unique=True)))
    arguments = images[queries], ids[queries], images[gallery], ids[gallery], k
    np.testing.assert_array_equal(nearest_neighbours(*arguments), slow_neighbours(*arguments))


def test_the_query_is_excluded_by_identity_among_its_own_duplicates():
    images = unit(np.array([[1.0, 0.0]] * 30 + [[0.0, 1.0]]))
    ids = np.arange(31)
    found = nearest_neighbours(images, ids, images, ids, k=3)
    assert not np.any(found == ids[:, None])
    assert np.all(found[:30] < 30)  # the duplicates, not the other image


def test_a_gallery_that_is_too_small_leaves_gaps():
    images = unit(np.eye(3))
    ids = np.arange(3)
    found = nearest_neighbours(images, ids, images, ids, k=4)
    assert np.all(np.sort(found, axis=1) == [[-1, -1, 1, 2], [-1, -1, 0, 2], [-1, -1, 0, 1]])
    assert np.all(found[:, 2:] == -1)


@pytest.mark.parametrize("k", [10, 150])  # faiss keeps a heap below 100, a reservoir above
def test_the_order_is_the_same_for_any_number_of_threads_with_duplicates(k):
    rng = np.random.default_rng(1)
    images = unit(np.repeat(rng.normal(size=(600, 128)), 4, axis=0)[rng.permutation(2400)])
    ids = np.arange(2400)
    assert len(images) > BLOCK
    one = nearest_neighbours(images, ids, images, ids, k, threads=1)
    np.testing.assert_array_equal(one, nearest_neighbours(images, ids, images, ids, k, threads=2))
    similarity = np.einsum("nd,nkd->nk", images, images[one], dtype=np.float64).astype(np.float32)
    step = np.diff(similarity, axis=1)
    assert np.all((step < 0) | ((step == 0) & (np.diff(one, axis=1) > 0)))


def test_the_number_of_threads_of_the_process_is_restored():
    before = faiss.omp_get_max_threads()
    with omp_threads(before + 1):
        assert faiss.omp_get_max_threads() == before + 1
    assert faiss.omp_get_max_threads() == before
