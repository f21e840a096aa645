import subprocess
import sys

import numpy as np
import pytest

from dmlbench.evaluation.evaluate import evaluate
from dmlbench.evaluation.ranking import UnusableEmbeddings

FRESH = """
import sys
import numpy as np
from dmlbench.evaluation.evaluate import evaluate
assert "faiss" not in sys.modules, "importing the package must stay cheap"
n = 40
ids, labels = np.arange(n), np.arange(n) % 5
result = evaluate(
    np.random.default_rng(0).normal(size=(n, 8)), ids, {"id": ids, "label": labels},
    {"protocol": ["p"] * n, "id": ids, "role": ["both"] * n, "repetition": ids * 0},
    {"recall_at": [1], "kmeans_seed": 0, "kmeans_iterations": 5, "kmeans_restarts": 1,
     "threads": 1},
)
assert len(result.rows) == 9
heavy = {"torch", "pandas", "scipy", "sklearn", "matplotlib"} & set(sys.modules)
assert not heavy, heavy
"""


def test_scoring_imports_neither_torch_nor_any_other_heavy_library():
    subprocess.run([sys.executable, "-c", FRESH], check=True)


def test_random_embeddings_score_at_chance(scores):
    classes, size = 50, 40
    labels = np.repeat(np.arange(classes), size)
    result = scores(np.random.default_rng(0).normal(size=(classes * size, 64)), labels)
    chance = (size - 1) / (classes * size - 1)
    deviation = np.sqrt(chance * (1 - chance) / len(labels))
    for k in (1, 2, 4, 8):
        assert result[f"recall@{k}"] == pytest.approx(1 - (1 - chance) ** k, abs=5 * k * deviation)
    assert result["r_precision"] == pytest.approx(chance, rel=0.1)
    assert result["map@r"] < chance / 4
    assert result["map"] == pytest.approx(chance, rel=0.25)
    assert result["nmi"] < 0.3
    assert abs(result["ami"]) < 0.02


def test_embeddings_that_encode_the_labels_score_one_in_every_metric(scores):
    labels = np.repeat(np.arange(30), 7)
    result = scores(np.eye(30)[labels], labels)
    assert {name for name, value in result.items() if value == 1} == {
        "recall@1", "recall@2", "recall@4", "recall@8", "map@r", "r_precision", "map", "mrr", "nmi",
        "ami",
    }  # fmt: skip


