"""Which trials, choices and runs of a tuned study are pending, and why."""

import os

import pytest

from dmlbench.leaderboard.made_of import read_results_digest, write_made_of
from dmlbench.planning.pending import Pending, find_pending
from dmlbench.planning.tuning_reasons import AFTER_CHOICE, AFTER_TRIALS
from dmlbench.study.study import check_study
from dmlbench.workflow.verdict import leaderboard_line, success_message

from ..result_edits import edit_result
from ..tuned_results import write_choices, write_chosen_runs, write_trials

CELL, OTHER = "letters/tiny/proxy_anchor", "letters/tiny/normalized_softmax"
TRIAL = f"{CELL}/trial1"
LAST = {"build_leaderboard": 1, "verdict": 1}


@pytest.fixture
def tuned(tiny):
    """Settings of a study with 2 cells of 2 trials and 2 seeds, and a control."""
    tiny["plan"]["seeds"] = [0, 1]
    return tiny | {"tuning": {"trials": 2, "folds": 2}}


@pytest.fixture
def finished(tuned, finish):
    """The study, finished."""
    study = check_study(tuned, "tiny")
    write_trials(study)
    write_choices(study)
    finish(study)
    write_chosen_runs(study, edit_result)
    show_again(study)
    return study


def show_again(study):
    """Let the leaderboard and the verdict be those of the results that are there."""
    write_made_of(study, read_results_digest(study))
    text = f"{success_message(study)}\n{leaderboard_line(study)}\n"
    study.files.verdict.write_text(text)


def test_nothing_is_pending_in_a_finished_study(finished, stores):
    assert find_pending(finished, stores) == Pending()


def test_a_new_study_needs_everything_and_counts_jobs_in_their_order(tuned, stores):
    pending = find_pending(check_study(tuned, "tiny"), stores)
    assert [*pending.counts.items()] == [
        ("pack_store", 1),
        ("find_duplicates", 1),
        ("trial", 4),
        ("choose", 2),
        ("train", 5),
        ("evaluate", 5),
        ("build_leaderboard", 1),
        ("verdict", 1),
    ]
    assert {*pending.trials.values(), *pending.train.values()} == {("no result yet", "")}
    assert {*pending.choices.values()} == {("not chosen yet", "")}


def test_dates_of_files_are_no_reason(finished, stores):
    for number, file in enumerate(sorted(finished.folder.rglob("*"))):
        os.utime(file, (number % 3, number % 3))
    assert find_pending(finished, stores) == Pending()


def test_more_trials_run_the_new_ones_and_choose_again(finished, tuned, stores):
    tuned["tuning"]["trials"] = 6
    pending = find_pending(check_study(tuned, "tiny"), stores)
    assert pending.counts == {"trial": 8, "choose": 2, "train": 4, "evaluate": 4} | LAST
    assert {path.rpartition("/trial")[2] for path in pending.trials} == {"2", "3", "4", "5"}
    assert {*pending.choices.values()} == {("tuning.trials: 2 -> 6", "")}
    assert {*pending.train.values()} == {AFTER_CHOICE}  # the controls stay as they are


def test_runs_that_were_never_trained_are_trained_whatever_is_chosen(tuned, stores):
    study = check_study(tuned, "tiny")
    write_trials(study)
    write_choices(study)
    tuned["tuning"]["trials"] = 4
    pending = find_pending(check_study(tuned, "tiny"), stores)
    assert pending.counts["choose"] == 2
    assert {*pending.train.values()} == {("no result yet", "")}


def test_more_trials_that_choose_the_same_leave_the_runs_as_they_are(finished, tuned, stores):
    tuned["tuning"]["trials"] = 4
    study = check_study(tuned, "tiny")
    write_trials(study)
    write_choices(study)
    pending = find_pending(study, stores)
    assert pending.counts == LAST
    assert pending.leaderboard.text == "results changed"


def test_another_choice_trains_the_seeds_of_its_cell_again_and_names_the_values(finished, stores):
    write_choices(finished, CELL, number=1)
    pending = find_pending(finished, stores)
    assert pending.counts == {"train": 2, "evaluate": 2} | LAST
    assert pending.train[f"{CELL}/seed1"] == ("chosen.trial: 0 -> 1", "")


