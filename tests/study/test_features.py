"""Which runs share the features of a frozen trunk."""

import pytest

from dmlbench.study.features import are_there, features_file, features_of, note_features
from dmlbench.study.study import check_study
from dmlbench.utils.errors import StudyError


@pytest.fixture
def frozen(tiny):
    tiny["backbones"]["tiny"]["trunk"] = "frozen"
    return tiny


def read(settings):
    """Path of each features that a study reads -> the number of its views."""
    return {path: one.views for path, one in check_study(settings, "my.yaml").features.items()}


def changed(settings, place, value):
    *sections, key = place.split(".")
    for name in sections:
        settings = settings.setdefault(name, {})
    settings[key] = value


def test_a_trained_trunk_and_vectors_without_a_model_need_no_features(frozen, tiny_settings):
    assert read(tiny_settings) == {}
    frozen["plan"]["losses"] = []
    frozen["plan"]["controls"] = ["random", "oracle"]
    frozen["plan"]["losses"] = ["triplet"]
    study = check_study(frozen, "my.yaml")
    needed = {run.loss: len(features_of(run)) for run in study.runs.values()}
    assert needed == {"control_random": 0, "control_oracle": 0, "triplet": 1}


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("plan.losses", ["triplet", "rll", "htl"]),
        ("plan.seeds", [3, 4, 5]),
        ("plan.controls", ["untrained", "untrained_pca", "frozen"]),
        ("backbones.tiny.dim", 24),
        ("backbones.tiny.head", "mlp"),
        ("recipe.epochs", 7),
        ("recipe.augmentation", {"flip": False}),
        ("evaluation.kmeans_seed", 3),
        ("datasets.letters.class_fraction", 0.3),
        ("protocol", "reality_check"),
    ],
)
def test_what_changes_no_feature_of_the_test_view_shares_one_file(frozen, place, value):
    expected = read(frozen)
    assert len(expected) == 1
    changed(frozen, place, value)
    assert read(frozen) == expected


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("backbones.tiny.type", "test_vit"),
        ("backbones.tiny.image_size", 24),
        ("backbones.tiny.resize", 40),
        ("recipe.pooling", "max"),
        ("recipe.gpu_precision", "float32"),
        ("recipe.cpu_threads", 2),
    ],
)
def test_what_can_change_a_feature_has_a_file_of_its_own(frozen, place, value):
    before = read(frozen)
    changed(frozen, place, value)
    assert not before.keys() & read(frozen).keys()


def test_random_views_have_a_file_beside_the_test_view_and_depend_on_the_augmentation(frozen):
    (test_view,) = read(frozen)
    frozen["backbones"]["tiny"]["views"] = 3
    views = read(frozen)
    assert sorted(views.values()) == [0, 3]
    assert views[test_view] == 0
    frozen["recipe"]["augmentation"] = {"flip": False}
    other = read(frozen)
    assert views.keys() & other.keys() == {test_view}


def test_a_run_that_is_tested_on_other_images_reads_their_test_view_too(frozen):
    frozen["datasets"]["other"] = {"type": "omniglot", "test_on": "letters"}
    frozen["datasets"]["letters"] = {"type": "glyphs"}
    frozen["plan"]["datasets"] = ["other"]
    frozen["backbones"]["tiny"]["views"] = 2
    stores = [(path.partition("-")[0], views) for path, views in read(frozen).items()]
    assert sorted(stores) == [("glyphs", 0), ("omniglot", 0), ("omniglot", 2)]


def test_a_key_of_a_head_only_run_has_no_setting_that_it_does_not_use(frozen, tiny_settings):
    def key(settings):
        return check_study(settings, "my.yaml").runs["letters/tiny/proxy_anchor/seed0"].train_key

    before = key(frozen)
    assert before != key(tiny_settings)
    for place, value in {"augmentation": {"flip": False}, "warmup_steps": 3}.items():
        changed(frozen, f"recipe.{place}", value)
        assert key(frozen) == before
    frozen["backbones"]["tiny"]["views"] = 2
    with_views = key(frozen)
    changed(frozen, "recipe.augmentation", {"flip": True})
    assert len({before, with_views, key(frozen)}) == 3


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"views": 2}, r"views: 2 is not used by trunk: trained.*set `trunk: frozen`"),
        (
            {"trunk": "frozen", "head": "low_mid_high", "dim": 15},
            r"trunk: frozen keeps the pooled features alone.*Take head: linear or mlp",
        ),
        (
            {"trunk": "frozen", "recipe": {"freeze_bn": False}},
            r"recipe.freeze_bn: false does not go with trunk: frozen.*freeze_bn: true",
        ),
    ],
)
def test_settings_that_a_frozen_trunk_cannot_have_are_refused(tiny, settings, message):
    tiny["backbones"]["tiny"] |= settings
    with pytest.raises(StudyError, match=message):
        check_study(tiny, "my.yaml")


def test_features_of_other_images_or_damaged_ones_are_not_there(frozen, tmp_path, write_store):
    stores = tmp_path / "stores"
    (features,) = check_study(frozen, "my.yaml").features.values()
    write_store(stores / features.store)
    assert not are_there(stores, features)
    file = features_file(stores, features.path)
    file.parent.mkdir(parents=True)
    file.with_suffix(".npy").write_bytes(b"numbers")
    note_features(stores, features)
    assert are_there(stores, features)
    write_store(stores / features.store, content="other images")
    assert not are_there(stores, features)
    write_store(stores / features.store)
    file.with_suffix(".npy").write_bytes(b"Numbers")
    assert not are_there(stores, features)
