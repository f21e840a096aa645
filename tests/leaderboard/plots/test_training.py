import numpy as np
import pandas as pd

from dmlbench.leaderboard.style import colour
from dmlbench.leaderboard.table import read_results

EIGHT = ("htl", "softtriple", "hpl", "rll", "proxy_anchor", "normalized_softmax", "triplet")
EIGHT += ("multi_similarity",)


def test_each_loss_has_a_panel_with_a_line_for_each_seed_and_controls_have_none(study, draw):
    results = study(EIGHT, seeds=4)
    panels = [axes for axes in draw("training").axes if axes.get_visible()]
    assert [axes.get_title(loc="left") for axes in panels] == list(EIGHT)
    for axes in panels:
        assert [len(line.get_xdata()) for line in axes.lines] == [8] * 4
        assert {line.get_color() for line in axes.lines} == {colour(axes.get_title(loc="left"))}
    first = read_results(results.runs, results.files)[3]  # after the three controls
    history = pd.read_parquet(first.files.history)
    np.testing.assert_array_equal(panels[0].lines[0].get_ydata(), history["loss"])


def test_a_failed_training_is_marked_at_its_end(results, draw):
    results.add("htl", 0, {"map@r": 0.1}, history=[1.5, 1.0])
    results.add("rll", 0, status="out_of_memory", history=[3.0, 2.0])
    panel = draw("training").axes[1]
    assert [text.get_text() for text in panel.texts] == ["out of memory"]
    crosses = [line for line in panel.lines if line.get_marker() == "x"]
    assert [(*line.get_xdata(), *line.get_ydata()) for line in crosses] == [(2, 2)]


def test_external_embeddings_have_no_panel(results, draw):
    results.add("htl", 0, {"map@r": 0.1}, history=[1.5])
    results.add("embeddings_dino", 0, {"map@r": 0.3})
    assert [axes.get_title(loc="left") for axes in draw("training").axes] == ["htl"]


def test_a_training_of_one_epoch_is_visible(results, draw):
    results.add("htl", 0, {"map@r": 0.1, "recall@1": 0.2}, history=[1.5])
    (line,) = draw("training").axes[0].lines
    assert line.get_marker() == "."
