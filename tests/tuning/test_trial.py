"""A trial trains and scores its folds in one process, and always writes a result."""

import json
import math
import signal
import subprocess
import sys
from typing import NamedTuple

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from dmlbench.datasets.store.folds import draw_folds, hold_out
from dmlbench.datasets.store.part import Part
from dmlbench.datasets.store.reader import Split
from dmlbench.study.poincare_ball import PoincareBall
from dmlbench.study.study import check_study
from dmlbench.training.embedding import embed
from dmlbench.training.inputs import open_inputs
from dmlbench.training.resumable_job import TRY_AGAIN
from dmlbench.training.run_state import inspect_training
from dmlbench.training.train import Diverged, train
from dmlbench.tuning import trial as trials
from dmlbench.tuning import validation
from dmlbench.utils.errors import StudyError
from dmlbench.utils.fingerprint import code_digests

CELL = "letters/tiny/normalized_softmax"
PATH = f"{CELL}/trial1"
CPU = torch.device("cpu")


@pytest.fixture
def run_job(study, data_folder):
    """Run a trial as a job: its exit code, its result if there is one, and its files."""

    def run(path=PATH, minutes=None, of=study):
        files = of.files.trial(path)
        code = trials.trial_job(of, of.trials[path], data_folder / "stores", minutes)
        return code, files.read_trial(), files

    return run


def reference_score(vectors, labels):
    """MAP@R by loops: Musgrave et al., equation 2."""
    vectors = vectors.astype(np.float64)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    values = []
    for query, label in enumerate(labels):
        others = [i for i in range(len(labels)) if i != query]
        others.sort(key=lambda i: -vectors[query] @ vectors[i])
        count = sum(labels[i] == label for i in others)
        hits, total = 0, 0.0
        for rank, image in enumerate(others[:count], start=1):
            if labels[image] == label:
                hits += 1
                total += hits / rank
        if count:
            values.append(total / count)
    return sum(values) / len(values)


def test_a_trial_is_the_mean_over_folds_of_what_an_ordinary_training_scores_on_the_classes_left_out(
    study, run_job, glyphs, tmp_path
):
    code, result, files = run_job()
    assert (code, result["status"], result["error"]) == (0, "ok", None)
    trial = study.trials[PATH]
    split = glyphs.split("train", Part(0.04))
    scores = []
    for number, classes in enumerate(draw_folds(split, 3, seed=0)[:2]):
        part, held_out = hold_out(split, classes)
        model, _, history = train(
            trial.run, glyphs, part, CPU, tmp_path / str(number), lambda: None
        )
        vectors = embed(model.eval(), open_inputs(trial.run, glyphs), held_out.rows, CPU)
        scores.append(reference_score(vectors, held_out.labels))
        assert result["folds"][number]["scores"][-1] == pytest.approx(scores[-1], abs=1e-9)
        assert result["folds"][number]["train_classes"] == len(part.class_names)
        assert result["folds"][number]["validation_images"] == len(held_out.rows)
    assert result["scores"][-1] == pytest.approx(np.mean(scores), abs=1e-9)
    assert result["epochs"] == [1, 2, 3]
    best = result["best_epoch"]
    assert result["best_score"] == result["scores"][best - 1] == max(result["scores"])
    assert result["steps"] == 2 * history[-1]["step"]

    curve = pq.read_table(files.curve).to_pydict()
    assert [*curve] == ["fold", "epoch", "step", "loss", "lr", "score"]
    assert {type(fold) for fold in curve["fold"]} == {int}
    assert curve["fold"] == [0, 0, 0, 1, 1, 1]
    assert curve["epoch"] == [1, 2, 3] * 2
    assert curve["loss"][3:] == [row["loss"] for row in history]
    assert curve["score"] == [value for fold in result["folds"] for value in fold["scores"]]

    assert result["key"] == trial.key
    assert result["settings"] == json.loads(json.dumps(trial.settings))
    assert result["options"] == trial.options
    assert result["code"] == code_digests(*trial.modules)
    assert {"dmlbench.tuning.validation", "dmlbench.datasets.store.folds"} <= result["code"].keys()
    assert result["provenance"]["train_seconds"] > 0
    assert not files.state.exists()

    written = files.trial.read_bytes()
    run_job()
    assert files.trial.read_bytes() == written  # it was finished
    files.curve.unlink()
    run_job()
    assert files.curve.is_file()


