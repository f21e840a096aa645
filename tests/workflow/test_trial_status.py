"""How far the trials of a tuned study are, and what their failures leave behind."""

import fcntl
from pathlib import Path

import pytest

from dmlbench.study.study import check_study
from dmlbench.workflow.conclusion import find_holes
from dmlbench.workflow.failed_jobs import find_failed_jobs
from dmlbench.workflow.status import format_statuses, read_statuses
from dmlbench.workflow.supervisor import _has_advanced, _is_final, _progress
from tests.result_edits import edit_result
from tests.tuned_results import write_choices, write_chosen_runs, write_trials

CELL, OTHER = "letters/tiny/proxy_anchor", "letters/tiny/normalized_softmax"
TRIAL, RUN = f"{CELL}/trial1", f"{CELL}/seed0"
DATA = Path("data")


@pytest.fixture
def study(tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tiny["plan"]["controls"] = []
    return check_study(tiny | {"tuning": {"trials": 2, "folds": 4}}, "tiny")


@pytest.fixture
def write_fold(write_attempt):
    """Write the state of a trial that was begun and is at a fold, and give its lock file."""

    def write(study, path, fold, step=10, steps=40, **more):
        lock = write_attempt(study, path, step=step, steps=steps, **more)
        folder = lock.parent / f"fold{fold}"
        folder.mkdir()
        (lock.parent / "progress.json").rename(folder / "progress.json")
        return lock

    return write


def states(study):
    return {status.path: status.state for status in read_statuses(study)}


def text(study):
    return "\n".join(format_statuses(study, read_statuses(study)))


def test_trials_are_counted_apart_from_runs(study, write_results):
    write_trials(study, TRIAL)
    write_trials(study, f"{CELL}/trial0", status="diverged")
    write_results(study, f"{OTHER}/seed0")
    assert text(study).splitlines()[:2] == [
        "tiny: 2 runs: 1 done, 1 waiting",
        "4 trials: 2 done, 2 waiting",
    ]


def test_a_running_trial_shows_its_fold_and_the_time_of_all_folds(study, write_fold):
    lock = write_fold(study, TRIAL, fold=1)  # 30 steps of this fold at 10 a second, 2 more folds
    with lock.open("w") as holder:
        fcntl.flock(holder, fcntl.LOCK_EX)
        assert states(study)[TRIAL] == "running"
        (row,) = [line for line in text(study).splitlines() if line.startswith(TRIAL)]
    assert " 10/40 of fold1 " in row
    assert " 38 s " in row or " 37 s " in row
    assert states(study)[TRIAL] == "dead"
    assert f"{TRIAL}  killed at step 10 of 40 of fold1" in text(study)


def test_a_failed_trial_shows_its_reason_and_is_no_result(study):
    write_trials(study, TRIAL, status="out_of_memory")
    assert states(study)[TRIAL] == "failed"
    assert f"{TRIAL}  out_of_memory: ValueError: it is out_of_memory" in text(study)
    assert states(study)[RUN] == "waiting"


def test_a_trial_of_other_settings_waits(tiny, study):
    write_trials(study)
    tiny["recipe"]["epochs"] = 2
    changed = check_study(tiny | {"tuning": {"trials": 2, "folds": 4}}, "tiny")
    assert states(changed)[TRIAL] == "stale"


def test_a_choice_that_failed_is_named_until_it_is_there(study):
    write_trials(study)
    log = study.files.choice(CELL).log
    log.write_text("dmlbench: the key is another\n")
    (job,) = find_failed_jobs(study, DATA)
    assert (job.name, job.reason, job.log) == (f"choose {CELL}", "the key is another", log)
    hole = find_holes(study, DATA)[RUN]
    assert hole.status == "not_tuned"
    assert hole.message == f"its settings are not chosen: the key is another (see {log})"
    write_choices(study)
    assert find_failed_jobs(study, DATA) == []


def test_a_lost_trial_leaves_a_hole_for_the_runs_of_its_cell_alone(study, write_fold):
    write_trials(study, f"{CELL}/trial0", *study.trials.keys() - {TRIAL, f"{CELL}/trial0"})
    write_fold(study, TRIAL, fold=2)
    holes = find_holes(study, DATA)
    assert holes[RUN] == (
        "not_tuned",
        f"its settings are not chosen: {TRIAL}: lost: its job ended without a result, at step 10 "
        "of 40 of fold2",
    )
    assert holes[f"{OTHER}/seed0"].status == "not_run"


def test_a_trial_that_said_why_it_failed_is_the_reason(study):
    log = study.files.trial(TRIAL).log
    log.parent.mkdir(parents=True)
    log.write_text("dmlbench: the key is another\n")
    assert states(study)[TRIAL] == "failed"
    message = f"{TRIAL}: error: training: the key is another (see {log})"
    assert find_holes(study, DATA)[RUN].message == f"its settings are not chosen: {message}"


def test_the_driver_sees_that_trials_get_further(study, write_fold):
    def progress():
        return _progress(read_statuses(study))

    begun = progress()
    lock = write_fold(study, TRIAL, fold=0, step=30)
    first = progress()
    (lock.parent / "fold0").rename(lock.parent / "fold1")
    (lock.parent / "fold1/progress.json").write_text(
        (lock.parent / "fold1/progress.json").read_text().replace('"step": 30', '"step": 1')
    )
    later = progress()
    assert _has_advanced(begun, first)
    assert _has_advanced(first, later)
    assert not _has_advanced(later, later)


def test_a_study_whose_only_failures_are_those_of_trials_is_final(study, write_results):
    write_trials(study)
    write_trials(study, TRIAL, status="error")
    write_results(study)
    assert _is_final(read_statuses(study), advanced=True)


def test_a_run_with_other_settings_than_the_chosen_ones_waits(study, write_results):
    write_trials(study)
    write_choices(study)
    write_results(study)
    write_chosen_runs(study, edit_result)
    assert states(study)[RUN] == "done"
    write_choices(study, CELL, number=1)
    assert states(study)[RUN] == "stale"
    assert states(study)[f"{OTHER}/seed0"] == "done"
    study.files.chosen(CELL).unlink()
    assert states(study)[RUN] == "done"  # as far as anybody knows
