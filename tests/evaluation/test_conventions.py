"""The numbers of a convention are those of the code that it is named after."""

import dataclasses
from unittest import mock

import numpy as np
import pytest
import torch
from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator
from sklearn.metrics import average_precision_score

from dmlbench.evaluation import conventions
from dmlbench.evaluation.conventions import (
    CONVENTIONS,
    DMLBENCH,
    FIELDS,
    Convention,
    explain,
    find_hits,
    score_under,
)
from dmlbench.evaluation.ranking import unit

KS = [1, 3, 50]
NUMBERS = {"abs": 1e-12, "nan_ok": True}


def random_case(seed):
    """Vectors, labels, and queries if they are other images. Few directions, and few images of a
    class: ties, duplicates and lone queries."""
    random = np.random.default_rng(seed)
    size, classes = random.integers(4, 40), random.integers(2, 12)
    angles = np.array([0, 20, -20, 50, 60, 90, 180, 200, 271])
    picks = np.deg2rad(random.choice(angles, size=size))
    picks[:2] = np.deg2rad([0, 50])  # not all the same
    vectors = unit(np.stack([np.cos(picks), np.sin(picks)], axis=1))
    labels = random.integers(0, classes, size=size)
    labels[-1] = labels[0]  # not all lone
    return (vectors, labels), (vectors[-2:], labels[-2:])


def similarities(vectors, queries):
    return (queries.astype(np.float64) @ vectors.astype(np.float64).T).astype(np.float32)


def by_metric(convention, hits):
    return {number.name: number.value for number in explain(CONVENTIONS[convention], hits, KS)}


def pytorch_metric_learning(k, vectors, labels, queries=None):
    """Its numbers. Its search is given the order of ties, which faiss leaves open."""

    def neighbours(query, k, reference, ref_includes_query):
        similarity = similarities(reference.numpy(), query.numpy())
        if ref_includes_query:
            np.fill_diagonal(similarity, -np.inf)
        order = np.argsort(-similarity, axis=1, kind="stable")
        return torch.zeros(len(order), k), torch.tensor(order[:, :k])

    calculator = AccuracyCalculator(
        include=tuple(CONVENTIONS["pml"].names.values()),
        k=k,
        knn_func=neighbours,
        device=torch.device("cpu"),
    )
    torch.set_default_dtype(torch.float64)  # for its reciprocal ranks
    try:
        if queries is None:
            return calculator.get_accuracy(vectors, labels)
        return calculator.get_accuracy(*queries, vectors, labels)
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize(("name", "k"), [("pml", None), ("musgrave", "max_bin_count")])
def test_the_numbers_are_those_of_pytorch_metric_learning_on_200_cases_with_ties(name, k):
    for seed in range(200):
        (vectors, labels), queries = random_case(seed)
        others = queries if seed % 4 == 0 else None
        expected = pytorch_metric_learning(k, vectors, labels, others)
        result = by_metric(name, find_hits(vectors, labels, others))
        assert result == pytest.approx(expected, **NUMBERS), seed


def test_the_numbers_are_those_of_pytorch_metric_learning_s_own_search_without_ties(clusters):
    embeddings, labels = clusters(300, 25)
    vectors = unit(embeddings)
    calculator = AccuracyCalculator(
        include=("precision_at_1", "mean_average_precision_at_r", "r_precision"),
        k="max_bin_count",
        device=torch.device("cpu"),
    )
    expected = calculator.get_accuracy(vectors, labels)
    result = by_metric("musgrave", find_hits(vectors, labels))
    assert {name: result[name] for name in expected} == pytest.approx(expected, abs=1e-12)


def test_the_average_precision_is_that_of_scikit_learn_on_200_cases_with_ties():
    for seed in range(200):
        (vectors, labels), _ = random_case(seed)
        similarity, values = similarities(vectors, vectors), []
        for query in range(len(labels)):
            others = np.arange(len(labels)) != query
            match = labels[others] == labels[query]
            if match.any():
                values.append(average_precision_score(match, similarity[query, others]))
        result = by_metric("sklearn", find_hits(vectors, labels))
        expected = {"average_precision_score": np.mean(values)}
        assert result == pytest.approx(expected, abs=1e-12), seed


def test_dmlbench_s_convention_gives_dmlbench_s_numbers(scores):
    for seed in range(60):
        (vectors, labels), _ = random_case(seed)
        with mock.patch.object(conventions, "BLOCK", 100):
            result = by_metric("dmlbench", find_hits(vectors, labels))
        expected = scores(vectors, labels, recall_at=KS)
        assert result == pytest.approx({name: expected[name] for name in result}, abs=1e-12), seed


