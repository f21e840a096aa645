"""`dmlbench.score` gives the numbers of the workflow, whatever holds the embeddings."""

import contextlib
import inspect
import itertools
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch

import dmlbench
from dmlbench.datasets.store.part import Part
from dmlbench.evaluation.evaluate import Scores, evaluate
from dmlbench.library import scoring
from dmlbench.study.settings import Evaluation
from dmlbench.utils.errors import InvalidArgument, UserError

SETTINGS = {**Evaluation().model_dump(mode="json"), "recall_at": [1, 2, 4, 8]}


@pytest.fixture(scope="module")
def embedded():
    """Embeddings (120, 8), float32, and labels of 12 classes."""
    random = np.random.default_rng(0)
    labels = random.permutation(np.repeat(np.arange(12), 10))
    means = random.normal(size=(12, 8))
    return (means[labels] + random.normal(size=(120, 8))).astype(np.float32), labels


@pytest.fixture(scope="module")
def expected(embedded):
    return dmlbench.score(*embedded)


def by_metric(scores, protocol=None):
    rows = [row for row in scores.rows if row["protocol"] in (protocol, "score")]
    return {row["metric"]: row["value"] for row in rows}


def test_the_scores_are_those_of_the_workflow(glyphs):
    rows = glyphs.split("test", Part(0.2)).rows
    labels = glyphs.index["label"][rows]
    random = np.random.default_rng(1)
    means = random.normal(size=(labels.max() + 1, 16))
    embeddings = (means[labels] + random.normal(size=(len(rows), 16))).astype(np.float32)
    workflow = evaluate(
        embeddings,
        rows,
        glyphs.index,
        glyphs.protocols,
        SETTINGS,
        partial=True,
        levels=glyphs.levels,
    )
    levels = {name: glyphs.index[name][rows] for name in glyphs.levels}
    assert levels
    assert dmlbench.score(embeddings, labels, levels=levels) == by_metric(workflow, "zero_shot")


