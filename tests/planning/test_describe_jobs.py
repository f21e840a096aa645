"""Many jobs are described in one line: how many, and of which axes."""

import pytest

from dmlbench.planning.describe_jobs import describe_cells, describe_runs, describe_trials
from dmlbench.study.study import check_study

CELL, OTHER = "letters/tiny/proxy_anchor", "letters/tiny/normalized_softmax"


@pytest.fixture
def tuned(tiny):
    return check_study(tiny | {"tuning": {"trials": 8}}, "tiny")


def test_runs_that_are_not_every_combination_are_among_them(tiny):
    tiny["plan"]["seeds"] = [0, 1]
    study = check_study(tiny, "tiny")
    text = describe_runs(study, [f"{CELL}/seed0", f"{OTHER}/seed1"])
    assert text == "2 runs (among letters x tiny x all 2 losses x all 2 seeds)"


def test_only_the_first_names_of_a_long_axis_are_written_out(tiny):
    tiny["plan"]["seeds"] = [*range(8)]
    study = check_study(tiny, "tiny")
    text = describe_runs(study, [f"{CELL}/seed{seed}" for seed in range(6)])
    assert text == "6 runs (letters x tiny x proxy_anchor x seed 0, 1, 2, 3 and 2 more)"


def test_trials_are_named_by_their_numbers(tuned):
    assert describe_trials(tuned, [*tuned.trials]) == (
        "16 trials (letters x tiny x all 2 losses x all 8 trials)"
    )
    later = [f"{cell}/trial{number}" for cell in (CELL, OTHER) for number in (6, 7)]
    assert describe_trials(tuned, later) == (
        "4 trials (letters x tiny x all 2 losses x trial 6, 7)"
    )


def test_cells_have_no_seed(tuned):
    assert describe_cells(tuned, [CELL]) == "1 cell (letters x tiny x proxy_anchor)"
