"""The sentence at the top says what the paired tests say, and no more."""

import numpy as np
import pytest

from dmlbench.leaderboard.page import compose
from dmlbench.leaderboard.statistics.panel import all_statistics
from dmlbench.leaderboard.table import read_results, tabulate


@pytest.fixture
def summary(results):
    """A function that gives the sentences of losses with these levels."""

    def make(levels, **where):
        random = np.random.default_rng(0)
        for loss, level in levels.items():
            noise = random.normal(size=5)
            for seed in range(5):  # all losses have exactly their level as mean
                value = level + 0.002 * (noise[seed] - noise.mean())
                results.add(loss, seed, {"map@r": value}, **where)
        read = read_results(results.runs, results.files)
        table = tabulate(read)
        return compose("made", table, read, statistics=all_statistics(table, read)).summary

    return make


def test_a_loss_that_is_better_than_all_others_is_first(summary):
    assert summary({"htl": 0.3, "rll": 0.5, "hpl": 0.3}) == [
        "letters · tiny · zero_shot: rll is first by MAP@R, and better than every other loss."
    ]


def test_losses_that_are_not_separated_share_the_first_place(summary):
    assert summary({"htl": 0.3, "rll": 0.5, "hpl": 0.4999, "npair": 0.2}) == [
        "letters · tiny · zero_shot: rll and hpl cannot be told apart, and no loss is better; each "
        "of them is better than htl and npair."
    ]


def test_nothing_is_claimed_of_losses_of_which_no_two_are_separated(summary):
    assert summary({"htl": 0.5, "rll": 0.5, "hpl": 0.5}) == [
        "letters · tiny · zero_shot: no two of the 3 losses can be told apart."
    ]


def test_many_losses_are_counted(summary):
    (sentence,) = summary({f"loss_{number}": 0.5 for number in range(8)} | {"rll": 0.1})
    assert " and 2 more cannot be told apart, and no loss is better" in sentence
    assert sentence.endswith("each of them is better than rll.")


def test_one_seed_says_nothing(results):
    results.add("htl", 0, {"map@r": 0.5})
    results.add("rll", 0, {"map@r": 0.6})
    read = read_results(results.runs, results.files)
    table = tabulate(read)
    assert compose("made", table, read, statistics=all_statistics(table, read)).summary == []