def first_hit_dropped(vectors, labels):
    """Whether each image in each ranking is of the query's class, without the first one."""
    order = np.argsort(-similarities(vectors, vectors), axis=1, kind="stable")
    return (labels[order] == labels[:, None])[:, 1:]


def test_the_numbers_of_rdml_equal_a_loop_over_rankings_without_their_first_hit():
    for seed in range(60):
        (vectors, labels), _ = random_case(seed)
        match, expected = first_hit_dropped(vectors, labels), {}
        for k in KS:
            expected[f"e_recall@{k}"] = np.mean([row[:k].any() for row in match])
        precisions = []
        for query, row in enumerate(match):
            size = np.count_nonzero(labels == labels[query])  # with the query itself
            hits = [sum(row[: i + 1]) / (i + 1) for i in range(min(size, len(row))) if row[i]]
            precisions.append(sum(hits) / size)
        expected["mAP_c"] = np.mean(precisions)
        result = by_metric("rdml", find_hits(vectors, labels))
        assert result == pytest.approx(expected, abs=1e-12), seed


def test_the_recall_of_mieb_leaves_lone_queries_out_and_drops_the_first_hit():
    for seed in range(60):
        (vectors, labels), _ = random_case(seed)
        match = first_hit_dropped(vectors, labels)
        answered = [
            row for row, label in zip(match, labels, strict=True) if sum(labels == label) > 1
        ]
        expected = {f"cv_recall@{k}": np.mean([row[:k].any() for row in answered]) for k in KS}
        assert by_metric("mieb", find_hits(vectors, labels)) == pytest.approx(expected, abs=1e-12)


def test_the_map_at_k_of_oml_is_divided_by_the_smaller_of_r_and_k():
    for seed in range(60):
        (vectors, labels), _ = random_case(seed)
        similarity, expected = similarities(vectors, vectors), {}
        np.fill_diagonal(similarity, -np.inf)
        order = np.argsort(-similarity, axis=1, kind="stable")[:, :-1]
        match = labels[order] == labels[:, None]
        for k in KS:
            expected[f"cmc@{k}"] = np.mean([row[:k].any() for row in match])
            values = []
            for row in match:
                hits = [sum(row[: i + 1]) / (i + 1) for i in range(min(k, len(row))) if row[i]]
                if row.any():
                    values.append(sum(hits) / min(k, sum(row)))
            expected[f"map@{k}"] = np.mean(values)
        result = by_metric("oml", find_hits(vectors, labels))
        assert result == pytest.approx(expected, abs=1e-12), seed


def test_dropping_the_first_hit_raises_recall_where_duplicates_have_two_classes():
    # each image is there twice, in two classes: the nearest other image is always wrong
    images = np.repeat(np.random.default_rng(0).normal(size=(20, 8)), 2, axis=0)
    hits = find_hits(unit(images), np.arange(40) % 2)
    assert by_metric("dmlbench", hits)["recall@1"] == 0
    assert by_metric("rdml", hits)["e_recall@1"] == 0.5  # the second of two finds itself
    (number,) = (n for n in explain(CONVENTIONS["rdml"], hits, [1]) if n.name == "e_recall@1")
    assert (number.ours, number.our_value) == ("recall@1", 0)
    assert number.effects["self_match"] == 0.5
    assert number.rest == 0


def test_effects_and_rest_sum_to_the_difference_from_dmlbench():
    for seed in range(20):
        (vectors, labels), _ = random_case(seed)
        hits = find_hits(vectors, labels)
        for convention in CONVENTIONS.values():
            for number in explain(convention, hits, KS):
                difference = number.value - number.our_value
                total = sum(number.effects.values()) + number.rest
                assert total == pytest.approx(difference, abs=1e-12)
    assert not any(number.effects for number in explain(DMLBENCH, hits, KS))


def test_an_effect_is_that_of_one_field_alone():
    (vectors, labels), _ = random_case(3)
    hits, rdml = find_hits(vectors, labels), CONVENTIONS["rdml"]
    for number in explain(rdml, hits, KS):
        for field, effect in number.effects.items():
            changed = dataclasses.replace(DMLBENCH, **{field: getattr(rdml, field)})
            alone = score_under(changed, hits, KS)[number.ours]
            assert effect == alone - number.our_value


def test_fields_are_what_conventions_differ_in():
    fields = {field.name for field in dataclasses.fields(Convention)}
    assert {*FIELDS} == fields - {"source", "names"}
