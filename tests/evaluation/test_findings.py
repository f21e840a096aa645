import numpy as np
import pytest

from dmlbench.evaluation.findings import (
    Shape,
    embedding_shape,
    find_in_leaks,
    find_in_shape,
    find_pretraining,
)
from dmlbench.evaluation.leaks import Leaks


def unit_vectors(count, dim, seed=0):
    vectors = np.random.default_rng(seed).normal(size=(count, dim)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


class TestEmbeddingShape:
    def test_it_is_that_of_the_singular_values(self):
        vectors = unit_vectors(20_000, 6) * [1, 1, 0.5, 0.1, 1e-3, 0]
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        singular = np.linalg.svd(vectors.astype(np.float64), compute_uv=False)
        shares = singular[singular > 1e-9] / singular.sum()
        shape = embedding_shape(vectors)
        expected = np.exp(-np.sum(shares * np.log(shares)))
        assert shape.effective_rank == pytest.approx(expected, rel=1e-9)
        distances = ((vectors - vectors.mean(axis=0)) ** 2).sum(axis=1)
        assert shape.spread == pytest.approx(distances.mean(), rel=1e-6)

    def test_it_is_between_a_line_and_all_directions_alike(self):
        assert embedding_shape(np.eye(8)[[3, 3, 3]]).effective_rank == pytest.approx(1)
        assert embedding_shape(np.eye(8)).effective_rank == pytest.approx(8)


class TestFindInShape:
    @pytest.mark.parametrize(
        ("rank", "dim", "classes", "severity"),
        [(1.9, 16, 100, 2), (2.9, 16, 100, 1), (3.1, 16, 100, None), (6.3, 128, 200, 2),
         (19, 128, 200, 1), (20, 128, 200, None), (3.8, 128, 25, None), (3.7, 128, 25, 1),
         (2.0, 2, 100, None), (1.5, 2, 100, 2), (3.0, 64, 3, None), (2.0, 64, 2, None)],
    )  # fmt: skip
    def test_the_rank_is_compared_with_dimension_and_classes(self, rank, dim, classes, severity):
        found = [finding.severity for finding in find_in_shape(Shape(dim, rank, 0.5), classes)]
        assert found == ([] if severity is None else [severity])

    @pytest.mark.parametrize(
        ("spread", "severities"), [(9e-6, [3]), (9e-5, [2]), (9e-3, [1]), (0.02, [])]
    )
    def test_a_small_spread_is_found(self, spread, severities):
        findings = [*find_in_shape(Shape(16, 10.0, spread), 100)]
        assert [finding.severity for finding in findings] == severities
        assert {finding.name for finding in findings} <= {"small spread"}


class TestFindInLeaks:
    @pytest.mark.parametrize(("leaked", "severity"), [(1, 1), (9, 1), (10, 2), (1000, 2)])
    def test_many_near_duplicates_are_a_reason_to_doubt(self, leaked, severity):
        (finding,) = find_in_leaks(Leaks(1000, np.arange(leaked)), True)
        assert finding.severity == severity
        assert finding.message.startswith(f"{leaked:,} of 1,000 test images ({leaked / 1000:.2%})")

    def test_no_near_duplicate_is_no_finding(self):
        assert [*find_in_leaks(Leaks(1000, np.arange(0)), False)] == []

    def test_that_nobody_has_searched_is_a_finding(self):
        (finding,) = find_in_leaks(None, False)
        assert (finding.severity, finding.name) == (1, "near-duplicates not searched")


class TestFindPretraining:
    def test_the_names_of_some_classes_are_given(self):
        matches = {f"class {number}": f"n{number}" for number in range(7)}
        finding = find_pretraining("resnet.a1_in1k", ["imagenet1k"], 70, matches)
        assert finding.severity == 2
        assert finding.message.startswith("7 of 70 test classes have the name of a class")
        assert finding.message.endswith("class 4 (n4), and 2 more")

    def test_few_classes_ask_for_a_look(self):
        finding = find_pretraining("w", ["imagenet1k"], 70, {"lemon": "n07749582 lemon"})
        assert finding.severity == 1

    def test_no_common_class_is_no_finding(self):
        assert find_pretraining("w", ["imagenet1k"], 70, {}) is None

    def test_a_pretraining_that_is_not_known_is_a_note(self):
        assert find_pretraining("w", [], 70, {}).severity == 0
