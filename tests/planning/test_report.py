"""The text of `dmlbench plan`: the runs, and a screen of reasons however many runs there are."""

import io
import json
import subprocess
import sys

import pytest

from dmlbench.planning.report import show_diff, show_plan
from dmlbench.study.study import check_study

PATH = "letters/tiny/proxy_anchor/seed0"


@pytest.fixture
def diff(stores, capsys):
    """The output of `show_diff`."""

    def call(study):
        show_diff(study, stores)
        return capsys.readouterr().out

    return call


def test_the_plan_lists_each_run_with_its_key_and_counts_the_jobs(finished, stores, capsys):
    show_plan(finished, stores)
    output = capsys.readouterr()
    assert output.out.splitlines() == [
        f"{path}  {run.train_key}" for path, run in finished.runs.items()
    ]
    assert output.err == "tiny: 3 runs, 1 packed store; to do: nothing\n"


def test_the_summary_comes_first_and_a_terminal_gets_few_runs(
    tiny, stores, tmp_path, capfd, monkeypatch
):
    tiny["plan"]["seeds"] = [*range(100)]
    study = check_study(tiny, "tiny")
    order = []

    class Terminal(io.StringIO):
        def isatty(self):
            return True

        def write(self, text):
            order.append(text)
            return len(text)

    monkeypatch.setattr(sys, "stdout", Terminal())
    monkeypatch.setattr(sys, "stderr", Terminal())
    show_plan(study, stores)
    lines = "".join(order).splitlines()
    assert lines[0].startswith(
        "tiny: 201 runs, 1 packed store; to do: pack_store 1, find_duplicates 1, train 201, "
    )
    runs = [line for line in lines if "/seed" in line]
    assert runs == [f"{path}  {run.train_key}" for path, run in [*study.runs.items()][:40]]
    assert lines[-1] == "... and 161 more: dmlbench plan STUDY | cat"


def test_reading_only_the_first_lines_gives_no_traceback(tiny, tmp_path):
    tiny["plan"]["seeds"] = [*range(2000)]
    (tmp_path / "many.json").write_text(json.dumps(tiny))
    plan = [sys.executable, "-m", "dmlbench", "plan", "many.json"]
    process = subprocess.Popen(plan, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline().startswith("letters/tiny/control_random/seed0  ")
    process.stdout.close()
    said, code = process.stderr.read(), process.wait(60)
    assert (len(said.splitlines()), code) == (3, 0), said  # the summary, and no traceback


def test_a_new_study_names_all_its_jobs(tiny, diff):
    study = check_study(tiny, "tiny")
    (store,) = study.stores
    assert diff(study).splitlines() == [
        "tiny: 3 runs, 1 packed store; to do: pack_store 1, find_duplicates 1, train 3, "
        "evaluate 3, build_leaderboard 1, verdict 1",
        "",
        "pack_store: 1",
        f"  {store}",
        "",
        "find_duplicates: 1",
        f"  {store}",
        "",
        "train: 3",
        "  no result yet: 3 runs (letters x tiny x all 3 losses x seed 0)",
        "",
        "evaluate: 3",
        "  after their training: 3",
        "",
        "build_leaderboard: not written yet",
        "verdict: not written yet",
    ]


def test_archives_and_weights_that_are_fetched_are_named(tiny, diff):
    tiny["datasets"] = {"letters": {"type": "omniglot"}}
    tiny["backbones"]["tiny"]["pretrained"] = True
    study = check_study(tiny, "tiny")
    (store,) = study.stores
    text = diff(study)
    assert f"\nfetch_archives: 1\n  {store} (only archives that are missing)\n" in text
    assert "\nfetch_weights: 1\n  test_resnet.r160_in1k\n" in text


def test_thousands_of_runs_with_few_reasons_are_a_screen(tiny, finish, diff):
    losses = ["proxy_anchor", "normalized_softmax", "rll", "triplet", "softtriple"]
    tiny["plan"] |= {"losses": losses, "seeds": [*range(100)]}
    tiny["losses"] = {"proxy_anchor": {"alpha": 16}}
    finish(check_study(tiny, "tiny"))
    tiny["losses"] = {}
    tiny["recipe"]["lr"] = 0.001
    lines = diff(check_study(tiny, "tiny")).splitlines()
    assert lines[0].endswith("to do: train 500, evaluate 500, build_leaderboard 1, verdict 1")
    runs = "letters x tiny x normalized_softmax, rll, triplet, softtriple x all 100 seeds"
    assert f"  recipe.lr: 0.003 -> 0.001: 400 runs ({runs})" in lines
    runs = "letters x tiny x proxy_anchor x all 100 seeds"
    both = "loss.alpha: 16.0 -> 32.0; recipe.lr: 0.003 -> 0.001"
    assert f"  {both}: 100 runs ({runs})" in lines
    assert len(lines) < 15


def test_a_detail_that_only_the_first_run_has_is_shown_with_dots(tiny, write_attempt, diff):
    study = check_study(tiny, "tiny")
    for path, step in ((PATH, 3), ("letters/tiny/normalized_softmax/seed0", 5)):
        write_attempt(study, path, step=step, steps=9)
    # in the order of the plan
    assert "  interrupted (at step 5 of 9, ...): 2 runs (" in diff(study)


def test_models_that_were_not_kept_are_named(tiny, finished, diff):
    assert "model" not in diff(finished)
    text = diff(check_study(tiny | {"keep_model": True}, "tiny"))
    assert "to do: nothing" in text
    assert "2 runs (letters x tiny x all 2 losses x seed 0) have a result and no model" in text
