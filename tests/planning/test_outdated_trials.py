"""The inputs of the jobs of a tuned study, as Snakemake gets them."""

import pytest

from dmlbench.planning.outdated import MARKER, Inputs
from dmlbench.study.study import check_study

from ..result_edits import edit_result
from ..tuned_results import write_choices, write_chosen_runs, write_trials

CELL, OTHER = "letters/tiny/proxy_anchor", "letters/tiny/normalized_softmax"
TRIAL = f"{CELL}/trial1"
OUTDATED = str(MARKER)


def ignored(file):
    return f"ancient {file}"


@pytest.fixture
def tuned(tiny):
    return check_study(tiny | {"tuning": {"trials": 2, "folds": 2}}, "tiny")


@pytest.fixture
def finished(tuned, finish):
    write_trials(tuned)
    write_choices(tuned)
    finish(tuned)
    write_chosen_runs(tuned, edit_result)
    return tuned


def trial_files(study, cell):
    return [str(study.files.trial(trial.path).trial) for trial in study.tuned_cells[cell]]


def test_a_finished_choice_reads_its_trials_and_a_training_its_choice_whatever_their_dates(
    finished, stores
):
    inputs = Inputs(finished, stores, ignored)
    assert inputs.of_trial(TRIAL) == []
    assert inputs.of_choice(CELL) == [*map(ignored, trial_files(finished, CELL))]
    assert inputs.of_training(f"{CELL}/seed0") == [ignored(finished.files.chosen(CELL))]
    assert inputs.of_training("letters/tiny/control_random/seed0") == []


def test_a_pending_trial_marks_its_choice_and_the_trainings_after_it(finished, stores):
    finished.files.trial(TRIAL).curve.write_text("damaged")
    inputs = Inputs(finished, stores, ignored)
    assert inputs.of_trial(TRIAL) == [OUTDATED]
    assert inputs.of_trial(f"{CELL}/trial0") == []
    assert inputs.of_choice(CELL) == [*trial_files(finished, CELL), OUTDATED]
    assert inputs.of_training(f"{CELL}/seed0") == [str(finished.files.chosen(CELL)), OUTDATED]
    assert OUTDATED not in [*inputs.of_choice(OTHER), *inputs.of_training(f"{OTHER}/seed0")]
    assert str(finished.files.chosen(OTHER)) in inputs.of_leaderboard()


def test_a_job_on_a_node_that_looks_at_nothing_still_knows_its_inputs(tuned, stores):
    inputs = Inputs(tuned, stores, ignored, is_asked=False)
    assert inputs.of_trial(TRIAL) == []
    assert inputs.of_training(f"{CELL}/seed0") == [str(tuned.files.chosen(CELL))]


def test_outputs_of_the_date_0_which_is_none_for_snakemake_get_another(finished, stores):
    import os

    files = finished.files.trial(TRIAL)
    outputs = [files.trial, files.curve, finished.files.chosen(CELL)]
    files.curve.write_text("damaged")
    for file in outputs:
        os.utime(file, (0, 0))
    assert Inputs(finished, stores, ignored).of_trial(TRIAL) == [OUTDATED]
    assert all(file.stat().st_mtime > 0 for file in outputs)
