"""Ranks are intervals, and losses share a group if and only if they are not separated."""

import numpy as np
import pytest

from dmlbench.leaderboard.statistics.ranks import (
    group_letters,
    rank_intervals,
    tie_groups,
)


def test_two_losses_share_a_group_if_and_only_if_they_are_not_separated():
    random = np.random.default_rng(0)
    for _ in range(200):
        losses = int(random.integers(1, 10))
        upper = np.triu(random.uniform(size=(losses, losses)) < random.uniform(), 1)
        separated = upper | upper.T
        order = random.permutation(losses).tolist()
        groups = tie_groups(separated, order)
        for first in range(losses):
            assert any(first in group for group in groups)
            for second in range(first):
                together = any(first in group and second in group for group in groups)
                assert together != separated[first, second]
        for group in groups:  # none can be larger
            others = set(order) - set(group)
            assert all(separated[other, group].any() for other in others)


def test_ties_need_not_be_transitive():
    separated = np.zeros((4, 4), dtype=bool)
    separated[0, 2] = separated[2, 0] = separated[3, :3] = separated[:3, 3] = True
    groups = tie_groups(separated, range(4))
    assert groups == [[0, 1], [1, 2], [3]]
    assert [group_letters(groups, loss) for loss in range(4)] == ["a", "a b", "b", "c"]


def test_many_groups_have_letters():
    groups = [[number] for number in range(60)]
    letters = [group_letters(groups, loss) for loss in range(60)]
    assert letters[25:28] == ["z", "aa", "ab"]
    assert len(set(letters)) == 60


def test_the_worst_graph_of_30_losses_has_groups_in_no_time():
    """Each loss is separated from one other: there are 2^15 largest groups."""
    separated = np.kron(np.eye(15, dtype=bool), np.array([[0, 1], [1, 0]], dtype=bool))
    assert len(tie_groups(separated, range(30))) < 450


@pytest.mark.parametrize("losses", [1, 3])
def test_without_a_separated_pair_every_rank_is_possible(losses):
    better = np.zeros((losses, losses), dtype=bool)
    assert rank_intervals(better) == [(1, losses)] * losses


def test_a_total_order_has_exact_ranks():
    better = np.triu(np.ones((4, 4), dtype=bool), 1)
    assert rank_intervals(better) == [(1, 1), (2, 2), (3, 3), (4, 4)]