def test_queries_and_gallery_have_the_scores_of_the_workflow(embedded):
    embeddings, labels = embedded
    ids, size = np.arange(120), 80
    protocols = {
        "protocol": np.full(120, "score"),
        "id": ids,
        "role": np.repeat(["gallery", "query"], [size, 40]),
        "repetition": np.zeros(120, int),
    }
    index = {"id": ids, "label": labels, "genus": labels // 3}
    scores = dmlbench.score(
        embeddings[:size],
        labels[:size],
        query_embeddings=embeddings[size:],
        query_labels=labels[size:],
        levels={"genus": labels[:size] // 3},
        query_levels={"genus": labels[size:] // 3},
    )
    workflow = evaluate(embeddings, ids, index, protocols, SETTINGS, levels=["genus"])
    assert scores == by_metric(workflow)
    assert scores["queries"] == 40
    assert "recall@1 genus" in scores


def test_pairs_are_verified_as_in_the_workflow(embedded):
    embeddings, labels = embedded
    random = np.random.default_rng(2)
    first, second = random.integers(120, size=(2, 60))
    pairs = {
        "first": first,
        "second": second,
        "same": labels[first] == labels[second],
        "fold": np.arange(60) % 3,
    }
    ids = np.arange(120)
    protocol = {"protocol": "score", "role": "both", "repetition": 0}
    protocols = {"id": ids, **{name: np.full(120, value) for name, value in protocol.items()}}
    workflow = evaluate(
        embeddings, ids, {"id": ids, "label": labels}, protocols, SETTINGS, pairs=pairs
    )
    scores = dmlbench.score(embeddings, labels, pairs=pairs)
    assert scores == by_metric(workflow, "verification")
    assert scores["pairs"] == 60


def test_the_defaults_are_those_of_a_study():
    parameters = inspect.signature(dmlbench.score).parameters
    defaults = {name: parameters[name].default for name in SETTINGS if name != "recall_at"}
    assert defaults == Evaluation().model_dump(exclude={"recall_at"})


@pytest.mark.parametrize(
    "convert",
    [
        lambda values: values.tolist(),
        lambda values: tuple(map(tuple, values.tolist())) if values.ndim == 2 else tuple(values),
        lambda values: values.astype(np.float64),
        lambda values: torch.from_numpy(values),
        lambda values: [*torch.from_numpy(values)],
        lambda values: torch.from_numpy(values).double().requires_grad_(),
        lambda values: torch.from_numpy(values).to_sparse(),
        lambda values: np.asfortranarray(values),
    ],
    ids=["list", "tuple", "float64", "tensor", "tensors", "with gradient", "sparse", "by column"],
)
def test_the_same_numbers_in_another_container_have_the_same_scores(embedded, expected, convert):
    embeddings, labels = embedded
    assert dmlbench.score(convert(embeddings), labels) == expected
    assert dmlbench.score(embeddings, convert(labels)) == expected


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_narrow_floats_are_scored_as_their_values_in_float32(embedded, dtype):
    tensor, labels = torch.from_numpy(embedded[0]).to(dtype), embedded[1]
    assert dmlbench.score(tensor, labels) == dmlbench.score(tensor.float(), labels)


def test_labels_are_names_as_well_as_numbers(embedded, expected):
    embeddings, labels = embedded
    names = np.array([f"class {label:02}" for label in labels])
    for named in (names, names.astype(object), names.tolist(), labels - 5, labels.astype("u1")):
        assert dmlbench.score(embeddings, named) == expected


def test_numbers_in_an_array_of_objects_are_numbers(embedded):
    embeddings, labels = embedded
    queries = {"query_embeddings": embeddings[:9], "query_labels": labels[:9]}
    expected = dmlbench.score(embeddings, labels, **queries)
    assert dmlbench.score(embeddings, labels.astype(object), **queries) == expected


def test_the_length_of_embeddings_does_not_count(embedded, expected):
    embeddings, labels = embedded
    assert dmlbench.score(embeddings * 4, labels) == expected


def test_in_a_poincare_ball_the_length_counts():
    """On a line through the origin, the cosine of all embeddings of a side is the same."""
    places, labels = np.array([0.3, 0.4, 1.0, 1.1, -0.5, -0.6]), [0, 0, 1, 1, 2, 2]
    embeddings = places[:, None] * np.ones(3)
    ball = {"curvature": 0.1, "radius": 2.3}
    assert dmlbench.score(embeddings, labels, recall_at=[1], **ball)["recall@1"] == 1.0
    assert dmlbench.score(embeddings, labels, recall_at=[1])["recall@1"] < 1.0


def changed(array, place, value):
    array = array.copy()
    array[place] = value
    return array


X = np.random.default_rng(3).normal(size=(12, 4))
L = np.arange(12) % 3
QUERIES = {"query_embeddings": X, "query_labels": L}
PAIRS = {"first": [0, 1], "second": [2, 3], "same": [True, False], "fold": [0, 1]}
REFUSED = [
    ({"embeddings": X[:0], "labels": L[:0]}, "embeddings: there are none"),
    ({"embeddings": X[0]}, r"embeddings: they are float64 \(4,\), not numbers \(N, D\)"),
    ({"embeddings": X[None]}, "Join the batches"),
    ({"embeddings": X[:, :0]}, r"embeddings: they are float64 \(12, 0\)"),
    ({"embeddings": X.astype(str)}, "embeddings: they are <U"),
    ({"embeddings": X.astype(complex)}, "embeddings: they are complex128"),
    ({"embeddings": [[1.0, 2.0], [1.0]]}, "embeddings: they are no array with rows of one length"),
    ({"embeddings": [torch.ones(3), torch.ones(2)]}, "embeddings: they are no array with rows"),
    ({"embeddings": None}, "embeddings: they are object"),
    ({"embeddings": changed(X, (3, 1), np.nan)}, "1 of 12 embeddings hold NaN .*: row 3.$"),
    ({"embeddings": changed(X, 5, np.inf)}, "1 of 12 embeddings hold NaN or infinity: row 5.$"),
    ({"embeddings": changed(X, 7, 0)}, "1 of 12 embeddings are the zero vector: row 7.$"),
    ({"embeddings": np.ones((12, 4))}, r"all 12 embeddings are the same vector \(collapsed\)\.$"),
    ({"embeddings": X * np.nan}, "12 of 12 .*: row 0, row 1, row 2, row 3, row 4 and 7 more"),
    ({"labels": L[:5]}, r"labels: their shape is \(5,\), and 12 embeddings need \(12,\)\.$"),
    ({"labels": L[:, None]}, r"\(12, 1\), and 12 embeddings need \(12,\)\. Use \.ravel\(\)"),
    ({"labels": np.eye(3)[L]}, r"Of one-hot labels, use \.argmax"),
    ({"labels": 3}, r"labels: their shape is \(\)"),
    ({"labels": changed(L.astype(float), 2, np.nan)}, r"labels: 1 of 12 are missing \(NaN\)"),
    ({"labels": [None, *"aabbccddeef"]}, r"labels: 1 of 12 are missing \(None or NaN\)"),
    ({"labels": [float("nan"), *"aabbccddeef"]}, r"labels: 1 of 12 are missing"),
    ({"labels": (*"aabbccddeef", pd.NA)}, r"labels: 1 of 12 are missing"),
    ({"labels": pd.Series([None, *"aabbccddeef"], dtype="string")}, "labels: 1 of 12 are missing"),
    ({"labels": L.astype("M8[s]")}, "labels: they are datetime64"),
    ({"labels": L * 0}, "labels: all embeddings have one class"),
    ({"labels": np.arange(12)}, "labels: no two embeddings share a class"),
    ({"query_labels": L}, "query_embeddings: missing"),
    ({"query_embeddings": X}, "query_labels: missing"),
    ({"query_levels": {"a": L}}, "query_levels: given without query_embeddings"),
    (QUERIES | {"query_labels": L + 3}, "query_labels: none of them is in labels"),
    (QUERIES | {"query_labels": ["a"] * 12}, "query_labels: those of the gallery or of the"),
    (QUERIES | {"query_embeddings": X[:, :3]}, "dimension is 3, and that of embeddings 4"),
    (QUERIES | {"query_embeddings": changed(X, 2, np.nan)}, "row 2 of query_embeddings"),
    (QUERIES | {"levels": {"a": L}}, "query_levels: they need the names of levels: a"),
    ({"levels": [L]}, "levels: they are no mapping from names"),
    ({"levels": {"a": L[:3]}}, r"levels\['a'\]: their shape is \(3,\)"),
    ({"levels": {"a": np.arange(12)}}, r"levels\['a'\]: no two embeddings share a class"),
    (
        QUERIES | {"levels": {"a": L}, "query_levels": {"a": L + 9}},
        r"query_levels\['a'\]: none of them is in levels\['a'\]",
    ),
    ({"curvature": 0.1}, "radius: missing. A Poincaré ball needs curvature and radius"),
    ({"radius": 2.3}, "curvature: missing"),
    ({"curvature": 0, "radius": 2.3}, "curvature: found 0, not a number above 0"),
    ({"curvature": 0.1, "radius": "2"}, "radius: found '2', not a number above 0"),
    ({"curvature": 0.1, "radius": float("inf")}, "radius: found inf, not a number above 0"),
    ({"curvature": 0.25, "radius": 6}, "radius: 6 is too large .* take 5 or less"),
    ({"curvature": 1, "radius": 1, "embeddings": X * 0}, "12 embeddings are the same vector"),
    ({"recall_at": 5}, r"recall_at: found 5, not a list: \[1, 10\]"),
    ({"recall_at": []}, "recall_at: it is empty"),
    ({"recall_at": [0]}, "recall_at.0: found 0"),
    ({"recall_at": [1.5]}, r"recall_at.0: found 1\.5"),
    ({"recall_at": [1, 1]}, "recall_at: 1 is listed twice"),
    ({"recall_at": [-1]}, "recall_at.0: found -1"),
    ({"recall_at": [10**30]}, "recall_at.0: found a whole number of more than 15 digits"),
    ({"recall_at": itertools.count(1)}, "recall_at: it has more than 100 values"),
    ({"kmeans_iterations": 10**12}, "kmeans_iterations: found .*at most 10,000"),
    ({"threads": 10**6}, "threads: found .*at most 1,024"),
    ({"device": [[0] * 10**6] * 10**3}, r"device: torch cannot use \[\[0, 0"),
    ({"kmeans_restarts": 0}, "kmeans_restarts: found 0"),
    ({"threads": True}, "threads: found "),
    ({"device": "cuda:99"}, "device: torch cannot use 'cuda:99'"),
    ({"device": "meta"}, "device: torch cannot use 'meta'"),
    ({"device": None}, "device: torch cannot use None"),
    ({"device": "gpu"}, "device: torch cannot use 'gpu'"),
    ({"pairs": {"first": [0]}}, "pairs: they are no mapping with first, second, same, fold"),
    ({"pairs": PAIRS | {"second": [1]}}, r"pairs\['second'\]: they are int64 \(1,\)"),
    ({"pairs": PAIRS | {"first": [0, 12]}}, r"pairs\['first'\]: rows are from 0 to 11"),
    ({"pairs": PAIRS | {"fold": [0, 0]}}, r"pairs\['fold'\]: there is one"),
]


@pytest.mark.parametrize(("arguments", "message"), REFUSED)
def test_what_cannot_be_scored_is_refused_with_its_argument(arguments, message):
    with pytest.raises(InvalidArgument, match=message) as caught:
        dmlbench.score(**{"embeddings": X, "labels": L, **arguments})
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, UserError)


def test_a_gpu_is_held_while_it_scores(monkeypatch):
    steps = []

    @contextlib.contextmanager
    def lease_device(device):
        steps.append(f"lease {device}")
        yield
        steps.append("free")

    def evaluate(*_, device, **options):
        steps.append(f"score on {device}")
        return Scores([], [])

    monkeypatch.setattr(scoring, "lease_device", lease_device)
    monkeypatch.setattr(scoring, "evaluate", evaluate)
    monkeypatch.setattr(scoring, "device_fault", lambda device: "")
    dmlbench.score(X, L, device=torch.device("cuda:1"))
    assert steps == ["lease cuda:1", "score on cuda:1", "free"]


def test_arrays_are_scored_without_torch_and_pandas():
    code = (
        "import sys, dmlbench; before = {'torch', 'numpy'} & set(sys.modules);"
        "scores = dmlbench.score([[1, 0], [1, .1], [0, 1], [.1, 1]], list('aabb'), recall_at=[1]);"
        "print(before, scores['recall@1'], {'torch', 'pandas'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set() 1.0 set()\n"