def test_only_every_kth_epoch_and_the_last_one_are_validated(tuned, run_job):
    tuned["tuning"] |= {"every": 2, "use_folds": 1}
    _, result, files = run_job(of=check_study(tuned, "tiny"))
    assert result["epochs"] == [2, 3]
    scores = pq.read_table(files.curve)["score"].to_pylist()
    assert [math.isnan(score) for score in scores] == [True, False, False]
    assert [score for score in scores if not math.isnan(score)] == result["scores"]


class Killed(BaseException):
    """As SIGKILL: nothing is written after it."""


def test_a_trial_that_is_killed_in_its_second_fold_ends_as_an_unbroken_one(
    tuned, study, run_job, monkeypatch
):
    _, unbroken, files = run_job()
    curve = files.curve.read_bytes()
    files.trial.unlink()
    real, calls = validation.Validation.__call__, []

    def fail(self, model, epoch, history):
        calls.append(epoch)
        if len(calls) == 5:
            raise Killed
        return real(self, model, epoch, history)

    monkeypatch.setattr("dmlbench.training.checkpoint.MIN_INTERVAL", 0.0)
    monkeypatch.setattr("dmlbench.training.checkpoint.MAX_TIME_SHARE", 1e9)
    monkeypatch.setattr(validation.Validation, "__call__", fail)
    with pytest.raises(Killed):
        run_job()
    assert (files.state / "fold0/finished.json").is_file()
    assert not (files.state / "fold0/checkpoint.pt").exists()
    assert (files.state / "fold1/checkpoint.pt").is_file()
    unfinished = inspect_training(files.state, study.trials[PATH].key)
    assert unfinished.place.endswith("of fold1")
    monkeypatch.setattr(validation.Validation, "__call__", real)
    code, resumed, _ = run_job()
    assert code == 0
    same = ("status", "key", "steps", "epochs", "scores", "best_epoch", "best_score", "folds")
    assert [resumed[name] for name in same] == [unbroken[name] for name in same]
    assert files.curve.read_bytes() == curve


def test_what_is_left_of_a_trial_with_other_folds_is_not_continued(tuned, run_job, monkeypatch):
    tuned["tuning"] |= {"use_folds": 1}
    tuned["recipe"]["epochs"] = 1
    real = validation.Validation.__call__

    def fail(self, model, epoch, history):
        raise Killed

    monkeypatch.setattr("dmlbench.training.checkpoint.MIN_INTERVAL", 0.0)
    monkeypatch.setattr("dmlbench.training.checkpoint.MAX_TIME_SHARE", 1e9)
    monkeypatch.setattr(validation.Validation, "__call__", fail)
    with pytest.raises(Killed):
        run_job(of=check_study(tuned, "tiny"))
    monkeypatch.setattr(validation.Validation, "__call__", real)
    tuned["tuning"] |= {"classes": "contiguous"}
    other = check_study(tuned, "tiny")
    _, after_kill, files = run_job(of=other)
    files.trial.unlink()
    _, fresh, _ = run_job(of=other)
    assert after_kill["scores"] == fresh["scores"]


def test_a_finished_fold_of_other_settings_is_not_taken(tuned, run_job, monkeypatch):
    tuned["recipe"]["epochs"] = 1
    real, calls = validation.Validation.__call__, []

    def fail_in_the_second_fold(self, model, epoch, history):
        calls.append(1)
        if len(calls) == 2:
            raise Killed
        return real(self, model, epoch, history)

    with monkeypatch.context() as patch:
        patch.setattr(validation.Validation, "__call__", fail_in_the_second_fold)
        with pytest.raises(Killed):
            run_job(of=check_study(tuned, "tiny"))
    tuned["recipe"]["lr"] = 0.5 * tuned["recipe"].get("lr", 0.003)
    other = check_study(tuned, "tiny")
    _, after_kill, files = run_job(of=other)
    files.trial.unlink()
    _, fresh, _ = run_job(of=other)
    assert after_kill["folds"] == fresh["folds"]
    assert after_kill["scores"] == fresh["scores"]


