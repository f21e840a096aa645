import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from dmlbench.backbones.model import EmbeddingModel
from dmlbench.datasets.store.part import Part
from dmlbench.study.study import check_study
from dmlbench.training import controls
from dmlbench.training.controls import control_embeddings, whiten
from dmlbench.training.embedding import embed
from dmlbench.training.inputs import open_inputs

CPU = torch.device("cpu")
FEATURES = 96
"""Of test_resnet."""


def vectors(count, width, seed=0):
    """Correlated vectors, far from the origin."""
    random = np.random.default_rng(seed)
    mixing = np.random.default_rng(9).standard_normal((width, width))
    return (random.standard_normal((count, width)) @ mixing + 30).astype(np.float32)


def control(tiny, name, **plan):
    tiny["plan"] |= {"controls": [name], **plan}
    return check_study(tiny, "tiny").runs[f"letters/tiny/control_{name}/seed0"]


@pytest.mark.parametrize("dim", [1, 5, 12])
def test_whitening_is_that_of_scikit_learn(dim, monkeypatch):
    monkeypatch.setattr(controls, "BLOCK", 64)  # several blocks, the last one shorter
    train, test = vectors(300, 12), vectors(150, 12, seed=1)
    pca = PCA(n_components=dim, whiten=True, svd_solver="full").fit(train.astype(np.float64))
    expected = pca.transform(test.astype(np.float64))
    found = whiten(train, test, dim)
    assert found.dtype == np.float32
    signs = np.sign((found * expected).sum(axis=0))  # those of a component are arbitrary
    assert found * signs == pytest.approx(expected, rel=1e-5, abs=1e-5)


def test_whitened_training_vectors_have_mean_0_and_covariance_1():
    train = vectors(500, 8)
    whitened = whiten(train, train, 8).astype(np.float64)
    assert whitened.mean(axis=0) == pytest.approx(np.zeros(8), abs=1e-5)
    assert np.cov(whitened, rowvar=False) == pytest.approx(np.eye(8), abs=1e-4)


def test_fewer_training_vectors_than_dimensions_give_one_component_fewer_than_vectors():
    train, test = vectors(7, 20), vectors(30, 20, seed=1)
    whitened = whiten(train, test, 16)
    assert whitened.shape == (30, 6)
    assert np.isfinite(whitened).all()
    assert np.abs(whitened).max() < 1e3  # no component of round-off is blown up


def test_a_feature_that_depends_on_others_adds_no_component():
    train = vectors(100, 4)
    repeated = np.hstack([train, train[:, :2], np.full((100, 1), 5, np.float32)])
    assert whiten(repeated, repeated, 16).shape == (100, 4)


def test_training_vectors_that_are_all_equal_are_an_error():
    same = np.ones((5, 3), np.float32)
    with pytest.raises(ValueError, match=r"all 5 training images are equal.*leave untrained_pca"):
        whiten(same, same, 2)


@pytest.fixture(scope="module")
def features(tiny_settings, glyphs):
    """The features that the head of the untrained model takes, of training and of test images."""
    run = check_study(tiny_settings, "tiny").runs["letters/tiny/proxy_anchor/seed0"]
    torch.manual_seed(0)
    model = EmbeddingModel(run.model, run.recipe, glyphs.channels).eval()
    taken = []
    model.head.register_forward_hook(lambda _, inputs, __: taken.append(inputs[0].numpy().copy()))
    parts = []
    for name in ("train", "test"):
        embed(model, open_inputs(run, glyphs), glyphs.split(name, Part(0.1)).rows, CPU)
        parts.append(np.concatenate(taken))
        taken.clear()
    return parts


def test_frozen_is_what_the_head_of_an_untrained_model_would_take(tiny, glyphs, features):
    found, rows = control_embeddings(control(tiny, "frozen"), None, glyphs, CPU)
    _, test = features
    assert found.shape == (len(rows), FEATURES)
    assert np.array_equal(found, test)
    assert np.array_equal(rows, glyphs.split("test", Part(0.1)).rows)


def test_frozen_needs_no_head_that_fits(tiny, glyphs):
    """low_mid_high refuses images of 32 pixels."""
    tiny["backbones"]["tiny"] |= {"head": "low_mid_high", "dim": 15}
    found, _ = control_embeddings(control(tiny, "frozen"), None, glyphs, CPU)
    assert found.shape[1] == FEATURES


def test_untrained_pca_is_fitted_on_the_training_images_alone(tiny, glyphs, features):
    train, test = features
    found, _ = control_embeddings(control(tiny, "untrained_pca"), glyphs, glyphs, CPU)
    assert found.shape == (len(test), 16)
    assert np.array_equal(found, whiten(train, test, 16))
    assert not np.allclose(found, whiten(test, test, 16), atol=0.1)


def test_untrained_pca_has_no_more_dimensions_than_features_that_vary(tiny, glyphs, features):
    tiny["backbones"]["tiny"]["dim"] = 500
    found, _ = control_embeddings(control(tiny, "untrained_pca"), glyphs, glyphs, CPU)
    vary = np.ptp(features[0], axis=0) > 0
    assert found.shape[1] == vary.sum() < FEATURES


@pytest.mark.parametrize(
    ("name", "trains_on"),
    [("untrained_pca", True), ("frozen", False), ("untrained", False), ("random", False)],
)
def test_only_untrained_pca_reads_the_training_images(tiny, name, trains_on):
    tiny["datasets"]["letters"] |= {"type": "omniglot", "test_on": "glyphs"}
    run = control(tiny, name)
    assert run.reads_training_images == trains_on
    assert run.stores == [run.store] * trains_on + [run.tested.store]
    assert run.uses_model == (name != "random")


def test_the_key_of_untrained_pca_is_that_of_its_images_and_not_of_a_training(tiny):
    tiny["datasets"]["letters"] |= {"type": "omniglot", "test_on": "glyphs"}
    key = control(tiny, "untrained_pca").train_key
    tiny["recipe"]["lr"] = 0.5  # nothing is trained
    assert control(tiny, "untrained_pca").train_key == key
    tiny["datasets"]["letters"]["class_fraction"] = 0.2
    assert control(tiny, "untrained_pca").train_key != key


def test_the_controls_of_a_study_that_names_none_are_the_cheap_ones(tiny):
    del tiny["plan"]["controls"]
    assert check_study(tiny, "tiny").settings.plan.controls == ("random", "untrained", "oracle")
