"""`dmlbench.train`: one run by the workflow, and its results as an object."""

import json
import os
import signal
import threading
import time

import numpy as np
import pytest

import dmlbench
from dmlbench.library import training
from dmlbench.study.study import check_study
from dmlbench.utils.errors import InvalidArgument, StudyError

PARTS = {"dataset": "glyphs", "backbone": "test_resnet", "loss": "htl"}

BOMB = ["x"]
for _ in range(9):
    BOMB = [BOMB] * 9  # 9^9 texts


@pytest.fixture
def folder(tmp_path, monkeypatch, data_folder):
    """An empty current folder, with the packed glyphs."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DMLBENCH_DATA", str(data_folder))
    return tmp_path


@pytest.fixture
def parts(tiny):
    """A run that takes seconds."""
    dataset, backbone = tiny["datasets"]["letters"], tiny["backbones"]["tiny"]
    return {"dataset": dataset, "backbone": backbone, "loss": "htl", "recipe": tiny["recipe"]}


@pytest.fixture
def command(folder, monkeypatch):
    """Stand in for Snakemake: a command of the shell, which the test sets."""
    given = []

    def stand_in(file, arguments):
        given.append((json.loads(file.read_text()), arguments))
        return ["sh", "-c", given.text]

    given = type("Given", (list,), {"text": "true"})()
    monkeypatch.setattr(training, "snakemake_command", stand_in)
    return given


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "dataset: is missing. Give a name"),
        (PARTS | {"backbone": {"dim": 8}}, "backbone: found {'dim': 8}. Give a name"),
        (PARTS | {"loss": 3}, "loss: found 3"),
        ({"study": {"study": "x"}, "loss": "htl"}, "study: a study has its own data sets"),
        ({"study": {"study": "x"}, "recipe": {}}, "study: a study has its own data sets"),
        ({"study": {"study": "x"}, "seed": 0}, "study: a study has its own data sets"),
        ({"study": ["x"]}, "study: found .'x'.. Give a file, a name, or a mapping"),
        ({"study": BOMB}, r"study: found \[\[\["),
        (PARTS | {"loss": BOMB}, r"loss: found \[\[\["),
    ],
)
def test_parts_that_make_no_run_are_refused(folder, arguments, message):
    with pytest.raises(InvalidArgument, match=message):
        dmlbench.train(**arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (PARTS | {"loss": "htll"}, "losses.htll: no loss 'htll'. Did you mean 'htl'"),
        (PARTS | {"recipe": {"lr": -1}}, "recipe.lr: found -1"),
        (PARTS | {"recipe": {"epoch": 1}}, "recipe.epoch: .*epochs"),
        (PARTS | {"seed": -1}, "plan.seeds.0: found -1"),
        (PARTS | {"loss": {"type": "htl", "neighbours": 5}}, "neighbours 5 x"),
        ({"study": "no_such.yaml"}, "no_such.yaml: .*\n.*there is no such file"),
    ],
)
def test_settings_are_checked_as_those_of_a_study_file(folder, arguments, message):
    with pytest.raises(StudyError, match=message):
        dmlbench.train(**arguments)


def test_a_study_without_end_is_refused_at_once(folder):
    loop = {"study": "x"}
    loop["plan"] = loop
    for content, problem in ((loop, "stands inside the value"), ({"plan": BOMB}, "100,000 values")):
        with pytest.raises(StudyError, match=problem):
            dmlbench.train(content)
    with pytest.raises(StudyError, match="100,000 values"):
        dmlbench.train(**PARTS, recipe={"lr": BOMB})


def test_a_recipe_that_is_no_mapping_is_refused_as_in_a_study_file(folder):
    for wrong in ("fast", [1], False):
        with pytest.raises(StudyError, match=r"recipe: found .*, not a mapping"):
            dmlbench.train(**PARTS, recipe=wrong)
        with pytest.raises(StudyError, match=r"evaluation: found .*, not a mapping"):
            dmlbench.train(**PARTS, evaluation=wrong)


def test_paths_and_numbers_of_numpy_are_those_of_a_study_file(command, parts, tmp_path):
    parts["recipe"] = parts["recipe"] | {"epochs": np.int64(2), "lr": np.float32(0.5)}
    for given in (parts, {"dataset": parts["dataset"] | {"class_fraction": np.float64(0.2)}}):
        with pytest.raises(training.TrainingFailed):
            dmlbench.train(**(parts | given), seed=np.int64(3))
    ((content, _), _) = command
    assert content["recipe"] == parts["recipe"] | {"epochs": 2, "lr": 0.5}
    assert content["plan"]["seeds"] == [3]
    with pytest.raises(StudyError, match="none is not there"):
        dmlbench.train(**(PARTS | {"dataset": {"type": "folder", "folder": tmp_path / "none"}}))


def test_a_study_of_several_runs_needs_the_name_of_one(folder, tiny):
    with pytest.raises(InvalidArgument, match=r"run: the plan has 3\. Name one, as 'letters/tiny"):
        dmlbench.train(tiny)
    with pytest.raises(StudyError, match="letters/tiny/htl/seed0: no such run in the plan"):
        dmlbench.train(tiny, "letters/tiny/htl/seed0")


def test_the_workflow_is_asked_for_the_scores_of_the_one_run(command, tiny, parts):
    with pytest.raises(training.TrainingFailed):
        dmlbench.train(**parts, seed=3, evaluation={"recall_at": [1, 5]})
    ((content, target),) = command
    path = "glyphs/test_resnet/htl/seed3"
    assert target == [f"results/library/runs/{path}/metrics.json"]
    study = check_study(content, "its study")
    (run,) = study.runs.values()
    assert run.path == path
    assert run.metric_settings["recall_at"] == [1, 5]
    assert (study.settings.keep_model, study.settings.tracking) == (True, False)
    # the key is that of the same run in a study file: entries have names there
    tiny["plan"] |= {"losses": ["htl"], "seeds": [3], "controls": []}
    (other,) = check_study(tiny, "tiny").runs.values()
    assert run.train_key == other.train_key


def test_a_workflow_that_fails_is_an_error_with_its_last_lines(command, parts):
    command.text = "echo the disk is full; exit 1"
    with pytest.raises(training.TrainingFailed, match=r"htl/seed0: .*\n    the disk is full"):
        dmlbench.train(**parts)


def test_a_failed_training_is_an_error_with_its_reason_and_runs_again(command, tiny, write_results):
    tiny["plan"] |= {"losses": ["proxy_anchor"], "controls": []}
    study = check_study(tiny, "tiny")
    write_results(study, status="diverged")
    (path,) = study.runs
    files = study.files.run(path)
    command.text = f"cp {files.failed} {files.metrics}"  # it fails again
    with pytest.raises(training.TrainingFailed, match=r"diverged: it is diverged. .*log\.txt"):
        dmlbench.train(tiny)
    assert not files.run.exists()  # so that Snakemake trains


def test_a_finished_run_is_not_run_again(command, tiny, write_results):
    tiny["plan"] |= {"losses": ["proxy_anchor"], "controls": []}
    write_results(check_study(tiny, "tiny"))
    assert dmlbench.train(tiny).run.path == "letters/tiny/proxy_anchor/seed0"
    assert not command


def test_ctrl_c_interrupts_the_workflow_and_waits_for_it(command, parts, folder, capsys):
    command.text = "trap 'sleep 0.5; echo saved > saved; exit 1' INT; touch begun; sleep 60 & wait"

    def interrupt():
        while not (folder / "begun").exists():
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        dmlbench.train(**parts, progress=True)
    assert (folder / "saved").read_text() == "saved\n"
    assert "seed0: stopped. The same call goes on from its checkpoint." in capsys.readouterr().err


@pytest.mark.slow
def test_a_run_has_its_history_scores_embeddings_and_model(folder, parts):
    parts["recipe"]["epochs"] = 2
    result = dmlbench.train(**parts)
    assert [row["epoch"] for row in result.history] == [1, 2]
    assert result.history[1]["alpha_max"] > 0
    assert result.embeddings.shape == (len(result.labels), 16)
    assert len(result.paths) == len(result.labels)
    assert result.learnt["linkage"] == "single"
    scores = dmlbench.score(
        result.embeddings, result.labels, levels=result.levels, recall_at=[1, 2, 4, 8]
    )
    assert scores == result.metrics
    assert f"recall@1 {result.metrics['recall@1']:.4f}" in repr(result)
    import torch

    test = dmlbench.load_store(result._test_store.path, "test")
    row = test.paths.index(result.paths[5])
    with torch.no_grad():
        embedding = result.model(test[row][0][None] / 255)[0]
    assert np.allclose(embedding, result.embeddings[5], rtol=1e-3, atol=1e-4)
    began = time.monotonic()
    assert dmlbench.train(**parts).metrics == result.metrics
    assert time.monotonic() - began < 2
