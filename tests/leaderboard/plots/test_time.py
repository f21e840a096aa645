import numpy as np
import pytest

from dmlbench.leaderboard.style import marker


def marks(axes):
    """The points of the losses by their markers."""
    return {
        line.get_marker(): (*line.get_xdata(), *line.get_ydata())
        for line in axes.lines
        if len(line.get_xdata()) == 1
    }


def test_a_mark_is_the_mean_score_at_the_mean_minutes_with_the_interval_of_the_score(results, draw):
    for seed, (score, seconds) in enumerate([(0.1, 60), (0.2, 120), (0.3, 180)]):
        results.add("htl", seed, {"recall@1": score, "recall@2": 0.9}, train_seconds=seconds)
    (axes,) = draw("time").axes
    np.testing.assert_allclose(marks(axes)[marker("htl")], (2, 20))
    (interval,) = axes.collections
    ((low, high),) = [segment[:, 1] for segment in interval.get_segments()]
    assert (high - low) / 2 == pytest.approx(10 * 4.302653 / 3**0.5)
    assert axes.get_ylabel() == "Recall@1 (%)"


def test_only_losses_that_were_trained_without_failing_have_a_mark(results, draw):
    results.add("htl", 0, {"recall@1": 0.1}, train_seconds=60)
    results.add("control_untrained", 0, {"recall@1": 0.1}, train_seconds=0)
    results.add("embeddings_dino", 0, {"recall@1": 0.4}, train_seconds=0)
    results.add("rll", 0, status="killed", train_seconds=30)
    (axes,) = draw("time").axes
    assert [text.get_text() for text in axes.texts] == ["htl"]


def test_a_wide_interval_of_two_seeds_does_not_flatten_the_scores(results, draw):
    for seed, score in enumerate((0.5, 0.54)):
        results.add("htl", seed, {"recall@1": score})
    low, high = draw("time").axes[0].get_ylim()
    assert 48 < low < 50
    assert 54 < high < 56


@pytest.mark.parametrize(("seconds", "scale"), [(500, "linear"), (5000, "log")])
def test_times_of_different_magnitude_have_a_logarithmic_axis(results, draw, seconds, scale):
    results.add("htl", 0, {"recall@1": 0.5}, train_seconds=100)
    results.add("rll", 0, {"recall@1": 0.6}, train_seconds=seconds)
    (axes,) = draw("time").axes
    assert axes.get_xscale() == scale
    assert marks(axes).keys() == {marker("htl"), marker("rll")}
