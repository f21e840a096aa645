import matplotlib as mpl
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dmlbench.leaderboard.plots.figure import save, spread

ALL = ("recall", "recall_curves", "time", "training")
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


@pytest.mark.parametrize("name", ALL)
def test_a_study_in_which_everything_failed_can_be_drawn(results, draw, tmp_path, name):
    results.add("htl", 0, status="error", error="no such file")
    save(draw(name), [tmp_path / f"{name}.png"])


def test_plots_of_a_study_without_scores_say_so(results, draw):
    results.add("htl", 0, status="error")
    for name in ("recall_curves", "time"):
        assert draw(name).get_supxlabel() == "no run has a Recall@K"


@pytest.mark.parametrize("name", ALL)
def test_drawing_does_not_change_the_settings_of_matplotlib(study, draw, tmp_path, name):
    mpl.rcdefaults()
    before = dict(mpl.rcParams)
    study(("htl",))
    save(draw(name), [tmp_path / "a.svg"])
    assert dict(mpl.rcParams) == before


def test_an_svg_names_fallback_fonts(study, draw, tmp_path):
    study(("htl",))
    save(draw("time"), [tmp_path / "a.svg"])
    text = (tmp_path / "a.svg").read_text()
    assert text.count("font-family: 'DejaVu Sans', Verdana, sans-serif") == text.count("DejaVu")