def test_a_diverged_trial_is_a_result_with_the_folds_before_it(run_job, monkeypatch):
    real = validation.embed
    calls = []

    def embed_badly(*arguments):
        calls.append(1)
        return real(*arguments) * (np.nan if len(calls) == 5 else 1)

    monkeypatch.setattr(validation, "embed", embed_badly)
    code, result, files = run_job()
    assert (code, result["status"]) == (0, "diverged")
    assert "after epoch 2" in result["error"]["message"]
    assert (result["scores"], result["best_epoch"], result["best_score"]) == ([], None, None)
    curve = pq.read_table(files.curve).to_pydict()
    assert (curve["fold"], curve["epoch"]) == ([0, 0, 0, 1], [1, 2, 3, 1])
    assert result["steps"] == curve["step"][2] + curve["step"][3]
    assert not files.state.exists()


def test_a_trial_that_diverges_at_once_has_an_empty_curve(run_job, monkeypatch):
    def diverge(*_):
        raise Diverged("the loss is nan at step 3", [])

    monkeypatch.setattr(validation, "train", diverge)
    code, result, files = run_job()
    assert (code, result["status"], result["steps"], result["folds"]) == (0, "diverged", 0, [])
    curve = pq.read_table(files.curve)
    assert curve.column_names == ["fold", "epoch", "step", "loss", "lr", "score"]
    assert curve.num_rows == 0
    written = files.trial.read_bytes()
    run_job()
    assert files.trial.read_bytes() == written  # it would diverge again


def test_a_failed_trial_is_a_result_and_goes_on_when_it_is_started_again(run_job, monkeypatch):
    real, calls = validation.score, []

    def fail(*arguments):
        calls.append(1)
        if len(calls) == 4:
            raise RuntimeError("no good")
        return real(*arguments)

    monkeypatch.setattr(validation, "score", fail)
    code, result, files = run_job()
    assert (code, result["status"]) == (0, "error")
    assert result["error"]["message"] == "RuntimeError: no good"
    assert (files.state / "fold0/finished.json").is_file()
    code, result, _ = run_job()
    assert (code, result["status"]) == (0, "ok")
    assert len(calls) == 4 + 3  # the first fold was finished


def test_embeddings_that_are_all_the_same_score_nothing():
    labels = np.array([0, 0, 1, 1])
    assert validation.score(np.ones((4, 3), np.float32), labels, "map@r") == 0.0
    assert validation.score(np.zeros((4, 3), np.float32), labels, "map@r") == 0.0


def test_a_trial_is_scored_in_the_ball_of_its_loss():
    """On a line through the origin, the cosine of all images of a side is the same."""
    places, labels = np.array([0.3, 0.4, 1.0, 1.1, -0.5, -0.6]), np.array([0, 0, 1, 1, 2, 2])
    vectors = places[:, None].astype(np.float32) * np.ones((1, 3), np.float32)
    ball = PoincareBall(curvature=0.1, radius=2.3)
    assert validation.score(vectors, labels, "recall@1", 1, ball) == 1.0
    assert validation.score(vectors, labels, "recall@1") < 1.0


def test_a_validation_without_two_images_of_a_class_is_refused():
    with pytest.raises(ValueError, match="no class of the validation has two images"):
        validation.score(np.eye(3, dtype=np.float32), np.arange(3), "recall@1")


@pytest.mark.parametrize(("metric", "expected"), [("recall@1", 0.5), ("r_precision", 5 / 12)])
def test_other_metrics_may_choose(metric, expected):
    angles = np.deg2rad([0, 10, 25, 30, 60, 200])
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    labels = np.array([0, 0, 1, 0, 1, 1])
    assert validation.score(vectors, labels, metric) == pytest.approx(expected)


def test_a_job_that_is_nearly_out_of_time_asks_to_be_started_again(run_job):
    code, result, files = run_job(minutes=1e-6)
    assert (code, result) == (TRY_AGAIN, None)
    assert json.loads((files.state / "attempts.json").read_text())["ended"] == "timeout"