def test_scores_depend_neither_on_threads_nor_on_the_order_of_the_embeddings(
    scores, clusters, metric_settings
):
    embeddings, labels = clusters(1500, 20)
    embeddings[1::2] = embeddings[np.arange(750) // 4]  # duplicates, of different classes
    first = scores(embeddings, labels)
    assert first == scores(embeddings, labels, threads=2)

    order = np.random.default_rng(0).permutation(1500)
    ids = np.arange(1500)
    index = {"id": ids[order[::-1]], "label": labels[order[::-1]]}
    protocols = {
        "protocol": ["p"] * 1500,
        "id": order,
        "role": ["both"] * 1500,
        "repetition": ids * 0,
    }
    again = evaluate(embeddings[order], order, index, protocols, metric_settings)
    assert first == {row["metric"]: row["value"] for row in again.rows}


def test_the_query_is_excluded_and_not_one_of_its_duplicates(scores):
    # Each image exists twice, once in each class: the nearest other image is always wrong.
    images = np.repeat(np.random.default_rng(0).normal(size=(20, 8)), 2, axis=0)
    assert scores(images, [0, 1] * 20)["recall@1"] == 0
    # With both copies in one class, it is always right.
    assert scores(images, np.repeat(np.arange(20), 2))["recall@1"] == 1


def test_repetitions_are_averaged_and_protocols_are_scored_separately(clusters, metric_settings):
    embeddings, labels = clusters(60, 4)
    ids = np.arange(60)
    first = ["query"] * 20 + ["gallery"] * 40
    second = first[::-1]

    def run(rows):
        columns = {name: np.array(values) for name, values in rows.items()}
        result = evaluate(embeddings, ids, {"id": ids, "label": labels}, columns, metric_settings)
        return {(row["protocol"], row["metric"]): row["value"] for row in result.rows}

    def table(protocol, roles, repetition):
        return {
            "protocol": [protocol] * 60,
            "id": ids,
            "role": roles,
            "repetition": [repetition] * 60,
        }

    separate = [run(table("split", roles, 0)) for roles in (first, second)]
    tables = [table("split", first, 0), table("split", second, 1), table("whole", ["both"] * 60, 0)]
    together = run({name: np.concatenate([t[name] for t in tables]) for name in tables[0]})
    for key in separate[0]:
        assert together[key] == pytest.approx((separate[0][key] + separate[1][key]) / 2)
    assert separate[0]["split", "map@r"] != separate[1]["split", "map@r"]
    assert together["split", "queries"] == 20
    assert together["whole", "queries"] == 60


def test_single_queries_have_the_scores_of_the_first_protocol(clusters, metric_settings):
    """Bit for bit: the metric is their mean."""
    embeddings, labels = clusters(60, 4)
    labels[7] = 50  # a lone query
    ids = np.arange(100, 160)
    protocols = {
        "protocol": np.repeat(["first", "second"], [60, 20]),
        "id": np.concatenate([ids, ids[:20]]),
        "role": np.full(80, "both"),
        "repetition": np.zeros(80, int),
    }
    index = {"id": ids, "label": labels}
    result = evaluate(embeddings, ids, index, protocols, metric_settings)
    values = {(row["protocol"], row["metric"]): row["value"] for row in result.rows}
    (single,) = result.queries
    assert single.protocol == "first"
    assert (single.ids.tolist(), single.labels.tolist()) == (ids.tolist(), labels.tolist())
    assert np.isnan(single.map_at_r).nonzero()[0].tolist() == [7]
    assert single.recall_at_1[7] == 0
    assert single.map_at_r[np.arange(60) != 7].mean() == values["first", "map@r"]
    assert single.recall_at_1.mean() == values["first", "recall@1"]


def test_pairs_alone_have_no_queries(verify):
    _, ids, labels, pairs = verify
    empty = {name: np.array([], dtype=int) for name in ("protocol", "id", "role", "repetition")}
    index = {"id": ids, "label": labels}
    result = evaluate(np.eye(10)[labels], ids, index, empty, {}, pairs=pairs)
    assert result.queries == []
    assert {row["protocol"] for row in result.rows} == {"verification"}


@pytest.mark.parametrize(
    ("embedded", "labelled", "message"),
    [
        (np.arange(9), np.arange(10), "1 of 10 images have no embedding"),
        (np.arange(10), np.arange(8), "2 of 10 images have no label"),
        (np.array([*range(10), 3]), np.arange(10), "more than one embedding"),
    ],
)
def test_an_image_must_have_one_embedding_and_a_label(embedded, labelled, message):
    ids = np.arange(10)
    protocols = {"protocol": ["p"] * 10, "id": ids, "role": ["both"] * 10, "repetition": ids * 0}
    rows = np.random.default_rng(0).normal(size=(len(embedded), 4))
    with pytest.raises(ValueError, match=message):
        evaluate(rows, embedded, {"id": labelled, "label": labelled % 2}, protocols, {})


@pytest.mark.parametrize("embeddings", [np.full((6, 3), np.nan), np.ones((6, 3)), np.zeros((6, 3))])
def test_unusable_embeddings_get_no_score(scores, embeddings):
    with pytest.raises(UnusableEmbeddings):
        scores(embeddings, [0, 0, 0, 1, 1, 1])


@pytest.fixture
def verify(metric_settings):
    """Evaluate ten people with 6 images each: pairs only, or a retrieval protocol as well.

    The results are by protocol and metric.
    """
    ids, labels = np.arange(100, 160), np.repeat(np.arange(10), 6)
    first = np.repeat(ids, 2)
    second = ids.reshape(10, 6)[:, [1, 2, 3, 4, 5, 0]].reshape(-1)  # the person's next image
    second = np.stack([second, np.roll(ids, 25)], axis=1).reshape(-1)  # and one of another person
    same = labels[first - 100] == labels[second - 100]
    pairs = {"first": first, "second": second, "same": same, "fold": np.arange(120) // 2 % 5}

    def run(embeddings, chosen=slice(None), searched=(), partial=False):
        columns = {"protocol": ["p"] * len(searched), "id": np.array(searched, int)}
        columns |= {"role": ["both"] * len(searched), "repetition": np.zeros(len(searched), int)}
        index = {"id": ids, "label": labels}
        result = evaluate(
            embeddings[chosen],
            ids[chosen],
            index,
            columns,
            metric_settings,
            partial=partial,
            pairs=pairs,
        )
        return {(row["protocol"], row["metric"]): row["value"] for row in result.rows}

    return run, ids, labels, pairs


def test_pairs_are_verified_by_the_similarity_of_their_embeddings(verify):
    run, ids, labels, pairs = verify
    assert pairs["same"].mean() == 0.5
    random = np.random.default_rng(0)
    perfect, noise = np.eye(10)[labels], random.normal(size=(60, 10))
    assert run(perfect) == {
        ("verification", "verification_accuracy"): 1,
        ("verification", "verification_error"): 0,
        ("verification", "pairs"): 120,
    }
    assert run(noise)["verification", "verification_accuracy"] < 0.75
    shuffled = random.permutation(60)
    assert run(noise + perfect) == run(noise + perfect, shuffled)
    assert ("p", "map@r") in run(perfect, searched=ids)


def test_pairs_are_verified_if_both_of_their_images_are_embedded(verify):
    run, ids, labels, pairs = verify
    part = np.flatnonzero(labels < 5)
    both = np.isin(pairs["first"], ids[part]) & np.isin(pairs["second"], ids[part])
    result = run(np.eye(10)[labels], part, partial=True)
    assert result["verification", "pairs"] == both.sum() < 120
    with pytest.raises(ValueError, match="images have no embedding"):
        run(np.eye(10)[labels], part)
