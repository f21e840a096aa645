import numpy as np
import pytest

from dmlbench.leaderboard.table import read_results, tabulate

EIGHT = ("htl", "softtriple", "hpl", "rll", "proxy_anchor", "normalized_softmax", "triplet")
EIGHT += ("multi_similarity",)


def texts(axes):
    return [text.get_text() for text in axes.texts]


def row_labels(axes):
    return [label.get_text() for label in axes.get_yticklabels()]


def test_bars_are_means_with_the_best_first_and_controls_below(study, draw):
    results = study(EIGHT)
    left, right = draw("recall").axes
    table = tabulate(read_results(results.runs, results.files))
    for axes, metric in ((left, "map@r"), (right, "recall@1")):
        means = 100 * table[table["metric"] == metric].groupby("loss")["value"].mean()
        drawn = [bar.get_width() for bar in axes.patches]
        order = [label.split()[0] for label in row_labels(left)]
        order = [loss if loss in EIGHT else f"control_{loss}" for loss in order]
        np.testing.assert_allclose(drawn, means[order])
        heights = [bar.get_y() for bar in axes.patches]
        assert heights == sorted(heights, reverse=True)
    widths = [bar.get_width() for bar in left.patches]
    assert widths[:8] == sorted(widths[:8], reverse=True)
    assert [label for label in row_labels(left) if "control" in label] == row_labels(left)[8:]


def test_seeds_are_dots_and_the_interval_is_that_of_the_table(results, draw):
    for seed, value in enumerate((0.1, 0.2, 0.3)):
        results.add("htl", seed, {"map@r": value, "recall@1": value})
    axes = draw("recall").axes[0]
    dots, bars = axes.collections
    np.testing.assert_allclose(dots.get_offsets()[:, 0], [10, 20, 30])
    ((low, high),) = [segment[:, 0] for segment in bars.get_segments()]
    assert (high - low) / 2 == pytest.approx(10 * 4.302653 / 3**0.5)
    assert texts(axes) == ["20.0"]


def test_a_control_far_above_the_losses_does_not_shorten_their_bars(study, draw):
    study(EIGHT)
    axes = draw("recall").axes[0]
    assert axes.get_xlim()[1] < 50
    assert "100.0 →" in texts(axes)


def test_the_number_next_to_a_bar_stays_within_the_plot_if_two_seeds_make_a_wide_interval(
    results, draw
):
    for seed, value in enumerate((0.1, 0.3)):
        results.add("htl", seed, {"map@r": value, "recall@1": value})
    figure = draw("recall")
    figure.canvas.draw()
    axes = figure.axes[0]
    (number,) = axes.texts
    assert axes.get_xlim()[1] < 50
    assert number.get_window_extent().x1 < figure.bbox.x1
    assert axes.get_xlim()[0] <= number.xy[0] <= axes.get_xlim()[1]


def test_failed_losses_are_shown_with_their_status(study, results, draw):
    study(("htl", "hpl"), controls=False)
    results.add("hpl", 3, status="killed")
    results.add("rll", 0, status="out_of_memory")
    left, _ = draw("recall").axes
    assert row_labels(left)[-1] == "rll"
    assert "hpl (3 of 4 seeds)" in row_labels(left)
    assert texts(left)[-1] == "out of memory"


def test_external_embeddings_have_a_bar(results, draw):
    results.add("htl", 0, {"map@r": 0.1, "recall@1": 0.2})
    results.add("embeddings_dino", 0, {"map@r": 0.3, "recall@1": 0.4})
    assert row_labels(draw("recall").axes[0]) == ["dino (embeddings)", "htl"]
