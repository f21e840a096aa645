"""Published numbers are drawn against those of the study."""

import numpy as np
import pytest
from matplotlib.colors import to_hex

from dmlbench.leaderboard.comparison import Comparison
from dmlbench.leaderboard.plots.published import NOTHING, published
from dmlbench.leaderboard.style import colour, marker
from dmlbench.study.published import Published


def compared(loss, value, mean, half=1.0, metric="recall@1", provenance="seen", seeds=5):
    number = Published(
        system=loss, paper="", table="", dataset="cub200", backbone="bn_inception", dim=512,
        image_size=227, epochs=None, protocol="zero_shot", metric=metric, value=value,
        provenance=provenance, source="", note="",
    )  # fmt: skip
    return Comparison("cub200", "bn", loss, number, mean, half, seeds, [])


def marks(ax):
    return {line.get_marker(): line for line in ax.lines if len(line.get_xdata()) == 1}


def test_a_mark_is_the_mean_at_the_published_number_with_its_interval():
    (figure,) = published([compared("htl", 57.1, 55.0, 0.5), compared("rll", 57.4, 60.0, 2.0)])
    (ax,) = figure.axes
    for loss, place in {"htl": (57.1, 55.0), "rll": (57.4, 60.0)}.items():
        mark = marks(ax)[marker(loss)]
        assert (*mark.get_xdata(), *mark.get_ydata()) == place
        assert to_hex(mark.get_markerfacecolor()) == colour(loss)
    segments = ax.collections[0].get_segments()
    np.testing.assert_allclose(segments, [[(57.1, 54.5), (57.1, 55.5)], [(57.4, 58), (57.4, 62)]])
    (diagonal,) = [line for line in ax.lines if len(line.get_xdata()) == 2]
    np.testing.assert_array_equal(diagonal.get_xdata(), diagonal.get_ydata())
    assert ax.get_xlim() == ax.get_ylim()


def test_families_of_metrics_have_panels_of_their_own_with_a_legend_of_the_losses():
    metrics = ("recall@1", "recall@8", "map@r", "r_precision", "nmi")
    (figure,) = published([compared("htl", 50, 50, metric=metric) for metric in metrics])
    titles = [ax.get_title(loc="left") for ax in figure.axes]
    assert titles == ["Recall@K", "MAP@R", "R-Precision", "NMI, AMI and others"]
    assert [len(marks(ax)) for ax in figure.axes] == [1] * 4
    assert len([line for line in figure.axes[0].lines if len(line.get_xdata()) == 1]) == 2
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["htl"]


def test_a_number_from_memory_has_a_hollow_mark():
    (figure,) = published([compared("htl", 50, 50, provenance="unconfirmed")])
    assert to_hex(marks(figure.axes[0])[marker("htl")].get_markerfacecolor()) == "#ffffff"


@pytest.mark.parametrize("comparisons", [[], [compared("htl", 57.1, None, seeds=0)]])
def test_without_both_numbers_the_picture_says_so(comparisons):
    (figure,) = published(comparisons)
    assert figure.get_supxlabel().replace("\n", " ") == NOTHING


def test_a_number_without_a_result_is_left_out_and_the_caption_counts_the_others():
    (figure,) = published([compared("htl", 57.1, 55.0, seeds=3), compared("rll", 57.4, None),
                           compared("hpl", 60.0, 61.0, float("nan"), seeds=1)])  # fmt: skip
    assert marks(figure.axes[0]).keys() == {marker("htl"), marker("hpl")}
    caption = figure.get_supxlabel().replace("\n", " ")
    assert "n = 1 to 3 seeds" in caption
    assert "95 % interval of the mean, Student's t over seeds" in caption


def test_the_legend_of_thirty_losses_is_between_the_panels_and_the_caption():
    (figure,) = published([compared(f"a_loss_with_a_name_{n}", 50 + n, 50) for n in range(30)])
    figure.draw_without_rendering()
    (legend,) = figure.legends
    box = legend.get_window_extent()
    assert box.x0 >= 0
    assert box.x1 <= figure.bbox.x1
    assert figure.texts[0].get_window_extent().y1 <= box.y0 + 1
    assert box.y1 <= figure.axes[0].xaxis.label.get_window_extent().y0 + 1
