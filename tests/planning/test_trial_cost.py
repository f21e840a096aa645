"""What trials cost: the arithmetic of their folds, epochs and validations."""

import json

import pytest

from dmlbench.cli.main import main
from dmlbench.planning import report
from dmlbench.planning.cost import estimate_cost, trial_work
from dmlbench.planning.measured_speed import read_throughput
from dmlbench.planning.pending import find_pending
from dmlbench.planning.throughput import Device, ModelSpeed, Throughput
from dmlbench.study.study import check_study

from ..result_edits import edit_result
from ..tuned_results import write_choices, write_chosen_runs, write_trials

TRAIN, TEST = 19280, 13180  # images of omniglot
CELL = "letters/tiny/proxy_anchor"
TRIAL = f"{CELL}/trial1"
CPU = Device("cpu (this one)", 0)


class Known(Throughput):
    """A device that trains 100 images per second and embeds 400, and validates in 3 s."""

    def model_speed(self, run):
        return ModelSpeed(train=100.0, embed=400.0, start=5.0, parameters=1000)

    def scoring_time(self, run, images):
        return 2.0

    def validation_time(self, run, images):
        assert images == TRAIN / 4
        return 3.0


@pytest.fixture
def tuned(tiny):
    """Settings of a study of 2 losses with 2 trials of 4 folds of omniglot, and 5 epochs."""
    tiny["datasets"] = {"letters": {"type": "omniglot"}}
    tiny["recipe"]["epochs"] = 5
    return tiny | {"tuning": {"trials": 2, "folds": 4}}


def cost_of(study, stores, gpus=0, **known):
    return estimate_cost(
        study, find_pending(study, stores), Known(Device("x", gpus), **known), stores
    )


def trials_of(cost):
    return [job for job in cost.jobs if job.trial is not None]


