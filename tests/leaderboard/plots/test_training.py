import numpy as np
import pytest
from matplotlib.colors import to_hex

from dmlbench.leaderboard.plots.training import MAX_POINTS, training
from dmlbench.leaderboard.style import colour
from dmlbench.leaderboard.table import read_results

EIGHT = ("htl", "softtriple", "hpl", "rll", "proxy_anchor", "normalized_softmax", "triplet")
EIGHT += ("multi_similarity",)


def curves(axes):
    """Colour -> the curves of a loss, as points in inches."""
    *losses, _frames = axes.collections
    return {to_hex(lines.get_color()[0]): lines.get_segments() for lines in losses}


def texts(axes):
    return [text.get_text() for text in axes.texts if text.get_text()]


def test_each_loss_has_a_panel_with_a_line_for_each_seed_and_controls_have_none(study, draw):
    results = study(EIGHT, seeds=4)
    (axes,) = draw("training").axes
    drawn = curves(axes)
    assert list(drawn) == [colour(loss) for loss in EIGHT]
    assert [loss for loss in texts(axes) if loss in EIGHT] == list(EIGHT)
    assert not any("control" in text for text in texts(axes))
    for lines in drawn.values():
        assert [len(line) for line in lines] == [8] * 4
    first = read_results(results.runs, results.files)[3]  # after the three controls
    x, y = drawn[colour("htl")][0].T
    epoch, loss = first.epochs["epoch"].to_numpy(), first.epochs["loss"].to_numpy()
    np.testing.assert_allclose((x - x[0]) / (x[-1] - x[0]), (epoch - 1) / 7)
    np.testing.assert_allclose((y - y[0]) / (y[-1] - y[0]), (loss - loss[0]) / (loss[-1] - loss[0]))
    assert (y[-1] > y[0]) == (loss[-1] < loss[0])  # inches count from the top


def test_the_numbers_of_a_scale_are_at_the_height_of_their_values(results, draw):
    results.add("htl", 0, {"map@r": 0.1}, history=[0.0, 5.0, 10.0])
    (axes,) = draw("training").axes
    ((line,),) = curves(axes).values()
    heights = dict(zip((0.0, 5.0, 10.0), line[:, 1], strict=True))
    numbers = {
        float(text.get_text()): text.get_position()[1]
        for text in axes.texts
        if text.get_ha() == "right" and text.get_text()
    }
    assert numbers == pytest.approx({0.0: heights[0.0], 4.0: np.interp(4, [0, 5], line[:2, 1]),
                                     8.0: np.interp(8, [5, 10], line[1:, 1])})  # fmt: skip


def test_a_failed_training_is_marked_at_its_end(results, draw):
    results.add("htl", 0, {"map@r": 0.1}, history=[1.5, 1.0])
    results.add("rll", 0, status="out_of_memory", history=[3.0, 2.0])
    (axes,) = draw("training").axes
    assert "out of memory" in texts(axes)
    (cross,) = [line for line in axes.lines if line.get_marker() == "x"]
    (failed,) = curves(axes)[colour("rll")]
    np.testing.assert_allclose(cross.get_xydata(), failed[-1:])


def test_external_embeddings_have_no_panel(results, draw):
    results.add("htl", 0, {"map@r": 0.1}, history=[1.5])
    results.add("embeddings_dino", 0, {"map@r": 0.3})
    (axes,) = draw("training").axes
    assert list(curves(axes)) == [colour("htl")]


def test_a_training_of_one_epoch_is_visible(results, draw):
    results.add("htl", 0, {"map@r": 0.1, "recall@1": 0.2}, history=[1.5])
    (line,) = draw("training").axes[0].lines
    assert line.get_marker() == "."


def test_a_loss_that_became_infinite_is_drawn_up_to_there(results, draw):
    results.add("htl", 0, status="diverged", history=[3.0, 2.0, float("inf"), float("nan")])
    (axes,) = draw("training").axes
    ((line,),) = curves(axes).values()
    assert len(line) == 2
    assert np.isfinite(line).all()


def test_a_curve_of_thousands_of_epochs_is_thinned_and_keeps_its_ends(results, draw):
    results.add("htl", 0, {"map@r": 0.1}, history=list(np.linspace(9, 0, 5000)))
    results.add("htl", 1, {"map@r": 0.1}, history=[9.0, *[0.0] * 4999])
    (axes,) = draw("training").axes
    long, other = curves(axes)[colour("htl")]
    assert len(long) == MAX_POINTS
    np.testing.assert_allclose(long[0], other[0])
    np.testing.assert_allclose(long[-1], other[-1])


def test_what_does_not_fit_into_a_picture_goes_on_in_the_next(results):
    for number in range(30):
        for loss in ("htl", "rll"):
            results.add(loss, 0, {"map@r": 0.1}, history=[2.0, 1.0], dataset=f"images_{number}")
    figures = [*training(read_results(results.runs, results.files))]
    titles = [axes.texts[0].get_text() for figure in figures for axes in figure.axes]
    assert titles == [f"images_{number} · tiny" for number in range(30)]
    assert len(figures) == 2
    assert max(figure.get_figheight() for figure in figures) <= 40


@pytest.mark.parametrize(
    ("scale", "numbers"),
    [(1.0, {"0", "4", "8"}), (1e-8, {"0", "4e-08", "8e-08"}), (1e7, {"0", "4e+07", "8e+07"})],
)
def test_numbers_that_would_be_long_are_powers_of_ten(results, draw, scale, numbers):
    results.add("htl", 0, {"map@r": 0.1}, history=[0.0, 10 * scale])
    (axes,) = draw("training").axes
    shown = {text.get_text() for text in axes.texts if text.get_ha() == "right"}
    assert shown == numbers


def test_a_long_name_stays_in_its_panel(results, draw):
    names = ["a", "b", "c", "my_own_loss_with_a_very_long_name_indeed"]
    for name in names:
        results.add(name, 0, {"map@r": 0.1}, history=[2.0, 1.0])
    figure = draw("training")
    figure.set_dpi(200)  # as a PNG
    figure.draw_without_rendering()
    shown = {text.get_text(): text.get_window_extent() for text in figure.axes[0].texts}
    assert shown[names[-1]].x1 <= figure.bbox.x1
    assert shown["c"].x1 <= shown[names[-1]].x0
