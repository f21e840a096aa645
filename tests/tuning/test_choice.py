"""The best trial is chosen by its mean over folds, the first one of equals."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dmlbench.study.study import check_study
from dmlbench.study.tuning import choice_key, resolve
from dmlbench.tuning.choice import choose, choose_job
from dmlbench.tuning.trial import best_epoch, mean_scores
from dmlbench.tuning.validation import Fold
from dmlbench.utils.errors import MissingResult

from ..tuned_results import write_trials

CELL = "letters/tiny/normalized_softmax"


@pytest.fixture
def choose_cell(study):
    """Choose from the trials that were written: the content of chosen.json."""

    def run(of=study):
        choose_job(of, of.tuned_cells[CELL])
        return of.files.choice(CELL).load_chosen()

    return run


@given(st.lists(st.sampled_from([None, 0.1, 0.2, 0.3]), min_size=1, max_size=8))
def test_the_first_of_the_best_trials_is_chosen(scores):
    results = [
        {"trial": i, "status": "ok" if score else "diverged", "best_score": score}
        for i, score in enumerate(scores)
    ]
    chosen = choose(results)
    known = [score for score in scores if score]
    assert (chosen["trial"] if chosen else None) == (scores.index(max(known)) if known else None)


def fold_of(*scores):
    history = [{"epoch": i + 1, "score": score} for i, score in enumerate(scores)]
    return Fold(history, (2, 2), (2, 2))


def test_the_first_of_the_best_epochs_counts_by_the_mean_over_the_folds():
    nan = float("nan")
    scores = mean_scores([fold_of(0.9, nan, 0.3, 0.5, 0.5), fold_of(0.1, nan, 0.5, 0.6, 0.6)])
    assert scores == {1: 0.5, 3: 0.4, 4: 0.55, 5: 0.55}
    assert best_epoch(scores) == 4


def test_the_searched_options_are_those_of_the_study_of_today(study, tuned, choose_cell):
    write_trials(study)
    for trial in study.tuned_cells[CELL]:
        file = study.files.trial(trial.path)
        file.write_trial({**file.load_trial(), "options": {"an option of an older space": 1.0}})
    assert [trial["options"] for trial in choose_cell()["trials"]] == [
        dict(trial.options) for trial in study.tuned_cells[CELL]
    ]


def test_what_was_chosen_is_written_with_all_trials_and_what_was_spent(study, choose_cell):
    write_trials(study, f"{CELL}/trial0", score=0.3, train_seconds=2.5)
    write_trials(study, f"{CELL}/trial1", score=0.6, train_seconds=1.5)
    write_trials(study, f"{CELL}/trial2", status="diverged", train_seconds=0.5)
    chosen = choose_cell()
    trial = study.trials[f"{CELL}/trial1"]
    assert (chosen["status"], chosen["error"], chosen["score"]) == ("ok", None, 0.6)
    names = ("proxies_lr_factor", "temperature")
    assert chosen["chosen"] == {
        "trial": 1,
        "loss_options": {name: trial.options[name] for name in names},
        "recipe": {"lr": trial.run.recipe.lr, "head_lr_factor": 1.0},
        "epochs": 1,
    }
    assert chosen["spent"] == {"trials": 3, "steps": 30, "seconds": 4.5}
    assert [record["status"] for record in chosen["trials"]] == ["ok", "ok", "diverged"]
    assert chosen["trials"][1] == {
        "trial": 1,
        "status": "ok",
        "options": trial.options,
        "best_epoch": 1,
        "best_score": 0.6,
        "steps": 10,
        "wall_seconds": 60.0,
    }
    assert chosen["key"] == choice_key(study.tuned_cells[CELL])
    assert chosen["made_from"] == {
        path: study.files.trial(path).load_trial()["digest"] for path in study.trials
    }


def test_a_failed_trial_is_left_out_of_the_choice(study, choose_cell):
    write_trials(study, f"{CELL}/trial0", score=0.3)
    write_trials(study, f"{CELL}/trial1", f"{CELL}/trial2", status="out_of_memory")
    assert choose_cell()["chosen"]["trial"] == 0


@pytest.mark.parametrize(
    ("statuses", "status"),
    [(["diverged"] * 3, "diverged"), (["diverged", "error", "diverged"], "error")],
)
def test_if_all_trials_fail_the_choice_is_a_failure_that_names_the_reason(
    study, choose_cell, statuses, status
):
    for number, each in enumerate(statuses):
        write_trials(study, f"{CELL}/trial{number}", status=each)
    chosen = choose_cell()
    assert (chosen["status"], chosen["chosen"], chosen["score"]) == (status, None, None)
    number = statuses.index(status)
    assert chosen["error"]["message"] == (
        f"3 trials, and none succeeded. Trial {number}: {status}: ValueError: it is {status}"
    )


def test_a_missing_damaged_or_other_trial_ends_the_choice_with_one_message(study, choose_cell):
    write_trials(study, f"{CELL}/trial0", f"{CELL}/trial1")
    with pytest.raises(MissingResult, match=r"trial2/trial\.json: No such file or directory"):
        choose_cell()
    write_trials(study, f"{CELL}/trial2")
    file = study.files.trial(f"{CELL}/trial2").trial
    content = file.read_text()
    file.write_text(content.replace("0.5", "0.9"))
    with pytest.raises(MissingResult, match=r"trial2/trial\.json: damaged, edited, or of an older"):
        choose_cell()
    file.write_text(content)
    choose_cell()


def test_more_trials_change_the_key_of_the_choice_and_those_of_another_study_are_refused(
    tuned, study, choose_cell
):
    write_trials(study)
    before = choose_cell()
    tuned["tuning"]["trials"] = 4
    more = check_study(tuned, "tiny")
    assert choice_key(more.tuned_cells[CELL]) != before["key"]
    write_trials(more, f"{CELL}/trial3", score=0.9)
    assert choose_cell(more)["chosen"]["trial"] == 3
    tuned["recipe"]["weight_decay"] = 0.5
    with pytest.raises(MissingResult, match=r"trial0/trial\.json: it has key .* expects"):
        choose_cell(check_study(tuned, "tiny"))


def test_the_resolved_run_has_the_chosen_values_and_the_schedule_of_all_epochs(study):
    run = study.runs[f"{CELL}/seed0"]
    chosen = {
        "trial": 1,
        "loss_options": {"temperature": 0.2},
        "recipe": {"lr": 0.5, "head_lr_factor": 3.0},
        "epochs": 2,
    }
    resolved = resolve(run, chosen)
    assert resolved.loss_options == run.loss_options | {"temperature": 0.2}
    assert (resolved.recipe.lr, resolved.recipe.head_lr_factor) == (0.5, 3.0)
    assert (resolved.last_epoch, resolved.recipe.epochs) == (2, 3)
    assert resolved.tuning is None
    assert resolved.path == run.path
    assert resolved.train_key != run.train_key


def test_the_command_chooses_under_the_planned_key_only(tuned, study, tmp_path):
    from dmlbench.cli.main import main

    write_trials(study, score=0.25)
    (tmp_path / "tiny.json").write_text(json.dumps(tuned))
    with pytest.raises(SystemExit, match="was planned under key 123"):
        main(["choose", "tiny.json", CELL, "--key", "123"])
    with pytest.raises(SystemExit) as ended:
        main(["choose", "tiny.json", CELL, "--key", choice_key(study.tuned_cells[CELL])])
    assert ended.value.code == 0
    assert study.files.choice(CELL).load_chosen()["chosen"]["trial"] == 0
    with pytest.raises(SystemExit, match="no such tuned loss"):
        main(["choose", "tiny.json", "letters/tiny/htl"])
