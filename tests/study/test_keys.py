"""A key moves if and only if a number of its run may change."""

from pathlib import Path

import pytest

from dmlbench.backbones.catalogue import timm_weights
from dmlbench.study import run as run_module
from dmlbench.study.study import check_study, read_study
from dmlbench.utils.errors import StudyError
from dmlbench.utils.fingerprint import code_digests


def first_run(settings):
    return next(iter(check_study(settings, "my.yaml").runs.values()))


def test_a_new_seed_adds_its_runs_and_moves_no_key(letters, changed, keys, moved):
    before, after = keys(letters), keys(changed("plan.seeds", [0, 1, 2]))
    assert moved(before, after) == set()
    assert after.keys() - before.keys() == {
        "letters/tiny/softtriple/seed2",
        "letters/tiny/st1/seed2",
    }


def test_an_option_of_a_loss_moves_only_the_runs_of_that_loss(letters, changed, keys, moved):
    after = keys(changed("losses.st1.gamma", 0.2))
    assert moved(keys(letters), after) == {f"letters/tiny/st1/seed{k}" for k in (0, 1)}


def test_writing_out_a_default_moves_no_key(letters, changed, keys, moved):
    assert moved(keys(letters), keys(changed("losses.softtriple", {"gamma": 0.1}))) == set()
    assert moved(keys(letters), keys(changed("recipe.momentum", 0.9))) == set()


def test_the_recipe_moves_every_training_and_no_control(letters, changed, keys, moved):
    after = moved(keys(letters), keys(changed("recipe.lr", 0.5)))
    assert after == {path for path in keys(letters) if "control" not in path}


def test_chunks_are_in_the_keys_of_studies_that_have_them_alone(letters, changed, keys, moved):
    def recipe_of(settings):
        return (
            check_study(settings, "my.yaml")
            .runs["letters/tiny/softtriple/seed0"]
            .settings["recipe"]
        )

    before = keys(letters)
    assert "chunk" not in recipe_of(letters)
    assert moved(before, keys(changed("recipe.chunk", None))) == set()
    chunked = changed("recipe.chunk", 8)
    assert recipe_of(chunked)["chunk"] == 8
    assert moved(before, keys(chunked)) == {path for path in before if "control" not in path}


def test_a_setting_of_a_metric_moves_all_evaluations_and_no_training(letters, changed, keys, moved):
    after = changed("evaluation.recall_at", [1, 5])
    assert moved(keys(letters), keys(after)) == set()
    evaluated = keys(letters, "eval_key")
    assert moved(evaluated, keys(after, "eval_key")) == evaluated.keys()


def test_a_weights_file_counts_by_its_content_and_not_by_its_path(tmp_path, changed, keys, moved):
    files = [tmp_path / name for name in ("a", "b", "c")]
    for file, content in zip(files, ["x", "x", "y"], strict=True):
        file.write_text(content)
    first, same, other = (keys(changed("backbones.tiny.pretrained", str(f))) for f in files)
    assert moved(first, same) == set()
    assert moved(first, other) == first.keys()


def test_weights_of_timm_count_by_their_tag_even_if_they_are_not_staged(
    tmp_path, monkeypatch, changed, keys, moved
):
    monkeypatch.setenv("DMLBENCH_DATA", str(tmp_path))
    settings = changed("backbones.tiny.pretrained", True)
    assert first_run(settings).weights == "test_resnet.r160_in1k"
    assert first_run(settings).settings["backbone"]["pretrained"] == "timm:test_resnet.r160_in1k"
    before = keys(settings)
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights/test_resnet.r160_in1k.safetensors").write_bytes(b"x")
    assert moved(before, keys(settings)) == set()
    others = dict(timm_weights()) | {"test_resnet": "test_resnet.better"}
    monkeypatch.setattr(run_module, "timm_weights", lambda: others)
    assert moved(before, keys(settings)) == before.keys()


def test_pretrained_weights_that_timm_does_not_have_are_refused(monkeypatch, changed):
    monkeypatch.setattr("dmlbench.study.grid.timm_weights", dict)
    with pytest.raises(StudyError, match=r"tiny\.pretrained: timm has no weights for test_resnet"):
        check_study(changed("backbones.tiny.pretrained", True), "my.yaml")


def test_weights_of_a_backbone_with_a_file_here_count_by_their_tag(changed):
    settings = changed("backbones.tiny", {"type": "bn_inception", "pretrained": True})
    run = first_run(settings)
    assert run.weights == "bn_inception.caffe_in1k"
    assert run.settings["backbone"]["pretrained"] == "timm:bn_inception.caffe_in1k"
    assert "dmlbench.backbones.bn_inception" in code_digests(*run.modules)
    tagged = changed("backbones.tiny.type", "bn_inception.caffe_in1k", settings)
    assert first_run(tagged).weights == run.weights


