"""The diagram of critical differences names every loss, and joins those that are tied."""

from itertools import pairwise

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from dmlbench.leaderboard.plots.critical_difference import critical_difference
from dmlbench.leaderboard.statistics.panel import all_statistics
from dmlbench.leaderboard.style import WIDTH
from dmlbench.leaderboard.table import read_results, tabulate

LONG = "pml.SignalToNoiseRatioContrastiveLoss"


@pytest.fixture
def draw(results):
    """A function that draws the results of these losses on some data sets."""

    def figures(losses, datasets, levels=None):
        random = np.random.default_rng(0)
        for dataset in datasets:
            for place, loss in enumerate(losses):
                value = 0.9 - 0.01 * place + (0.0 if levels else 0.02 * random.normal())
                results.add(loss, 0, {"map@r": value}, dataset=dataset)
        read = read_results(results.runs, results.files)
        return [*critical_difference(all_statistics(tabulate(read), read))]

    return figures


def texts(figure):
    return {text.get_text(): text for ax in figure.axes for text in ax.texts}


def boxes(figure, names):
    """left, bottom, right, top of each name in pixels."""
    figure.draw_without_rendering()
    assert isinstance(figure.canvas, FigureCanvasAgg)
    return [texts(figure)[name].get_window_extent().extents for name in names]


@pytest.mark.parametrize("count", [3, 8, 30])
def test_every_loss_has_its_name_and_no_two_names_overlap(draw, count):
    losses = [f"loss_{number:02}" for number in range(count)]
    (figure,) = draw(losses, ["cub", "sop", "cars", "inshop"])
    assert figure.get_figwidth() == WIDTH
    placed = boxes(figure, losses)
    for number, first in enumerate(placed):
        assert first[0] >= 0
        assert first[2] <= figure.bbox.width
        for second in placed[:number]:
            apart = first[0] >= second[2] or second[0] >= first[2]
            assert apart or first[1] >= second[3] or second[1] >= first[3]


def test_a_long_name_is_cut_and_stays_on_the_page(draw):
    (figure,) = draw(["htl", LONG, "rll", "hpl"], ["cub", "sop"])
    shown = [name for name in texts(figure) if name.startswith("pml.")]
    assert shown == [LONG[:33] + "…"]
    ((left, _, right, _),) = boxes(figure, shown)
    assert 0 <= left < right <= figure.bbox.width


def bars(figure):
    (ax,) = figure.axes
    return [line for line in ax.lines if line.get_linewidth() == 2.5]


def test_bars_join_the_losses_that_are_tied(draw):
    losses = [f"loss_{number}" for number in range(6)]
    (figure,) = draw(losses, [f"data_{number}" for number in range(12)], levels="equal everywhere")
    # critical difference: 2.850 * sqrt(6 * 7 / 72) = 2.18, so three neighbours each
    assert len(bars(figure)) == 4
    assert len({line.get_ydata()[0] for line in bars(figure)}) == 3  # two bars share a line
    assert "critical difference 2.18" in texts(figure)


def test_two_data_sets_cannot_separate_three_losses_and_the_picture_says_so(draw):
    (figure,) = draw(["htl", "rll", "hpl"], ["cub", "sop"])
    (text,) = [name for name in texts(figure) if "critical" in name]
    assert text == "critical difference 2.34: longer than the axis, so nothing is separated"
    assert len(bars(figure)) == 1


def test_without_enough_scores_the_picture_says_why(draw):
    (figure,) = draw(["htl", "rll"], ["cub", "sop"])
    assert figure.get_supxlabel() == (
        "no three losses have a score on two data sets with the same backbone"
    )


@pytest.mark.parametrize("count", [3, 8, 30, 60])
def test_the_numbers_of_the_ranks_are_apart_and_begin_and_end_with_the_first_and_last(draw, count):
    (figure,) = draw([f"loss_{number:02}" for number in range(count)], ["cub", "sop", "cars"])
    ranks = [text for text in texts(figure) if text.isdigit()]
    assert (ranks[0], ranks[-1]) == ("1", str(count))
    placed = boxes(figure, ranks)
    assert all(right[0] - left[2] >= 2 for left, right in pairwise(placed))
