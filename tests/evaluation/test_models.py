"""Embeddings of several models: the mean of their scores, and the scores of all side by side."""

import functools

import numpy as np
import pytest
from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator

from dmlbench.evaluation.evaluate import evaluate
from dmlbench.evaluation.models import score_models
from dmlbench.evaluation.ranking import UnusableEmbeddings

MODELS, DIM = 4, 6


@pytest.fixture
def four(clusters):
    """Embeddings of four models, of different lengths: (N, 4 x 6), and labels (N,)."""
    random = np.random.default_rng(3)
    shared, labels = clusters(150, 9, DIM, spread=1.5)
    parts = [
        scale * (shared + random.normal(size=shared.shape)) for scale in (0.01, 1.0, 30.0, 400.0)
    ]
    return np.concatenate(parts, axis=1).astype(np.float32), labels


@pytest.fixture
def scored(metric_settings):
    """A function that scores embeddings of some models: {(protocol, metric): value}."""

    def run(embeddings, labels, models):
        ids = np.arange(len(labels))
        protocols = {
            "protocol": np.full(len(ids), "zero_shot"),
            "id": ids,
            "role": np.full(len(ids), "both"),
            "repetition": np.zeros(len(ids), int),
        }
        index = {"id": ids, "label": labels}
        score = functools.partial(
            evaluate, ids=ids, index=index, protocols=protocols, settings=metric_settings
        )
        scores = score_models(embeddings, models, score)
        values = {(row["protocol"], row["metric"]): row["value"] for row in scores.rows}
        for queries in scores.queries:
            of_queries = np.nanmean(queries.map_at_r)
            assert values[queries.protocol, "map@r"] == pytest.approx(of_queries, abs=1e-12)
        return values

    return run


def naive(vectors, labels):
    """R@1 and MAP@R in float64, by the definitions, one query after another."""
    vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    hits, precisions = [], []
    for query in range(len(labels)):
        others = np.delete(np.arange(len(labels)), query)
        order = others[np.argsort(-(vectors[others] @ vectors[query]), kind="stable")]
        relevant = labels[order] == labels[query]
        hits.append(float(relevant[0]))
        r, hits_so_far, precision = int(relevant.sum()), 0, 0.0
        for rank in range(1, r + 1):
            hits_so_far += relevant[rank - 1]
            precision += relevant[rank - 1] * hits_so_far / rank
        precisions.append(precision / r)
    return {"recall@1": np.mean(hits), "map@r": np.mean(precisions)}


def concatenate(embeddings):
    """Each model's embedding at unit length, side by side, in float64."""
    parts = np.split(embeddings.astype(np.float64), MODELS, axis=1)
    return np.concatenate([p / np.linalg.norm(p, axis=1, keepdims=True) for p in parts], axis=1)


@pytest.mark.parametrize("metric", ["recall@1", "map@r"])
def test_scores_equal_a_naive_loop(four, scored, metric):
    embeddings, labels = four
    values = scored(embeddings, labels, MODELS)
    alone = [naive(p.astype(float), labels)[metric] for p in np.split(embeddings, MODELS, axis=1)]
    assert max(alone) - min(alone) > 0.01, "the models must differ"
    assert values["zero_shot separated", metric] == pytest.approx(np.mean(alone), abs=1e-12)
    together = naive(concatenate(embeddings), labels)[metric]
    assert values["zero_shot concatenated", metric] == pytest.approx(together, abs=1e-12)
    raw = naive(embeddings.astype(float), labels)[metric]
    assert raw != pytest.approx(together, abs=1e-3), "lengths of the models must matter"


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("recall@1", "precision_at_1"),
        ("map@r", "mean_average_precision_at_r"),
        ("r_precision", "r_precision"),
    ],
)
def test_scores_equal_those_of_pytorch_metric_learning(four, scored, ours, theirs):
    """Its author's own protocol: k nearest of all others, by the distance of unit vectors."""
    embeddings, labels = four
    calculator = AccuracyCalculator(include=(theirs,), k="max_bin_count")

    def score(vectors):
        vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        return calculator.get_accuracy(vectors.astype(np.float32), labels)[theirs]

    values = scored(embeddings, labels, MODELS)
    alone = [score(part.astype(float)) for part in np.split(embeddings, MODELS, axis=1)]
    assert values["zero_shot separated", ours] == pytest.approx(np.mean(alone), abs=1e-6)
    together = score(concatenate(embeddings))
    assert values["zero_shot concatenated", ours] == pytest.approx(together, abs=1e-6)


def test_every_metric_of_the_data_set_is_given_in_both_ways(four, scored):
    embeddings, labels = four
    values = scored(embeddings, labels, MODELS)
    metrics = {
        way: {metric for protocol, metric in values if protocol == f"zero_shot {way}"}
        for way in ("concatenated", "separated")
    }
    assert metrics["concatenated"] == metrics["separated"] > {"nmi", "queries", "recall@8"}
    assert values["zero_shot separated", "queries"] == len(labels)


def test_one_model_has_the_same_scores_in_both_ways(four, scored):
    embeddings, labels = four
    values = scored(embeddings[:, :DIM], labels, 1)
    for (protocol, metric), value in values.items():
        assert protocol in ("zero_shot concatenated", "zero_shot separated")
        assert values["zero_shot concatenated", metric] == value
    assert values["zero_shot separated", "map@r"] == pytest.approx(
        naive(embeddings[:, :DIM].astype(float), labels)["map@r"], abs=1e-12
    )


def test_a_collapsed_model_is_named(four, scored):
    embeddings, labels = four
    embeddings[:, 2 * DIM : 3 * DIM] = 1.0
    with pytest.raises(UnusableEmbeddings, match=r"model 3 of 4: all 150 embeddings are the same"):
        scored(embeddings, labels, MODELS)
