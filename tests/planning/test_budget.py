"""What is left out of a plan fits the budget, follows the rules, and can be pasted."""

from itertools import product
from types import SimpleNamespace

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from dmlbench.planning.budget import MIN_SEEDS, MIN_TRIALS, parse_time, propose
from dmlbench.planning.cost import Job
from dmlbench.study.study import check_study

LETTERS = ["a", "b", "c"]


@st.composite
def plans(draw):
    """The runs of a plan, the jobs that are to be done for them, and the seeds."""
    axes = [draw(st.lists(st.sampled_from(LETTERS), min_size=1, unique=True)) for _ in range(3)]
    seeds = draw(st.lists(st.integers(0, 9), min_size=1, max_size=6, unique=True))
    runs = [
        SimpleNamespace(
            dataset=dataset,
            backbone=backbone,
            loss=loss,
            seed=seed,
            trains=loss != "control_x",
        )
        for dataset, backbone in product(*axes[:2])
        for loss in ("control_x", *axes[2])
        for seed in (seeds if loss != "control_x" else seeds[:1])
    ]
    jobs = [
        Job(run, seconds, float(seconds))
        for run in runs
        if (seconds := draw(st.integers(0, 100)))  # 0: it is finished
    ]
    return runs, jobs, seeds


@st.composite
def tuned_plans(draw):
    """As `plans`, with the trials of each loss, and their number."""
    runs, jobs, _ = draw(plans())
    trials = draw(st.integers(1, 12))
    cells = {(run.dataset, run.backbone, run.loss): run for run in runs if run.trains}
    tried = [
        Job(run, seconds, float(seconds), number)
        for run in cells.values()
        for number in range(trials)
        if (seconds := draw(st.integers(0, 100)))
    ]
    return runs, tried + jobs, trials


def kind_of(drop):
    if "seed" in drop.names or "trial" in drop.names:
        return next(iter(drop.names))
    return "loss" if "loss" in drop.names else "cell"


@given(tuned_plans(), st.integers(1, 9000))
def test_trials_beyond_the_eighth_go_after_seeds_and_those_beyond_the_first_after_losses(
    plan, budget
):
    runs, jobs, trials = plan
    proposal = propose(runs, jobs, budget, trials)
    total = sum(job.device_seconds for job in jobs)
    saved = sum(drop.saved for drop in proposal.drops)
    assert proposal.device_seconds + saved == pytest.approx(total)
    left = {job.trial for job in proposal.jobs if job.trial is not None}
    assert not left or max(left) < (proposal.trials or trials)
    assert proposal.trials != 0  # the first trial has the settings of the study
    kinds = [kind_of(drop) for drop in proposal.drops]
    for place, drop in enumerate(proposal.drops):
        if "trial" in drop.names:
            others = kinds[:place] if drop.names["trial"] >= MIN_TRIALS else kinds[place:]
            assert not {"cell", "loss"} & {*others}


def test_a_trial_has_no_seed_and_stays_if_a_seed_is_left_out():
    first, run = (
        SimpleNamespace(dataset="a", backbone="b", loss="c", seed=seed, trains=True)
        for seed in (0, 1)
    )
    jobs = [Job(run, 5.0, 5.0, trial=0), Job(first, 1.0, 1.0), Job(run, 1.0, 1.0)]
    proposal = propose([first, run], jobs, 6.0, trials=1)
    assert proposal.jobs == jobs[:2]
    plan = SimpleNamespace(seeds=[0, 1], exclude=[])
    assert proposal.settings(plan) == ["plan:", "  seeds: [0]  # saves 1 s"]


@given(plans(), st.integers(1, 5000))
def test_a_proposal_saves_what_it_says_and_keeps_the_first_seed(plan, budget):
    runs, jobs, seeds = plan
    proposal = propose(runs, jobs, budget)
    total = sum(job.device_seconds for job in jobs)
    assert bool(proposal.drops) <= (total > budget)
    saved = sum(drop.saved for drop in proposal.drops)
    assert proposal.device_seconds + saved == pytest.approx(total)
    assert all(drop.saved > 0 for drop in proposal.drops)
    kept = [run for run in runs if not any(drop.matches(run) for drop in proposal.drops)]
    assert any(run.trains for run in kept)
    assert [job for job in jobs if job.run in kept] == proposal.jobs
    assert seeds[0] not in proposal.dropped_seeds


