import itertools

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb

from dmlbench.leaderboard import plots
from dmlbench.leaderboard.style import COLOURS, CONTROL_GRAY, colour
from dmlbench.leaderboard.table import read, tabulate

EIGHT = ("htl", "softtriple", "hpl", "rll", "proxy_anchor", "normalized_softmax", "triplet")
EIGHT += ("multi_similarity",)


@pytest.fixture
def draw(results):
    """Draw the plot `name` of all runs added so far."""

    def run(name):
        found = read(results.runs, results.folder)
        return plots.recall(tabulate(found)) if name == "recall" else plots.training(found)

    return run


def texts(axes):
    return [text.get_text() for text in axes.texts]


def row_labels(axes):
    return [label.get_text() for label in axes.get_yticklabels()]


def test_bars_are_the_means_best_first_with_controls_below(study, draw):
    made = study(EIGHT)
    left, right = draw("recall").axes
    table = tabulate(read(made.runs, made.folder))
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


def test_seeds_are_dots_and_the_interval_is_the_table_s(results, draw):
    for seed, value in enumerate((0.1, 0.2, 0.3)):
        results.add("htl", seed, {"map@r": value, "recall@1": value})
    axes = draw("recall").axes[0]
    dots, bars = axes.collections
    np.testing.assert_allclose(dots.get_offsets()[:, 0], [10, 20, 30])
    ((low, high),) = [segment[:, 0] for segment in bars.get_segments()]
    assert (high - low) / 2 == pytest.approx(10 * 4.302653 / 3**0.5)
    assert texts(axes) == ["20.0"]


def test_a_score_far_above_the_losses_does_not_flatten_them(study, draw):
    study(EIGHT)
    axes = draw("recall").axes[0]
    assert axes.get_xlim()[1] < 50
    assert "100.0 →" in texts(axes)


def test_the_number_beside_a_bar_stays_within_the_plot_when_two_seeds_make_a_wide_interval(
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


def test_failed_cells_are_shown(study, results, draw):
    study(("htl", "hpl"), controls=False)
    results.add("hpl", 3, status="killed")
    results.add("rll", 0, status="out_of_memory", history=[3.0, 2.0])
    left, _ = draw("recall").axes
    assert row_labels(left)[-1] == "rll"
    assert "hpl (3 of 4 seeds)" in row_labels(left)
    assert texts(left)[-1] == "out of memory"
    panel = draw("training").axes[2]
    assert texts(panel) == ["out of memory"]
    crosses = [line for line in panel.lines if line.get_marker() == "x"]
    assert [(*line.get_xdata(), *line.get_ydata()) for line in crosses] == [(2, 2)]


def test_training_has_a_panel_a_loss_and_a_line_a_seed_and_no_controls(study, draw):
    made = study(EIGHT, seeds=4)
    panels = [axes for axes in draw("training").axes if axes.get_visible()]
    assert [axes.get_title(loc="left") for axes in panels] == list(EIGHT)
    for axes in panels:
        assert [len(line.get_xdata()) for line in axes.lines] == [8] * 4
        assert {line.get_color() for line in axes.lines} == {colour(axes.get_title(loc="left"))}
    history = read(made.runs, made.folder)[3].history  # the first after the three controls
    np.testing.assert_array_equal(panels[0].lines[0].get_ydata(), pd.read_parquet(history)["loss"])


def test_embeddings_made_elsewhere_have_a_bar_and_no_training(results, draw):
    results.add("htl", 0, {"map@r": 0.1, "recall@1": 0.2}, history=[1.5])
    results.add("embeddings_dino", 0, {"map@r": 0.3, "recall@1": 0.4})
    assert row_labels(draw("recall").axes[0]) == ["dino (embeddings)", "htl"]
    assert [axes.get_title(loc="left") for axes in draw("training").axes] == ["htl"]


def test_one_epoch_of_training_is_visible(results, draw):
    results.add("htl", 0, {"map@r": 0.1, "recall@1": 0.2}, history=[1.5])
    (line,) = draw("training").axes[0].lines
    assert line.get_marker() == "."


def test_a_study_in_which_everything_failed_can_be_drawn(results, draw, tmp_path):
    results.add("htl", 0, status="error", error="no such file")
    for name in ("recall", "training"):
        plots.save(draw(name), tmp_path / f"{name}.png")
    assert texts(draw("recall").axes[0]) == ["error"]


def test_the_colour_of_a_loss_is_its_own_in_every_study():
    assert colour("htl") == COLOURS["htl"]
    assert colour("pml.CircleLoss") == "#9d343c"  # from its name, on any machine
    assert colour("control_random") == CONTROL_GRAY


def test_the_colours_of_the_common_losses_are_told_apart():
    for one, other in itertools.combinations([*COLOURS.values(), CONTROL_GRAY], 2):
        assert np.linalg.norm(np.subtract(to_rgb(one), to_rgb(other))) > 0.16, (one, other)


def test_drawing_leaves_matplotlib_as_it_was(study, draw, tmp_path):
    mpl.rcdefaults()
    before = dict(mpl.rcParams)
    study(("htl",))
    plots.save(draw("recall"), tmp_path / "a.svg")
    assert dict(mpl.rcParams) == before
