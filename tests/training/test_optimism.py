"""`report_optimism`: the test images are embedded after each epoch, and nothing else changes."""

import copy
import shutil

import numpy as np
import pytest

from dmlbench.datasets.store.part import Part
from dmlbench.evaluation.job import evaluate_job
from dmlbench.planning.pending import find_pending
from dmlbench.study.study import check_study
from dmlbench.training import job, train
from dmlbench.training.checkpoint import Checkpoint
from dmlbench.training.optimism import begin_epoch_embeddings
from dmlbench.training.run_state import CHECKPOINT
from dmlbench.utils.errors import StudyError

PATH = "letters/tiny/normalized_softmax/seed0"
EPOCHS = 3


@pytest.fixture(scope="module")
def settings(tiny_settings):
    small = copy.deepcopy(tiny_settings)
    small["plan"] |= {"losses": ["normalized_softmax"], "controls": []}
    small["datasets"]["letters"]["class_fraction"] = 0.05
    small["recipe"] |= {"epochs": EPOCHS, "batch_size": 24, "images_per_class": 2}
    return small


@pytest.fixture
def plain(settings):
    return check_study(settings, "tiny")


@pytest.fixture
def reporting(settings):
    return check_study(settings | {"report_optimism": True}, "tiny")


@pytest.fixture(scope="module")
def finished(settings, data_folder, tmp_path_factory):
    """The results of a training with `report_optimism`, and the embeddings of one without."""
    folder = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        study = check_study(settings, "tiny")
        files, _ = train_run(study, data_folder)
        embeddings = read_embeddings(files)
        # the same call trains again, as the embeddings after its epochs are missing
        train_run(check_study(settings | {"report_optimism": True}, "tiny"), data_folder)
    return folder, embeddings


@pytest.fixture
def results(finished, tmp_path, monkeypatch, data_folder):
    """A copy of the results, in the current folder; the embeddings of a training without."""
    folder, embeddings = finished
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return embeddings


def train_run(study, data_folder):
    assert job.train_job(study, study.runs[PATH], data_folder / "stores", None) == 0
    files = study.files.run(PATH)
    return files, files.load_run()


def read_embeddings(files):
    with np.load(files.embeddings) as content:
        return content["embeddings"]


def test_the_embeddings_after_each_epoch_are_kept_and_the_training_has_the_same_bits(
    results, reporting
):
    files = reporting.files.run(PATH)
    assert np.array_equal(read_embeddings(files), results)
    epochs = files.epoch_embeddings(files.load_run())
    assert list(epochs) == [1, 2, 3]
    last = np.load(epochs[EPOCHS])
    unit = results / np.linalg.norm(results, axis=1, keepdims=True)
    assert np.array_equal(last, unit.astype(np.float16))
    assert not np.array_equal(np.load(epochs[1]), last)


def test_a_killed_training_has_the_embeddings_of_all_epochs_in_the_end(
    results, reporting, data_folder, monkeypatch
):
    files = reporting.files.run(PATH)
    unbroken = {file.name: file.read_bytes() for file in files.optimism.glob("*.npy")}
    shutil.rmtree(files.folder)

    class Killed(BaseException):
        pass

    def kill_in_the_second_epoch(recipe, step, steps):
        if step == steps + 1:
            raise Killed
        return 1.0

    monkeypatch.setattr(Checkpoint, "should_save", lambda self: True)
    with monkeypatch.context() as patch:
        patch.setattr(train, "schedule", kill_in_the_second_epoch)
        with pytest.raises(Killed):
            train_run(reporting, data_folder)
    first = files.optimism / "epoch1.npy"
    written = first.stat().st_mtime_ns
    train_run(reporting, data_folder)
    assert {file.name: file.read_bytes() for file in files.optimism.glob("*.npy")} == unbroken
    assert first.stat().st_mtime_ns == written, "the first epoch is not trained again"


def test_a_training_that_began_without_them_begins_again(reporting, plain, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run, files = reporting.runs[PATH], reporting.files.run(PATH)
    files.state.mkdir(parents=True)
    checkpoint = files.state / CHECKPOINT
    checkpoint.touch()
    begin_epoch_embeddings(files, run)
    assert not checkpoint.exists()
    checkpoint.touch()
    begin_epoch_embeddings(files, run)  # from now on it has them
    assert checkpoint.exists()
    (files.optimism / "key.txt").write_text("of other settings")
    begin_epoch_embeddings(files, run)
    assert not checkpoint.exists()
    checkpoint.touch()
    epoch = files.optimism / "epoch1.npy"
    epoch.touch()
    begin_epoch_embeddings(files, run, every=2)
    assert not checkpoint.exists()
    assert not epoch.exists(), "it is none of the epochs that count now"
    checkpoint.touch()
    begin_epoch_embeddings(files, plain.runs[PATH])
    assert checkpoint.exists()
    assert not files.optimism.exists()
    begin_epoch_embeddings(files, run)  # those of the epochs between are missing
    assert not checkpoint.exists()


def test_the_best_epoch_by_each_score_is_in_the_metrics(results, reporting, data_folder, glyphs):
    files, run = reporting.files.run(PATH), reporting.runs[PATH]
    trained = files.load_run()
    labels = glyphs.split("test", Part(0.05)).labels
    perfect = np.eye(labels.max() + 1, dtype=np.float16)[labels]
    np.save(files.epoch_embeddings(trained)[2], perfect)
    np.save(files.epoch_embeddings(trained)[1], np.zeros_like(perfect))  # it cannot be scored
    files.write_run(trained)
    evaluate_job(reporting, run, data_folder / "stores")
    metrics = files.load_metrics()
    value = {row["metric"]: row["value"] for row in metrics["metrics"]}
    rows = {row["metric"]: row for row in metrics["optimism"]}
    assert {*rows} == {"map@r", "recall@1"}
    for metric, row in rows.items():
        assert (row["protocol"], row["best_epoch"], row["best"]) == ("zero_shot", 2, 1.0)
        assert row["last"] == pytest.approx(value[metric], abs=0.005)  # of float16
        assert row["gap"] == row["best"] - row["last"]


def test_they_are_in_the_key_of_the_scores_alone(plain, reporting):
    assert plain.runs[PATH].train_key == reporting.runs[PATH].train_key
    assert plain.runs[PATH].eval_key != reporting.runs[PATH].eval_key


def test_a_training_without_them_is_pending_and_one_that_has_them_is_not(
    results, plain, reporting, data_folder
):
    stores = data_folder / "stores"
    assert not find_pending(reporting, stores).train
    assert not find_pending(plain, stores).train
    files = plain.files.run(PATH)
    shutil.rmtree(files.optimism)
    files.write_run(files.load_run())
    assert not find_pending(plain, stores).train
    (reason,) = find_pending(reporting, stores).train.values()
    assert reason.text == "report_optimism: it was trained without"


def test_a_missing_file_of_an_epoch_is_needed_by_a_scoring_alone(results, reporting, data_folder):
    files = reporting.files.run(PATH)
    trained = files.load_run()
    evaluate_job(reporting, reporting.runs[PATH], data_folder / "stores")
    files.epoch_embeddings(trained)[2].unlink()
    assert files.find_problems(trained) == []
    assert not find_pending(reporting, data_folder / "stores").train
    files.metrics.unlink()
    assert [*find_pending(reporting, data_folder / "stores").train] == [PATH]


def test_the_reality_check_has_no_last_epoch_to_compare_with(settings):
    both = settings | {"report_optimism": True, "protocol": "reality_check"}
    with pytest.raises(StudyError, match="report_optimism: with protocol: reality_check"):
        check_study(both, "tiny")
