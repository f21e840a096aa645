"""A failed run's result files go, so that it is asked for again; nothing else is touched."""

import json

import pytest

from dmlbench import study
from dmlbench.verdict import verdict

FILES = ("run.json", "metrics.json", "embeddings.npz", "history.parquet")


@pytest.fixture
def made(tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return study.check(tiny, "tiny")


def results(made, trained=None, scored=None):
    """Result files of all runs; `trained` and `scored` name the runs that failed there."""
    for path in made.runs:
        folder = made.folder / "runs" / path
        folder.mkdir(parents=True, exist_ok=True)
        for name in FILES:
            (folder / name).write_text("x")
        failure = {"status": "diverged", "error": {"message": "the loss is nan", "tail": []}}
        good = {"status": "ok", "error": None}
        keys = {key: getattr(made.runs[path], key) for key in ("train_key", "eval_key")}
        run = (failure if path == trained else good) | keys
        metrics = (failure if path in (trained, scored) else good) | keys
        (folder / "run.json").write_text(json.dumps(run))
        (folder / "metrics.json").write_text(json.dumps(metrics))


def left(made):
    return {
        (path, name)
        for path in made.runs
        for name in FILES
        if (made.folder / "runs" / path / name).exists()
    }


def failures(made):
    return {
        path: json.loads(file.read_text())["error"]["message"]
        for path in made.runs
        if (file := made.folder / "runs" / path / "failed.json").exists()
    }


def test_a_whole_study_is_well_and_keeps_all(made, capsys):
    results(made)
    before = left(made)
    assert verdict(made) == 0
    assert left(made) == before
    assert not failures(made)
    assert "all 3 runs have a result" in capsys.readouterr().out


def test_a_failed_training_is_named_and_goes(made, capsys):
    bad = "letters/tiny/proxy_anchor/seed0"
    results(made, trained=bad)
    before = left(made)
    assert verdict(made) == 1
    assert before - left(made) == {(bad, name) for name in FILES}
    assert f"{bad}: diverged: the loss is nan" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("file", "key", "gone"),
    [("run.json", "train_key", FILES), ("metrics.json", "eval_key", ("metrics.json",))],
)
def test_a_result_of_another_key_is_none_and_goes(made, capsys, file, key, gone):
    results(made)
    before = left(made)
    old = "letters/tiny/proxy_anchor/seed0"
    path = made.folder / "runs" / old / file
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: "another"}))
    assert verdict(made) == 1
    assert before - left(made) == {(old, name) for name in gone}
    assert f"{old}: this result is of other settings or code" in capsys.readouterr().out


def test_why_a_run_failed_stays_beside_it_until_it_succeeds(made):
    bad = "letters/tiny/proxy_anchor/seed0"
    results(made, trained=bad)
    verdict(made)
    assert failures(made) == {bad: "the loss is nan"}
    results(made)
    verdict(made)
    assert not failures(made)


def test_a_failed_evaluation_keeps_its_training(made):
    bad = "letters/tiny/proxy_anchor/seed0"
    results(made, scored=bad)
    before = left(made)
    assert verdict(made) == 1
    assert before - left(made) == {(bad, "metrics.json")}
