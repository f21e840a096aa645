import numpy as np
from matplotlib.colors import to_rgba

from dmlbench.leaderboard.style import colour, marker


def curves(axes, loss):
    """The thick lines of a loss (one, with markers), and the points of its thin ones."""
    thick = [line for line in axes.lines if line.get_marker() == marker(loss)]
    tint = to_rgba(colour(loss))[:3]
    *seeds, _to_names = axes.collections
    thin = [lines for lines in seeds if tuple(lines.get_color()[0][:3]) == tint]
    return thick, [segment for lines in thin for segment in lines.get_segments()]


def test_a_curve_is_the_mean_over_seeds_at_the_scored_k_with_its_seeds(results, draw):
    for seed, (at_1, at_10) in enumerate([(0.1, 0.5), (0.3, 0.9)]):
        results.add("htl", seed, {"recall@10": at_10, "recall@1": at_1, "map@r": 0.7})
    (axes,) = draw("recall_curves").axes
    ((mean,), seeds) = curves(axes, "htl")
    np.testing.assert_allclose(mean.get_xydata(), [[1, 20], [10, 70]])
    np.testing.assert_allclose(seeds, [[(1, 10), (10, 50)], [(1, 30), (10, 90)]])
    assert axes.get_xscale() == "log"
    assert [text.get_text() for text in axes.get_xticklabels()] == ["1", "10"]


def test_names_are_in_the_order_in_which_the_curves_end(results, draw):
    for loss, at_1, at_10 in (("a", 0.9, 0.91), ("b", 0.1, 0.95), ("c", 0.5, 0.93)):
        results.add(loss, 0, {"recall@1": at_1, "recall@10": at_10})
    (axes,) = draw("recall_curves").axes
    names = sorted(axes.texts, key=lambda text: -text.get_position()[1])
    assert [text.get_text() for text in names] == ["b", "c", "a"]
    assert [text.xy for text in names] == [(10, 95.0), (10, 93.0), (10, 91.0)]


def test_each_data_set_backbone_and_protocol_has_a_panel_without_controls(results, draw):
    results.add("control_random", 0, {"recall@1": 0.001})
    results.add("htl", 0, {"recall@1": 0.5}, protocols=("small", "large"))
    results.add("rll", 0, status="killed")
    results.add("embeddings_dino", 0, {"recall@1": 0.4}, dataset="cub200")
    names = {
        axes.get_title(loc="left"): [text.get_text() for text in axes.texts]
        for axes in draw("recall_curves").axes
    }
    assert names == {
        "letters · tiny · small": ["htl"],
        "letters · tiny · large": ["htl"],
        "cub200 · tiny · zero_shot": ["dino (embeddings)"],
    }


def test_the_axis_is_stretched_near_100_percent_and_includes_0_and_100(results, draw):
    results.add("a", 0, {"recall@1": 0.5, "recall@10": 0.9, "recall@100": 0.99})
    (axes,) = draw("recall_curves").axes
    half, nine, nines = axes.transData.transform([(1, 50), (1, 90), (1, 99)])[:, 1]
    assert nines - nine > nine - half > 0
    results.add("b", 0, {"recall@1": 0.0, "recall@10": 1.0, "recall@100": 1.0})
    (axes,) = draw("recall_curves").axes
    positions = axes.transAxes.inverted().transform(axes.transData.transform([(1, 0), (1, 100)]))
    np.testing.assert_allclose(positions[:, 1], [0, 1], atol=1e-9)
    assert not any(line.get_clip_on() for line in axes.lines if line.get_linewidth() > 1)
