"""`dmlbench.score_as` takes what `dmlbench.score` takes, and refuses in one sentence."""

import numpy as np
import pytest

import dmlbench
from dmlbench.utils.errors import InvalidArgument


@pytest.fixture
def embedded():
    random = np.random.default_rng(0)
    labels = np.repeat(np.arange(10), 6)
    return random.normal(size=(10, 8))[labels] + random.normal(size=(60, 8)), labels


def test_dmlbench_s_numbers_are_those_of_score(embedded):
    expected = dmlbench.score(*embedded, recall_at=[1, 5])
    numbers = dmlbench.score_as(*embedded, ["dmlbench"], recall_at=[1, 5])["dmlbench"]
    result = {number.name: number.value for number in numbers}
    assert result == pytest.approx({name: expected[name] for name in result}, abs=1e-12)


def test_queries_and_gallery_may_be_other_images_with_names_as_labels(embedded):
    embeddings, labels = embedded[0], np.array([f"class {label}" for label in embedded[1]])
    queries = {"query_embeddings": embeddings[::3].tolist(), "query_labels": labels[::3].tolist()}
    expected = dmlbench.score(embeddings, labels, **queries)
    numbers = dmlbench.score_as(embeddings, labels, ["dmlbench", "rdml"], **queries)
    for number in numbers["dmlbench"]:
        assert number.value == pytest.approx(expected[number.name], abs=1e-12)
    recall = numbers["rdml"][0]  # a query that is not in the gallery is not dropped from it
    assert recall.value == recall.our_value == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"conventions": ["pmll"]}, "conventions: no convention 'pmll'. Did you mean 'pml'?"),
        ({"labels": [0, 1]}, r"labels: their shape is \(2,\)"),
        ({"labels": np.arange(60)}, "no two embeddings share a class"),
        ({"embeddings": np.zeros((60, 2))}, "60 of 60 embeddings are the zero vector"),
        ({"recall_at": []}, "recall_at: it is empty"),
        ({"query_labels": [1]}, "query_embeddings: missing"),
        ({"query_embeddings": [[1.0, 2]], "query_labels": [1]}, "2 dimensions .* Both need"),
    ],
)
def test_what_cannot_be_scored_is_refused_by_name(embedded, change, message):
    arguments = {"embeddings": embedded[0], "labels": embedded[1], "conventions": ["pml"]} | change
    with pytest.raises(InvalidArgument, match=message):
        dmlbench.score_as(**arguments)