def test_changed_settings_are_named_and_repeat_all_trials(finished, tuned, stores):
    tuned["recipe"]["epochs"] = 3
    pending = find_pending(check_study(tuned, "tiny"), stores)
    assert {*pending.trials.values()} == {("recipe.epochs: 1 -> 3", "")}
    assert {*pending.train.values()} == {("recipe.epochs: 1 -> 3", "")}
    tuned["recipe"]["epochs"] = 1
    tuned["tuning"]["every"] = 2
    pending = find_pending(check_study(tuned, "tiny"), stores)
    assert {*pending.trials.values()} == {("tuning.every: 1 -> 2", "")}


def test_changed_code_is_named(finished, stores):
    file = finished.files.trial(TRIAL).trial
    code = finished.files.trial(TRIAL).load_trial()["code"]
    edit_result(file, key="other", code=code | {"dmlbench.tuning.validation": "other"})
    pending = find_pending(finished, stores)
    assert pending.trials == {TRIAL: ("code of dmlbench/tuning/validation.py", "")}
    assert pending.counts == {"trial": 1, "choose": 1, "train": 2, "evaluate": 2} | LAST


def test_a_trial_that_diverged_is_a_result_and_every_other_failure_is_repeated(finished, stores):
    write_trials(finished, TRIAL, status="diverged")
    write_choices(finished, CELL)
    show_again(finished)
    assert find_pending(finished, stores) == Pending()
    write_trials(finished, TRIAL, status="out_of_memory")
    write_choices(finished, CELL)
    pending = find_pending(finished, stores)
    assert pending.trials == {TRIAL: ("failed: out_of_memory", "ValueError: it is out_of_memory")}
    assert pending.choices == {CELL: AFTER_TRIALS}


@pytest.mark.parametrize("name", ["trial", "curve"])
def test_a_damaged_file_of_a_trial_is_no_result(finished, stores, name):
    file = getattr(finished.files.trial(TRIAL), name)
    file.write_bytes(file.read_bytes() + b"x")
    pending = find_pending(finished, stores)
    assert pending.trials == {TRIAL: (f"damaged: {file.name}", "")}
    assert pending.choices == {CELL: AFTER_TRIALS}


def test_a_damaged_choice_is_made_again_without_a_trial(finished, stores):
    file = finished.files.chosen(CELL)
    file.write_text(file.read_text().replace("0.5", "0.6"))
    pending = find_pending(finished, stores)
    assert pending.choices == {CELL: ("damaged: chosen.json", "")}
    assert pending.counts == {"choose": 1, "train": 2, "evaluate": 2} | LAST


def test_other_results_of_trials_are_chosen_from_again(finished, stores):
    write_trials(finished, TRIAL, score=0.75)
    pending = find_pending(finished, stores)
    assert pending.choices == {CELL: ("results of trials changed", "")}
    assert not pending.trials


def test_missing_trials_are_made_again_only_to_choose(finished, stores):
    finished.files.trial(TRIAL).trial.unlink()
    assert find_pending(finished, stores) == Pending()
    finished.files.chosen(OTHER).unlink()
    pending = find_pending(finished, stores)
    assert pending.choices == {OTHER: ("not chosen yet", "")}  # the table shows it
    assert not pending.trials
    finished.files.chosen(CELL).unlink()
    pending = find_pending(finished, stores)
    assert pending.trials == {TRIAL: ("no result yet", "")}
    assert pending.train.keys() == {f"{cell}/seed{k}" for cell in (CELL, OTHER) for k in (0, 1)}


def test_an_interrupted_trial_says_how_far_it_came(tuned, stores, write_attempt):
    study = check_study(tuned, "tiny")
    lock = write_attempt(study, TRIAL, step=3, steps=9)
    assert lock.parent == study.files.trial(TRIAL).state
    assert find_pending(study, stores).trials[TRIAL] == ("interrupted", "at step 3 of 9")


def test_a_trial_needs_the_training_images_and_the_weights(tuned, stores):
    tuned["datasets"]["letters"]["test_on"] = "more"
    tuned["datasets"]["more"] = {"type": "glyphs", "class_fraction": 0.5, "store": "jpeg"}
    tuned["backbones"]["tiny"]["pretrained"] = True
    study = check_study(tuned, "tiny")
    assert {trial.run.test_on for trial in study.trials.values()} == {None}
    pending = find_pending(study, stores)
    assert len(pending.stores) == 2
    assert pending.weights == ["test_resnet.r160_in1k"]
