"""Names of losses stand beside their marks, and no two overlap."""

import matplotlib as mpl
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dmlbench.leaderboard.plots.figure import add_panel, new_figure
from dmlbench.leaderboard.plots.names import label_at_right, label_nearby, spread, text_width

THIRTY = (*(f"loss_{i:02}" for i in range(29)), "pml.SignalToNoiseRatioContrastiveLoss")


@given(st.lists(st.floats(0, 1), min_size=1, max_size=40).map(sorted), st.floats(0.001, 0.2))
def test_positions_are_apart_in_order_and_within_0_and_1(wanted, gap):
    positions = spread(np.array(wanted), gap)
    room = 1 / max(len(wanted) - 1, 1)
    assert np.all(np.diff(positions) > min(gap, room) - 1e-9)
    assert positions.min() > -1e-9
    assert positions.max() < 1 + 1e-9


def test_positions_with_room_between_them_stay_and_others_move_apart_evenly():
    np.testing.assert_allclose(spread(np.array([0.1, 0.5, 0.9]), 0.2), [0.1, 0.5, 0.9])
    np.testing.assert_allclose(spread(np.array([0.5, 0.5, 0.9]), 0.2), [0.4, 0.6, 0.9])


@pytest.mark.parametrize("name", ["recall_curves", "time"])
def test_thirty_names_do_not_overlap_and_stay_within_the_figure(study, draw, name):
    study(THIRTY, seeds=2)
    figure = draw(name)
    figure.canvas.draw()
    names = figure.axes[0].texts
    assert sorted(text.get_text() for text in names) == sorted(THIRTY)
    letters = [mpl.text.Text.get_window_extent(text) for text in names]  # without the lines
    for index, box in enumerate(letters):
        assert not box.count_overlaps(letters[:index])
        assert figure.bbox.containsx(box.x0)
        assert figure.bbox.containsx(box.x1)


@pytest.mark.parametrize("label", [label_at_right, label_nearby])
@pytest.mark.parametrize("dpi", [100, 200])
def test_a_dotted_line_goes_from_a_mark_to_its_name_at_any_resolution(label, dpi):
    figure = new_figure(4)
    ax = add_panel(figure, 0.5, 5, 0.2, 3)
    ax.set(xlim=(0, 1), ylim=(0, 1))
    points = {"htl": (0.5, 0.5), "rll": (0.5, 0.5), "hpl": (0.5, 0.9), "snr": (0.5, 0.51)}
    label(ax, points)
    figure.set_dpi(dpi)
    figure.draw_without_rendering()
    (joined,) = ax.collections
    lines = [ax.transAxes.transform(line) for line in joined.get_segments()]
    marks = ax.transData.transform([*points.values()])
    boxes = [mpl.text.Text.get_window_extent(text).padded(3 * dpi / 72) for text in ax.texts]
    assert len(lines) >= 2
    for start, end in lines:
        assert np.hypot(*(marks - start).T).min() == pytest.approx(3 * dpi / 72)
        assert any(box.contains(*end) for box in boxes)


def test_without_points_nothing_is_written():
    ax = add_panel(new_figure(4), 0.5, 5, 0.2, 3)
    for label in (label_at_right, label_nearby):
        label(ax, {})
    assert not ax.texts


def test_the_width_of_a_name_is_that_of_its_letters():
    figure = new_figure(2)
    with mpl.rc_context({"font.family": "DejaVu Sans"}):
        text = figure.text(0, 0, "proxy_anchor", fontsize=7, fontweight="bold")
        width = text.get_window_extent().width / figure.dpi
    assert text_width("proxy_anchor", 7, "bold") == pytest.approx(width)
    assert text_width("proxy_anchor", 7) < width
