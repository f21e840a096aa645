import numpy as np
import pandas as pd

from dmlbench.leaderboard.style import colour
from dmlbench.leaderboard.table import read

EIGHT = ("htl", "softtriple", "hpl", "rll", "proxy_anchor", "normalized_softmax", "triplet")
EIGHT += ("multi_similarity",)


def test_training_has_a_panel_a_loss_and_a_line_a_seed_and_no_controls(study, draw):
    made = study(EIGHT, seeds=4)
    panels = [axes for axes in draw("training").axes if axes.get_visible()]
    assert [axes.get_title(loc="left") for axes in panels] == list(EIGHT)
    for axes in panels:
        assert [len(line.get_xdata()) for line in axes.lines] == [8] * 4
        assert {line.get_color() for line in axes.lines} == {colour(axes.get_title(loc="left"))}
    history = read(made.runs, made.folder)[3].history  # the first after the three controls
    np.testing.assert_array_equal(panels[0].lines[0].get_ydata(), pd.read_parquet(history)["loss"])


def test_a_failed_training_is_marked_where_it_ended(results, draw):
    results.add("htl", 0, {"map@r": 0.1}, history=[1.5, 1.0])
    results.add("rll", 0, status="out_of_memory", history=[3.0, 2.0])
    panel = draw("training").axes[1]
    assert [text.get_text() for text in panel.texts] == ["out of memory"]
    crosses = [line for line in panel.lines if line.get_marker() == "x"]
    assert [(*line.get_xdata(), *line.get_ydata()) for line in crosses] == [(2, 2)]


def test_embeddings_made_elsewhere_have_no_training(results, draw):
    results.add("htl", 0, {"map@r": 0.1}, history=[1.5])
    results.add("embeddings_dino", 0, {"map@r": 0.3})
    assert [axes.get_title(loc="left") for axes in draw("training").axes] == ["htl"]


def test_one_epoch_of_training_is_visible(results, draw):
    results.add("htl", 0, {"map@r": 0.1, "recall@1": 0.2}, history=[1.5])
    (line,) = draw("training").axes[0].lines
    assert line.get_marker() == "."