@given(plans(), st.integers(1, 5000))
def test_seeds_beyond_the_third_go_first_then_cells_then_losses_then_seeds(plan, budget):
    runs, jobs, seeds = plan
    kinds = [kind_of(drop) for drop in propose(runs, jobs, budget).drops]
    dropped_seeds = [place for place, kind in enumerate(kinds) if kind == "seed"]
    last = dropped_seeds[max(0, len(seeds) - MIN_SEEDS) :]  # they leave fewer than three seeds
    first = kinds[: last[0]] if last else kinds
    assert first == sorted(first, key=["seed", "cell", "loss"].index)
    assert kinds[len(first) :] == ["seed"] * len(last)


@given(plans(), st.integers(1, 5000))
def test_a_proposal_that_does_not_fit_leaves_out_all_that_it_may(plan, budget):
    runs, jobs, seeds = plan
    proposal = propose(runs, jobs, budget)
    if proposal.device_seconds > budget:
        trained = [job.run for job in proposal.jobs if job.run.trains]
        assert {run.seed for run in trained} <= {seeds[0]}
        assert len({run.loss for run in trained}) <= 2


@given(plans(), st.integers(1, 5000))
def test_the_last_one_left_out_was_needed(plan, budget):
    runs, jobs, _ = plan
    proposal = propose(runs, jobs, budget)
    if proposal.drops:
        assert proposal.device_seconds + proposal.drops[-1].saved > budget


@pytest.mark.parametrize(
    ("budget", "dropped"),
    [(45, []), (40, ["small"]), (38, ["middle"]), (14, ["big", "small"])],
)
def test_the_cheapest_that_is_enough_is_left_out_or_else_the_most_expensive(budget, dropped):
    costs = {"big": 30, "middle": 10, "small": 5}
    runs = [
        SimpleNamespace(dataset=name, backbone="x", loss="y", seed=0, trains=True) for name in costs
    ]
    jobs = [Job(run, 0, costs[run.dataset]) for run in runs]
    assert [drop.names["dataset"] for drop in propose(runs, jobs, budget).drops] == dropped


def test_a_proposal_can_be_pasted_into_the_study_and_fits(tiny):
    tiny["datasets"]["no"] = {"type": "omniglot"}  # YAML reads a plain `no` as false
    tiny["backbones"]["big"] = tiny["backbones"]["tiny"]
    tiny["plan"] |= {
        "datasets": ["letters", "no"],
        "backbones": ["tiny", "big"],
        "losses": ["proxy_anchor", "rll", "triplet"],
        "seeds": [3, 1, 4, 0, 5],
        "exclude": [{"dataset": "letters", "loss": "rll"}],
    }
    study = check_study(tiny, "tiny")
    jobs = [Job(run, 1.0, 3.0 if run.backbone == "big" else 1.0) for run in study.runs.values()]
    total = sum(job.device_seconds for job in jobs)
    for budget in (total, 60, 40, 20, 10, 4, 1):
        proposal = propose(study.runs.values(), jobs, budget)
        lines = proposal.settings(study.settings.plan)
        pasted = (yaml.safe_load("\n".join(lines)) or {}).get("plan", {})
        left = check_study(tiny | {"plan": tiny["plan"] | pasted}, "tiny").runs
        assert [*left] == [job.run.path for job in proposal.jobs]
        assert proposal.device_seconds <= budget or budget == 1


@pytest.mark.parametrize(
    ("text", "seconds"), [("40h", 144000), ("90m", 5400), ("2d", 172800), ("1.5h", 5400)]
)
def test_a_time_has_a_number_and_a_unit(text, seconds):
    assert parse_time(text) == seconds


@pytest.mark.parametrize(
    "text",
    ["", "40", "h", "0h", "-1h", "40 h", "40H", "1h30m", "infh", "1e3h", "4.h", "٤h"],
)
def test_a_wrong_time_is_refused_with_examples(text):
    with pytest.raises(ValueError, match=r"is not a time\. Give a number .* 90m, 40h, 2d"):
        parse_time(text)
