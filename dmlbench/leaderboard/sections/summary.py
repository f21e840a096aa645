"""Who wins: a sentence for each data set, backbone and protocol."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dmlbench.evaluation.leaks import WITHOUT_LEAKS
from dmlbench.leaderboard.statistics.pairs import PairTests
from dmlbench.leaderboard.statistics.panel import PanelStatistics
from dmlbench.study.row_names import display_name
from dmlbench.utils.text import some_of

MOST_NAMES = 6
"""Losses that a list names; of more, it says how many they are."""


def summary_sentences(statistics: Mapping[str, PanelStatistics]) -> dict[str, str]:
    """What the paired tests over seeds say about the order of the losses, and no more.

    The scores without leaked images have no sentence: they repeat those of their protocol.

    Args:
        statistics: title of a panel -> its statistics.

    Returns:
        Title of a panel -> its sentence.
    """
    return {
        title: f"{title}: {_order(of_panel, of_panel.of_seeds)}."
        for title, of_panel in statistics.items()
        if of_panel.of_seeds and not str(of_panel.panel.protocol).endswith(WITHOUT_LEAKS)
    }


def _order(statistics: PanelStatistics, tests: PairTests) -> str:
    losses, is_better = statistics.losses, tests.is_better
    first = [place for place in range(len(losses)) if not is_better[:, place].any()]
    behind = [place for place in range(len(losses)) if is_better[first, place].all()]
    leaders = listed([losses[place] for place in first])
    beaten = listed([losses[place] for place in behind])
    if len(first) == len(losses):
        return f"no two of the {len(losses)} losses can be told apart"
    if len(first) == 1:
        metric = statistics.panel.metrics[statistics.metric]
        rest = "every other loss" if len(behind) == len(losses) - 1 else beaten
        return f"{leaders} is first by {metric}, and better than {rest}"
    order = f"{leaders} cannot be told apart, and no loss is better"
    return f"{order}; each of them is better than {beaten}" if behind else order


def listed(losses: Sequence[str]) -> str:
    """
    >>> listed(["htl", "rll", "hpl"])
    'htl, rll and hpl'
    """
    names = [*map(display_name, losses)]
    if len(names) > MOST_NAMES:
        return some_of(names, MOST_NAMES)
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))
