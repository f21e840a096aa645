"""A plan says what is due and why, from files alone: a screen of it, however many runs."""

import json
import subprocess
import sys

import pytest

from dmlbench import source, study
from dmlbench.due import due
from dmlbench.plan import show_diff, show_plan
from dmlbench.study import TABLES
from dmlbench.verdict import all_is_well

ONE = "letters/tiny/proxy_anchor/seed0"


@pytest.fixture
def stores(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path / "stores"


@pytest.fixture
def finished(tiny, stores, write_results):
    """The tiny study, as its jobs leave it."""
    made = study.check(tiny, "tiny")
    write_results(made)
    finish(made, stores)
    return made


def finish(made, stores):
    for store in made.stores:
        (stores / store).mkdir(parents=True, exist_ok=True)
        (stores / store / "manifest.json").touch()
    (made.folder / "leaderboard").mkdir(exist_ok=True)
    (made.folder / "leaderboard/leaderboard.md").touch()
    made_of = {"key": made.leaderboard_key, "code": source.code(TABLES)}
    (made.folder / "leaderboard/made.json").write_text(json.dumps(made_of))
    (made.folder / "verdict.txt").write_text(all_is_well(made) + "\n")


def change(made, name, **changes):
    file = made.folder / "runs" / ONE / name
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_nothing_is_due_of_a_finished_study(finished, stores):
    assert due(finished, stores).counts == {}


def test_a_packed_store_is_due_where_a_job_needs_it(finished, tiny, stores):
    (manifest,) = stores.glob("*/manifest.json")
    manifest.unlink()
    assert due(finished, stores).counts == {}
    tiny["recipe"]["epochs"] = 2
    counts = due(study.check(tiny, "tiny"), stores).counts
    assert counts == {"store": 1, "train": 2, "evaluate": 2, "tables": 1, "verdict": 1}


def test_archives_are_due_where_a_store_is_to_be_made_of_them(tiny, stores, capsys):
    tiny["datasets"] = {"letters": {"type": "omniglot"}}
    made = study.check(tiny, "tiny")
    (store,) = made.stores
    assert due(made, stores).counts["archives"] == 1
    show_diff(made, stores)
    assert (
        f"archives: 1\n  to be fetched, if they are not there: {store}" in capsys.readouterr().out
    )
    (stores / store).mkdir(parents=True)
    (stores / store / "archives.json").touch()
    assert "archives" not in due(made, stores).counts


def test_weights_are_due_where_a_training_starts_from_them(finished, tiny, stores, capsys):
    tiny["backbones"]["tiny"]["pretrained"] = True
    made = study.check(tiny, "tiny")
    assert due(made, stores).weights == ["test_resnet.r160_in1k"]
    show_diff(made, stores)
    assert "weights: 1\n  to be fetched: test_resnet.r160_in1k" in capsys.readouterr().out
    (stores.parent / "weights").mkdir()
    (stores.parent / "weights/test_resnet.r160_in1k.safetensors").touch()
    assert "weights" not in due(made, stores).counts


def test_a_result_that_does_not_say_its_code_was_made_by_other_code(finished, stores):
    """As those that were written before it was noted."""
    file = finished.folder / "runs" / ONE / "run.json"
    older = json.loads(file.read_text()) | {"train_key": "older"}
    del older["code"]
    file.write_text(json.dumps(older))
    assert due(finished, stores).train[ONE].text == "the training's code"


def test_scores_that_do_not_say_their_code_were_made_by_other_settings_or_code(finished, stores):
    file = finished.folder / "runs" / ONE / "metrics.json"
    older = json.loads(file.read_text()) | {"eval_key": "older"}
    del older["code"], older["settings"]
    file.write_text(json.dumps(older))
    found = due(finished, stores)
    assert found.evaluate == {ONE: ("the metrics' settings or code", "")}


def test_another_type_hides_its_options_and_long_values_are_cut(finished, stores):
    run = finished.runs[ONE]
    loss = {"type": "htl", "sub": {"anchors": 3}}
    data = run.settings["dataset"] | {"facts": {**run.facts, "rows": "sha256:" + 64 * "a"}}
    settings = run.settings | {"loss": loss, "dataset": data}
    change(finished, "run.json", train_key="older", settings=settings)
    text = due(finished, stores).train[ONE].text
    shown = "sha256:" + 30 * "a" + "..."
    assert text == f"dataset.facts.rows: {shown} -> (none); loss.type: htl -> proxy_anchor"


def test_interrupted_failed_and_running_trainings_say_so(tiny, stores, write_attempt):
    made = study.check(tiny, "tiny")
    write_attempt(made, ONE, step=3, steps=9)
    assert due(made, stores).train[ONE] == ("interrupted", "at step 3 of 9")
    other = "letters/tiny/normalized_softmax/seed0"
    folder = made.folder / "runs" / other
    folder.mkdir(parents=True)
    failed = {"status": "diverged", "error": {"message": "the loss is nan"}, "eval_key": "x"}
    for key, why in {
        "older": "no result yet",
        made.runs[other].train_key: "failed: diverged",
    }.items():
        (folder / "failed.json").write_text(json.dumps(failed | {"train_key": key}))
        assert due(made, stores).train[other].text == why


def test_a_training_that_is_newer_than_its_scores_is_scored(finished, stores, write_results):
    write_results(finished, ONE, stage="run.json")
    found = due(finished, stores)
    assert found.evaluate == {ONE: ("trained anew since", "")}
    assert found.counts == {"evaluate": 1, "tables": 1, "verdict": 1}


def test_scores_that_failed_are_made_again_and_their_training_is_not(finished, stores):
    folder = finished.folder / "runs" / ONE
    change(finished, "metrics.json", status="error", error={"message": "it broke"})
    (folder / "metrics.json").rename(folder / "failed.json")
    (finished.folder / "verdict.txt").unlink()
    found = due(finished, stores)
    assert found.evaluate == {ONE: ("failed: error", "it broke")}
    assert found.counts == {"evaluate": 1, "tables": 1, "verdict": 1}


def test_thousands_of_runs_with_few_reasons_are_a_screen(tiny, stores, write_results, capsys):
    losses = ["proxy_anchor", "normalized_softmax", "rll", "triplet", "softtriple"]
    tiny["plan"] |= {"losses": losses, "seeds": [*range(100)]}
    tiny["losses"] = {"proxy_anchor": {"alpha": 16}}
    before = study.check(tiny, "tiny")
    write_results(before)
    finish(before, stores)
    tiny["losses"] = {}
    tiny["recipe"]["lr"] = 0.001
    show_diff(study.check(tiny, "tiny"), stores)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("to do: train 500, evaluate 500, tables 1, verdict 1")
    which = "letters x tiny x normalized_softmax, rll, triplet, softtriple x all 100 seeds"
    assert f"  recipe.lr: 0.003 -> 0.001: 400 runs ({which})" in lines
    which = "letters x tiny x proxy_anchor x all 100 seeds"
    both = "loss.alpha: 16.0 -> 32.0; recipe.lr: 0.003 -> 0.001"
    assert f"  {both}: 100 runs ({which})" in lines
    assert len(lines) < 15


def test_runs_that_are_no_whole_product_are_not_said_to_be_one(tiny, stores, write_results, capsys):
    tiny["plan"]["seeds"] = [0, 1]
    made = study.check(tiny, "tiny")
    write_results(made)
    finish(made, stores)
    for path in ("letters/tiny/proxy_anchor/seed0", "letters/tiny/normalized_softmax/seed1"):
        (made.folder / "runs" / path / "embeddings.npz").unlink()
        (made.folder / "runs" / path / "metrics.json").unlink()
    (made.folder / "verdict.txt").unlink()
    show_diff(made, stores)
    which = "2 runs (among letters x tiny x all 2 losses x all 2 seeds)"
    assert f"no embeddings.npz: {which}" in capsys.readouterr().out


def test_models_that_are_asked_for_too_late_are_named(tiny, finished, stores, capsys):
    show_diff(finished, stores)
    assert "model" not in capsys.readouterr().out
    tiny["keep_model"] = True
    show_diff(study.check(tiny, "tiny"), stores)
    said = capsys.readouterr().out
    assert "to do: nothing" in said
    assert "2 runs (letters x tiny x all 2 losses x seed 0) have a result and no model" in said


def test_who_reads_the_first_lines_alone_gets_no_traceback(tiny, stores):
    tiny["plan"]["seeds"] = [*range(2000)]
    (stores.parent / "many.json").write_text(json.dumps(tiny))
    plan = [sys.executable, "-m", "dmlbench", "plan", "many.json"]
    process = subprocess.Popen(plan, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline().startswith("letters/tiny/control_random/seed0  ")
    process.stdout.close()
    assert (process.stderr.read(), process.wait(60)) == ("", 0)


def test_the_plan_lists_each_run_with_its_key_and_counts_the_jobs(finished, stores, capsys):
    show_plan(finished, stores)
    said = capsys.readouterr()
    assert said.out.splitlines() == [f"{p}  {run.train_key}" for p, run in finished.runs.items()]
    assert said.err == "tiny: 3 runs, 1 packed store; to do: nothing\n"