def fold_seconds(epochs=5, validations=5):
    """Seconds of a fold, counted image by image."""
    seen, held_out = TRAIN * 3 // 4, TRAIN // 4
    return epochs * (seen // 48) * 48 / 100 + validations * (held_out / 400 + 3.0)


def test_a_trial_takes_the_time_of_all_folds_with_their_validations(tuned, stores):
    jobs = trials_of(cost_of(check_study(tuned, "tiny"), stores))
    assert [(job.run.loss, job.trial) for job in jobs] == [
        (loss, number) for loss in ("normalized_softmax", "proxy_anchor") for number in (0, 1)
    ]
    assert jobs[0].seconds == pytest.approx(5 + 4 * fold_seconds())


def test_fewer_folds_and_rarer_validations_cost_less(tuned, stores):
    tuned["tuning"] |= {"use_folds": 2, "every": 2}  # after epochs 2, 4 and 5
    jobs = trials_of(cost_of(check_study(tuned, "tiny"), stores))
    assert jobs[0].seconds == pytest.approx(5 + 2 * fold_seconds(validations=3))


def test_a_loss_that_embeds_the_training_set_pays_for_it_in_every_fold(tuned, stores):
    tuned["plan"]["losses"] = ["htl"]
    tuned["recipe"]["batch_size"] = 80
    trial = check_study(tuned, "tiny").trials["letters/tiny/htl/trial0"]
    work = trial_work(trial, TRAIN, TRAIN / 4)
    assert work.refreshed == 4 * 5 * TRAIN * 3 // 4
    assert work.tested == 5 * TRAIN
    assert work.trained == 4 * 5 * (TRAIN * 3 // 4 // 80) * 80


def test_a_trial_uses_one_gpu_or_all_threads_of_its_recipe(tuned, stores):
    tuned["recipe"]["cpu_threads"] = 2
    study = check_study(tuned, "tiny")
    on_cpu, on_gpu = (trials_of(cost_of(study, stores, gpus))[0] for gpus in (0, 1))
    assert on_cpu.device_seconds == 2 * on_cpu.seconds
    assert on_gpu.device_seconds == on_gpu.seconds


def test_an_unfinished_trial_only_pays_for_the_rest(tuned, stores):
    cost = cost_of(check_study(tuned, "tiny"), stores, progress={TRIAL: 0.75})
    assert trials_of(cost)[-1].seconds == pytest.approx(5 + fold_seconds())


def test_finished_trials_tell_the_time_of_the_others(tuned, stores):
    study = check_study(tuned, "tiny")
    write_trials(study, f"{CELL}/trial0", device=CPU.name, wall_seconds=7.0, train_seconds=9.0)
    write_trials(study, "letters/tiny/normalized_softmax/trial0", device="other")
    speeds = read_throughput(study, CPU)
    assert speeds.trial_time(study.trials[TRIAL]) == 9
    assert speeds.trial_time(study.trials["letters/tiny/normalized_softmax/trial1"]) is None
    times = Known(CPU, trial_times=speeds.trial_times, progress={TRIAL: 0.5})
    cost = estimate_cost(study, find_pending(study, stores), times, stores)
    assert trials_of(cost)[-1].seconds == 4.5


def test_runs_that_may_stay_as_they_are_are_named(tuned, stores, write_results):
    study = check_study(tuned, "tiny")
    write_trials(study)
    write_choices(study)
    write_results(study)
    write_chosen_runs(study, edit_result)
    assert cost_of(study, stores).if_changed == 0
    study.files.trial(TRIAL).curve.write_text("damaged")
    cost = cost_of(study, stores)
    (trained,) = [job for job in cost.jobs if job.trial is None]
    assert cost.if_changed == trained.device_seconds > 0


def test_speeds_and_images_that_nobody_knows_are_said(tuned, stores, monkeypatch):
    study = check_study(tuned, "tiny")
    monkeypatch.setattr(Known, "validation_time", lambda *_: None)
    cost = cost_of(study, stores)
    assert [job.trial for job in cost.unmeasured] == [0, 1, 0, 1]
    monkeypatch.setattr("dmlbench.planning.cost.count_used_images", lambda *_: None)
    cost = cost_of(study, stores)
    assert (trials_of(cost), cost.unmeasured, [*cost.uncounted]) == ([], [], ["letters"])


@pytest.fixture
def plan(tuned, tmp_path, monkeypatch, capsys):
    """Call `dmlbench plan` on the study: its lines on stderr, without the progress of checks."""
    monkeypatch.setattr(report, "usable_cores", lambda: 4)
    monkeypatch.setattr(report, "read_throughput", lambda _: Known(Device("a machine", 0)))

    def call(*options):
        (tmp_path / "my.json").write_text(json.dumps(tuned))
        with pytest.raises(SystemExit) as ended:
            main(["plan", "my.json", *options])
        output = capsys.readouterr()
        assert ended.value.code == 0, output.err
        return output.err.splitlines()

    return call


def test_the_plan_says_how_many_trials_folds_and_epochs_and_what_they_cost(plan):
    trials = 4 * (5 + 4 * fold_seconds()) / 3600
    runs = (2 * (5 * (TRAIN // 48) * 48 / 100 + TEST / 400 + 5) + 5 + 3 * 2) / 3600
    lines = plan()
    assert lines[1] == "tuning: 4 trials for 2 cells, each with 4 folds x 5 epochs"
    assert lines[2] == (
        f"cost: 4 trials and 3 runs, {trials + runs:.1f} CPU-hours ({trials:.1f} of them for "
        "trials) on a machine; with 4 cores about 1 h 10 min, once images and weights are there"
    )
    assert "44.8 kB of trials" in lines[3]


def test_a_budget_is_met_by_fewer_seeds_then_by_fewer_trials(plan, tuned):
    tuned["plan"]["seeds"] = [0, 1, 2, 3]
    tuned["tuning"]["trials"] = 10
    lines = plan("--budget", "16h")
    assert lines[-5].startswith("budget: 16.0 CPU-hours. This plan fits: 16 trials and 7 runs of ")
    assert lines[-4:-2] == ["plan:", "  seeds: [0, 1, 2]  # saves 33 min"]
    assert lines[-2:] == ["tuning:", "  trials: 8  # saves 3 h 33 min"]
