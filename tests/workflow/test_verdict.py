"""The verdict removes the result files of failed runs, so that they run again, and nothing else."""

import pytest

from dmlbench.leaderboard.made_of import write_made_of
from dmlbench.leaderboard.table import Hole
from dmlbench.study.study import check_study
from dmlbench.utils.errors import MissingResult
from dmlbench.workflow.verdict import MAX_LINES, describe_failures, success_message, verdict
from tests.result_edits import edit_result
from tests.tuned_results import write_choices, write_trials

FILES = ("run.json", "metrics.json", "embeddings.npz", "history.parquet")
BAD = "letters/tiny/proxy_anchor/seed0"


@pytest.fixture
def fail():
    """Let a run fail in its training or, with stage="metrics.json", in its scoring."""

    def fail(study, path, stage="run.json", status="diverged"):
        error = {"message": "the loss is nan", "tail": []}
        folder = study.folder / "runs" / path
        if stage == "run.json":
            edit_result(folder / "run.json", status=status, error=error)
        edit_result(folder / "metrics.json", status=status, error=error, metrics=[])

    return fail


def remaining(study):
    return {
        (path, name)
        for path in study.runs
        for name in FILES
        if (study.folder / "runs" / path / name).exists()
    }


def failures(study):
    """The reasons of the failed runs that were put aside."""
    failed = {path: study.files.run(path).read_failure() for path in study.runs}
    return {path: result["error"]["message"] for path, result in failed.items() if result}


def test_a_study_without_failures_keeps_all_its_files_and_has_a_verdict(
    study, write_results, capsys
):
    write_results(study)
    before = remaining(study)
    assert verdict(study) == 0
    assert remaining(study) == before
    assert not failures(study)
    assert "all 3 runs have a result" in capsys.readouterr().out
    assert success_message(study) in study.files.verdict.read_text().splitlines()


def test_a_plot_that_could_not_be_drawn_is_named_and_is_no_failure(study, write_results, capsys):
    write_results(study)
    write_made_of(study, "of these results", failed_plots={"time": "ValueError: no font"})
    assert verdict(study) == 0
    line = "the plot `time` could not be drawn: ValueError: no font."
    assert line in capsys.readouterr().out.splitlines()
    assert line in study.files.verdict.read_text().splitlines()


def test_a_failed_training_is_named_and_its_files_and_the_verdict_are_removed(
    study, write_results, fail, capsys
):
    write_results(study)
    study.files.verdict.write_text("of an earlier call")
    fail(study, BAD)
    before = remaining(study)
    assert verdict(study) == 1
    assert before - remaining(study) == {(BAD, name) for name in FILES}
    assert not study.files.verdict.exists()
    output = capsys.readouterr().out
    assert f"{BAD}: diverged: the loss is nan" in output
    assert "  diverged: a lower lr, or clip_norm" in output
    assert "The leaderboard shows them as holes." in output


@pytest.mark.parametrize(
    ("file", "key", "removed"),
    [("run.json", "train_key", FILES), ("metrics.json", "eval_key", ("metrics.json",))],
)
def test_a_result_with_another_key_is_removed(study, write_results, capsys, file, key, removed):
    write_results(study)
    before = remaining(study)
    edit_result(study.folder / "runs" / BAD / file, **{key: "another"})
    assert verdict(study) == 1
    assert before - remaining(study) == {(BAD, name) for name in removed}
    assert f"{BAD}: outdated: this result is from other settings or code" in capsys.readouterr().out


def test_the_reason_of_a_failure_stays_until_the_run_succeeds(study, write_results, fail):
    write_results(study)
    fail(study, BAD)
    verdict(study)
    assert failures(study) == {BAD: "the loss is nan"}
    write_results(study)
    verdict(study)
    assert not failures(study)


def test_a_failed_scoring_keeps_its_training(study, write_results, fail):
    write_results(study)
    fail(study, BAD, stage="metrics.json")
    before = remaining(study)
    assert verdict(study) == 1
    assert before - remaining(study) == {(BAD, "metrics.json")}


def test_damaged_embeddings_are_trained_again(study, write_results, fail):
    write_results(study)
    fail(study, BAD, stage="metrics.json", status="damaged")
    before = remaining(study)
    assert verdict(study) == 1
    assert before - remaining(study) == {(BAD, name) for name in FILES}


def test_a_run_without_a_result_is_an_error_unless_it_is_a_known_hole(study, write_results, capsys):
    write_results(study, *(path for path in study.runs if path != BAD))
    before = remaining(study)
    with pytest.raises(MissingResult, match=r"metrics\.json"):
        verdict(study)
    assert verdict(study, {BAD: Hole("lost", "killed at step 7 of 9")}) == 1
    assert remaining(study) == before
    output = capsys.readouterr().out
    assert output.splitlines() == [
        "tiny: 1 of 3 runs failed:",
        f"  {BAD}: lost: killed at step 7 of 9",
        "What helps:",
        "  lost: nothing: the same call goes on from its checkpoint",
        "The leaderboard shows them as holes. The same `snakemake` call repeats only these.",
    ]


def test_runs_that_failed_for_the_same_reason_are_one_line(study):
    hole = Hole("missing_data", "no birds")
    failed = {f"birds/{backbone}/{loss}/seed0": hole for backbone in "ab" for loss in "cd"}
    failed |= {"cars/a/c/seed0": Hole("error", "no")}
    assert describe_failures(study, failed)[1:] == [
        "  4 runs of birds: missing_data: no birds",
        "  cars/a/c/seed0: error: no",
    ]


def test_a_verdict_shows_not_more_than_a_screen(study):
    failed = {f"a/b/c/seed{seed}": Hole("error", f"no {seed}") for seed in range(99)}
    lines = describe_failures(study, failed)
    assert lines[-1] == f"  ... and {99 - MAX_LINES} more: dmlbench status tiny"
    assert len(lines) == MAX_LINES + 2


def test_a_failed_trial_fails_the_verdict_and_a_diverged_one_does_not(tiny, write_results, capsys):
    study = check_study(tiny | {"tuning": {"trials": 2}}, "tiny")
    write_trials(study)
    write_choices(study)
    write_results(study)
    write_trials(study, "letters/tiny/proxy_anchor/trial1", status="diverged")
    assert verdict(study) == 0
    assert study.files.verdict.is_file()
    capsys.readouterr()
    write_trials(study, "letters/tiny/proxy_anchor/trial0", status="killed")
    write_trials(study, "letters/tiny/normalized_softmax/trial1", status="killed")
    assert verdict(study) == 1
    assert capsys.readouterr().out.splitlines() == [
        "tiny: 2 of 4 trials failed:",
        "  2 trials of letters x tiny: killed: ValueError: it is killed",
        "What helps:",
        "  killed: its log; often the machine has too little memory",
        "No settings were chosen by them. The same `snakemake` call repeats only these.",
    ]
    assert not study.files.verdict.exists()
    assert study.files.trial("letters/tiny/proxy_anchor/trial0").read_trial()  # the page has it
