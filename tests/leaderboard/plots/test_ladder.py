"""The curves of a ladder are means over seeds at each rung, with their intervals."""

import numpy as np
import pytest
from matplotlib.colors import to_rgba
from scipy import stats

from dmlbench.leaderboard.plots.ladder import ladder
from dmlbench.leaderboard.style import colour, marker
from dmlbench.leaderboard.table import read_results, tabulate


@pytest.fixture
def add(results):
    """A function that adds a run of a rung."""

    def run(rung, loss, seed, score, **where):
        data = {"type": "csv", "facts": {"levels": ["genus", "family"]}, "holdout": rung}
        scores = {"map@r": score, "recall@1": score + 0.1}
        where = {"dataset": f"birds_{rung}", "settings": {"dataset": data}, **where}
        return results.add(loss, seed, scores, **where)

    return run


@pytest.fixture
def draw(results):
    """A function that draws all runs added so far, in one picture."""

    def run():
        read = read_results(results.runs, results.files)
        (figure,) = ladder(tabulate(read), read)
        return figure

    return run


def lines_of(axes, loss):
    """The thick lines of a loss (one, with markers), its thin ones and its intervals."""
    thick = [line for line in axes.lines if line.get_marker() == marker(loss)]
    *collections, _to_names = axes.collections
    tint = to_rgba(colour(loss))[:3]
    own = [lines for lines in collections if tuple(lines.get_color()[0][:3]) == tint]
    seeds, intervals = (part.get_segments() for part in own)
    return thick, seeds, intervals


def test_a_curve_has_the_mean_the_interval_and_the_seeds_of_each_rung(add, draw):
    scores = {"class": (0.5, 0.7), "level_1": (0.4, 0.5), "level_2": (0.1, 0.2)}
    for rung, values in scores.items():
        add(rung, "control_untrained", 0, 0.05)
        for seed, value in enumerate(values):
            add(rung, "htl", seed, value)
    of_map, of_recall = draw().axes
    assert of_map.get_title(loc="left") == "birds · tiny · zero_shot · MAP@R"
    assert of_recall.get_title(loc="left") == "birds · tiny · zero_shot · Recall@1"
    assert [text.get_text() for text in of_map.get_xticklabels()] == ["class", "genus", "family"]
    ((mean,), seeds, intervals) = lines_of(of_map, "htl")
    np.testing.assert_allclose(mean.get_ydata(), [60, 45, 15])
    np.testing.assert_allclose(np.array(seeds)[:, :, 1], [[50, 40, 10], [70, 50, 20]])
    for segment, values in zip(intervals, scores.values(), strict=True):
        low, high = stats.t.interval(0.95, 1, np.mean(values), stats.sem(values))
        np.testing.assert_allclose(segment[:, 1], [100 * low, 100 * high])
    assert [text.get_text() for text in of_map.texts] == ["htl"]  # no control
    ((mean,), _, _) = lines_of(of_recall, "htl")
    np.testing.assert_allclose(mean.get_ydata(), [70, 55, 25])


def test_a_wide_interval_does_not_stretch_the_axis_beyond_all_scores(add, draw):
    for rung in ("class", "level_1"):
        for seed, value in enumerate((0.1, 0.8)):
            add(rung, "htl", seed, value)
    low, high = draw().axes[0].get_ylim()
    assert -2 <= low < 10
    assert 80 < high <= 102


def test_a_seed_that_failed_on_a_rung_is_drawn_where_it_succeeded(add, draw):
    for rung in ("class", "level_1"):
        add(rung, "htl", 0, 0.5)
    add("class", "htl", 1, 0.7)
    add("level_1", "htl", 1, 0.7, status="diverged")
    ((mean,), seeds, _) = lines_of(draw().axes[0], "htl")
    np.testing.assert_allclose(mean.get_ydata(), [60, 50])
    assert sorted(len(seed) for seed in seeds) == [1, 2]


def test_without_scores_it_says_so(add, draw):
    for rung in ("class", "level_1"):
        add(rung, "htl", 0, 0.5, status="killed")
    assert draw().get_supxlabel() == "no two rungs have a score"