def test_a_jpeg_store_has_another_folder_and_another_key(letters, changed):
    jpeg, pixels = first_run(changed("datasets.letters.store", "jpeg")), first_run(letters)
    assert jpeg.store.startswith("glyphs-32-jpeg-")
    assert jpeg.train_key != pixels.train_key
    assert "store" not in pixels.settings["dataset"]
    with pytest.raises(StudyError, match=r"datasets\.letters\.store: found 'png'"):
        check_study(changed("datasets.letters.store", "png"), "my.yaml")


def test_another_format_of_stores_gives_another_folder(letters, monkeypatch):
    before = set(check_study(letters, "my.yaml").stores)
    monkeypatch.setattr(run_module, "FORMAT", -1)
    assert not before & set(check_study(letters, "my.yaml").stores)


def test_the_settings_that_a_study_was_run_with_give_the_same_keys(letters, tmp_path):
    study = check_study(letters, "my.yaml")
    (tmp_path / "study.json").write_text(study.settings.model_dump_json())
    again = read_study(tmp_path / "study.json")
    assert {path: (run.train_key, run.eval_key) for path, run in again.runs.items()} == {
        path: (run.train_key, run.eval_key) for path, run in study.runs.items()
    }


@pytest.fixture
def on_other_data(changed):
    """`letters`, tested on a smaller part of the glyphs."""
    settings = changed("datasets.part", {"type": "glyphs", "class_fraction": 0.25})
    return changed("datasets.letters.test_on", "part", settings)


def test_a_test_on_other_data_puts_both_data_sets_into_the_keys(
    letters, on_other_data, changed, keys, moved
):
    before, after = keys(letters), keys(on_other_data)
    assert moved(before, after) == set(before)
    smaller = changed("datasets.part.class_fraction", 0.1, on_other_data)
    assert moved(after, keys(smaller)) == set(after)
    other = changed("datasets.part.recall_at", [1, 3], on_other_data)
    assert not moved(after, keys(other))
    assert moved(keys(on_other_data, "eval_key"), keys(other, "eval_key")) == set(after)
    run = check_study(other, "my.yaml").runs["letters/tiny/softtriple/seed0"]
    assert run.metric_settings["recall_at"] == [1, 3]
    assert (run.data.class_fraction, run.tested.data.class_fraction) == (0.5, 0.25)
    assert run.settings["test"]["class_fraction"] == 0.25


def test_a_csv_counts_by_its_rows_and_not_by_its_path(own_data, rows_of_csv, keys, moved):
    before = keys(own_data)
    Path("copy.csv").write_text(Path("a.csv").read_text().replace("\n", "\r\n"))
    own_data["datasets"]["a"]["file"] = "copy.csv"
    assert moved(before, keys(own_data)) == set()
    Path("copy.csv").write_text(rows_of_csv.replace("x", "z"))
    assert moved(before, keys(own_data)) == {path for path in before if path.startswith("a/")}


def test_the_channels_of_a_csv_move_only_its_runs(own_data, keys, moved):
    before = keys(own_data)
    own_data["datasets"]["b"]["channels"] = 1
    assert moved(before, keys(own_data)) == {path for path in before if path.startswith("b/")}


def test_recall_at_of_a_data_set_moves_its_evaluations_and_no_training(own_data, keys, moved):
    trained, scored = keys(own_data), keys(own_data, "eval_key")
    own_data["datasets"]["a"]["recall_at"] = [5]
    assert moved(trained, keys(own_data)) == set()
    after = keys(own_data, "eval_key")
    assert moved(scored, after) == {path for path in trained if path.startswith("a/")}
    own_data["evaluation"] = {"recall_at": [1]}
    runs = check_study(own_data, "my.yaml").runs.values()
    assert all(run.metric_settings["recall_at"] == [1] for run in runs)


def test_external_embeddings_count_by_their_content_and_their_data_alone(own_data, keys, moved):
    path = "letters/tiny/embeddings_own/seed0"
    before = keys(own_data)
    Path("copy.npz").write_text("vectors")
    own_data["embeddings"]["own"]["file"] = "copy.npz"
    own_data["recipe"]["lr"] = 0.5
    own_data["backbones"]["tiny"]["dim"] = 32
    assert path not in moved(before, keys(own_data))
    run_module._file_digest.cache_clear()  # kept for the process, which checks a study once
    Path("copy.npz").write_text("others")
    assert path in moved(before, keys(own_data))
    Path("copy.npz").write_text("vectors")
    run_module._file_digest.cache_clear()
    own_data["datasets"]["letters"]["class_fraction"] = 0.25
    assert path in moved(before, keys(own_data))
