"""The verdict removes the result files of failed runs, so that they run again, and nothing else."""

import json

import pytest

from dmlbench.workflow.verdict import verdict

FILES = ("run.json", "metrics.json", "embeddings.npz", "history.parquet")


def write_files(study, failed_training=None, failed_scoring=None):
    """Write the result files of all runs; the arguments are paths of runs that failed."""
    for path in study.runs:
        folder = study.folder / "runs" / path
        folder.mkdir(parents=True, exist_ok=True)
        for name in FILES:
            (folder / name).write_text("x")
        failure = {"status": "diverged", "error": {"message": "the loss is nan", "tail": []}}
        good = {"status": "ok", "error": None}
        keys = {key: getattr(study.runs[path], key) for key in ("train_key", "eval_key")}
        run = (failure if path == failed_training else good) | keys
        metrics = (failure if path in (failed_training, failed_scoring) else good) | keys
        (folder / "run.json").write_text(json.dumps(run))
        (folder / "metrics.json").write_text(json.dumps(metrics))


def remaining(study):
    return {
        (path, name)
        for path in study.runs
        for name in FILES
        if (study.folder / "runs" / path / name).exists()
    }


def failures(study):
    return {
        path: json.loads(file.read_text())["error"]["message"]
        for path in study.runs
        if (file := study.folder / "runs" / path / "failed.json").exists()
    }


def test_a_study_without_failures_keeps_all_its_files(study, capsys):
    write_files(study)
    before = remaining(study)
    assert verdict(study) == 0
    assert remaining(study) == before
    assert not failures(study)
    assert "all 3 runs have a result" in capsys.readouterr().out


def test_a_failed_training_is_named_and_its_files_are_removed(study, capsys):
    bad = "letters/tiny/proxy_anchor/seed0"
    write_files(study, failed_training=bad)
    before = remaining(study)
    assert verdict(study) == 1
    assert before - remaining(study) == {(bad, name) for name in FILES}
    assert f"{bad}: diverged: the loss is nan" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("file", "key", "removed"),
    [("run.json", "train_key", FILES), ("metrics.json", "eval_key", ("metrics.json",))],
)
def test_a_result_with_another_key_is_removed(study, capsys, file, key, removed):
    write_files(study)
    before = remaining(study)
    old = "letters/tiny/proxy_anchor/seed0"
    path = study.folder / "runs" / old / file
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: "another"}))
    assert verdict(study) == 1
    assert before - remaining(study) == {(old, name) for name in removed}
    assert f"{old}: this result is from other settings or code" in capsys.readouterr().out


def test_the_reason_of_a_failure_stays_until_the_run_succeeds(study):
    bad = "letters/tiny/proxy_anchor/seed0"
    write_files(study, failed_training=bad)
    verdict(study)
    assert failures(study) == {bad: "the loss is nan"}
    write_files(study)
    verdict(study)
    assert not failures(study)


def test_a_failed_scoring_keeps_its_training(study):
    bad = "letters/tiny/proxy_anchor/seed0"
    write_files(study, failed_scoring=bad)
    before = remaining(study)
    assert verdict(study) == 1
    assert before - remaining(study) == {(bad, "metrics.json")}