def test_sigterm_saves_the_trial_and_ends_the_job_with_75(tuned, study, tmp_path, data_folder):
    """The command itself, in a process."""
    tuned["recipe"]["epochs"] = 100
    (tmp_path / "tiny.json").write_text(json.dumps(tuned))
    slow = check_study(tuned, "tiny")
    files = slow.files.trial(PATH)
    command = [sys.executable, "-m", "dmlbench", "trial", "tiny.json", PATH]
    command += ["--key", slow.trials[PATH].key]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        for line in process.stdout:
            if line.startswith("epoch 2/"):
                break
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == TRY_AGAIN
    assert (files.state / "fold0/checkpoint.pt").is_file()
    assert not files.trial.exists()


def test_a_trial_under_another_key_than_planned_is_refused(tuned, study, tmp_path, capfd):
    from dmlbench.cli.main import main

    (tmp_path / "tiny.json").write_text(json.dumps(tuned))
    with pytest.raises(SystemExit, match="was planned under key 123"):
        main(["trial", "tiny.json", PATH, "--key", "123"])
    with pytest.raises(SystemExit, match=r"no such trial\. Did you mean"):
        main(["trial", "tiny.json", f"{CELL}/trial7"])
    del tuned["tuning"]
    (tmp_path / "tiny.json").write_text(json.dumps(tuned))
    with pytest.raises(SystemExit, match="the study has no `tuning`"):
        main(["trial", "tiny.json", PATH])


def test_validation_changes_no_bit_of_the_training(study, glyphs, tmp_path):
    trial = study.trials[PATH]
    run = trial.run
    split, held_out = hold_out(glyphs.split("train", Part(0.04)), [1, 4])
    validate = validation.Validation(run, glyphs, held_out, CPU, trial.tuning)
    watched, plain = (
        train(run, glyphs, split, CPU, tmp_path / name, lambda: None, after)
        for name, after in (("watched", validate), ("plain", None))
    )
    states = [model.state_dict() for model, *_ in (watched, plain)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert [row["loss"] for row in watched[2]] == [row["loss"] for row in plain[2]]
    assert ["score" in row for row in watched[2] + plain[2]] == [True] * 3 + [False] * 3


def test_too_few_classes_for_the_folds_are_a_result_that_says_so(tuned, run_job):
    tuned["tuning"]["folds"] = 20
    _, result, _ = run_job(of=check_study(tuned, "tiny"))
    assert result["status"] != "ok"
    assert "20 folds of" in result["error"]["message"]


class Published(NamedTuple):
    """What `make_folds` reads of a store."""

    parts: list[str]

    @property
    def index(self):
        return {"split": np.array(self.parts, dtype=object)}

    def split(self, name, part):
        rows = np.flatnonzero(self.index["split"] != "test")
        labels = np.repeat(np.arange(len(rows) // 2), 2)
        return Split(rows, labels, [f"class {label}" for label in range(len(rows) // 2)], None)


def test_the_published_part_is_the_only_fold(tuned):
    tuned["tuning"] = {"classes": "published"}
    trial = check_study(tuned, "tiny").trials[PATH]
    parts = ["test"] * 4 + ["validation"] * 4 + ["train"] * 6
    ((train_part, held_out),) = validation.make_folds(trial.run, trial.tuning, Published(parts))
    assert held_out.rows.tolist() == [4, 5, 6, 7]
    assert train_part.rows.tolist() == [*range(8, 14)]
    assert train_part.labels.tolist() == [0, 0, 1, 1, 2, 2]
    with pytest.raises(StudyError, match=r"datasets\.letters: it has no validation part\."):
        [*validation.make_folds(trial.run, trial.tuning, Published(["train"] * 8))]


def test_contiguous_folds_are_blocks_in_the_order_of_the_classes(tuned, glyphs):
    tuned["tuning"] = {"classes": "contiguous", "folds": 3}
    trial = check_study(tuned, "tiny").trials[PATH]
    folds = [
        held_out.class_names
        for _, held_out in validation.make_folds(trial.run, trial.tuning, glyphs)
    ]
    assert len(folds) == 3
    assert [name for fold in folds for name in fold] == glyphs.split(
        "train", Part(0.04)
    ).class_names
