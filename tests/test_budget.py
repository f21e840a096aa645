"""What is left out of a plan fits the budget, is no more than the rule says, and can be pasted."""

from itertools import product
from types import SimpleNamespace

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from dmlbench import study
from dmlbench.budget import parse, propose
from dmlbench.cost import Job

LETTERS = ["a", "b", "c"]


@st.composite
def plans(draw):
    """Runs, and what is to be done of them."""
    axes = [draw(st.lists(st.sampled_from(LETTERS), min_size=1, unique=True)) for _ in range(3)]
    seeds = draw(st.lists(st.integers(0, 9), min_size=1, max_size=6, unique=True))
    runs = [
        SimpleNamespace(dataset=d, backbone=b, loss=loss, seed=seed, trains=loss != "control_x")
        for d, b in product(*axes[:2])
        for loss in ("control_x", *axes[2])
        for seed in (seeds if loss != "control_x" else seeds[:1])
    ]
    jobs = [
        Job(run, busy, float(busy))
        for run in runs
        if (busy := draw(st.integers(0, 100)))  # 0: it is done
    ]
    return runs, jobs, seeds


def of(drop):
    return "seed" if "seed" in drop.what else "loss" if "loss" in drop.what else "cell"


@given(plans(), st.integers(1, 5000))
def test_a_proposal_fits_and_leaves_out_in_turn_what_costs(plan, budget):
    runs, jobs, seeds = plan
    found = propose(runs, jobs, budget)
    total = sum(job.busy for job in jobs)
    assert bool(found.drops) <= (total > budget)
    assert found.busy + sum(drop.saves for drop in found.drops) == pytest.approx(total)
    assert all(drop.saves > 0 for drop in found.drops)
    kept = [run for run in runs if not any(drop.has(run) for drop in found.drops)]
    trained = [run for run in kept if run.trains]
    assert trained
    assert [job for job in jobs if job.run in kept] == found.left
    assert seeds[0] not in found.dropped_seeds
    kinds = [of(drop) for drop in found.drops]
    late = [at for at, kind in enumerate(kinds) if kind == "seed"][max(0, len(seeds) - 3) :]
    if late:  # fewer than three seeds: there is nothing else any more
        assert kinds[late[0] :] == ["seed"] * len(late)
    assert kinds[: late[0] if late else None] == sorted(
        kinds[: late[0] if late else None], key=["seed", "cell", "loss"].index
    )
    if found.busy > budget:  # all that may be left out is
        costly = {run.seed for run in (job.run for job in found.left) if run.trains}
        assert costly <= {seeds[0]}
        assert len({run.loss for run in trained if any(j.run is run for j in found.left)}) <= 2


@given(plans(), st.integers(1, 5000))
def test_the_last_one_left_out_was_needed(plan, budget):
    runs, jobs, _ = plan
    found = propose(runs, jobs, budget)
    if found.drops:
        assert found.busy + found.drops[-1].saves > budget


def test_the_cheapest_that_is_enough_goes_or_else_the_dearest():
    def drops(budget, **costs):
        runs = [
            SimpleNamespace(dataset=name, backbone="x", loss="y", seed=0, trains=True)
            for name in costs
        ]
        jobs = [Job(run, 0, costs[run.dataset]) for run in runs]
        return [drop.what["dataset"] for drop in propose(runs, jobs, budget).drops]

    assert drops(40, big=30, middle=10, small=5) == ["small"]
    assert drops(38, big=30, middle=10, small=5) == ["middle"]
    assert drops(14, big=30, middle=10, small=5) == ["big", "small"]
    assert drops(45, big=30, middle=10, small=5) == []


def test_what_is_proposed_can_be_pasted_into_the_study_and_fits(tiny):
    tiny["datasets"]["no"] = {"type": "omniglot"}  # which YAML would take for a boolean
    tiny["backbones"]["big"] = tiny["backbones"]["tiny"]
    tiny["plan"] |= {
        "datasets": ["letters", "no"],
        "backbones": ["tiny", "big"],
        "losses": ["proxy_anchor", "rll", "triplet"],
        "seeds": [3, 1, 4, 0, 5],
        "exclude": [{"dataset": "letters", "loss": "rll"}],
    }
    made = study.check(tiny, "tiny")
    jobs = [Job(run, 1.0, 3.0 if run.backbone == "big" else 1.0) for run in made.runs.values()]
    total = sum(job.busy for job in jobs)
    for budget in (total, 60, 40, 20, 10, 4, 1):
        found = propose(made.runs.values(), jobs, budget)
        pasted = yaml.safe_load("\n".join(found.settings(made.settings.plan)))["plan"] or {}
        left = study.check(tiny | {"plan": tiny["plan"] | pasted}, "tiny").runs
        assert [*left] == [job.run.path for job in found.left]
        assert found.busy <= budget or budget == 1


@pytest.mark.parametrize(
    ("text", "seconds"), [("40h", 144000), ("90m", 5400), ("2d", 172800), ("1.5h", 5400)]
)
def test_a_time_has_a_number_and_a_unit(text, seconds):
    assert parse(text) == seconds


@pytest.mark.parametrize(
    "text",
    ["", "40", "h", "0h", "-1h", "40 h", "40H", "1h30m", "infh", "1e3h", "4.h", "٤h"],
)
def test_a_time_that_is_none_is_refused_with_examples(text):
    with pytest.raises(ValueError, match=r"is no time, which is a number .* 90m, 40h, 2d"):
        parse(text)
