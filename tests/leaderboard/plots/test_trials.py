from itertools import pairwise

import numpy as np
import pytest
from matplotlib.colors import to_hex

from dmlbench.leaderboard.choices import Choice
from dmlbench.leaderboard.plots.figure import save
from dmlbench.leaderboard.plots.trials import BEST, NO_TRIALS, trial_settings, trials
from dmlbench.leaderboard.style import INK, colour

SPACE = {
    "alpha": [0.0, 10.0, "linear"],
    "recipe.lr_factor": [0.25, 4.0, "log"],
}


def choice(loss, scores, options=None, space=SPACE, **where):
    """A tuned loss; None is the score of a trial that diverged."""
    options = options or [{"alpha": 5.0, "recipe.lr_factor": 1.0}] * len(scores)
    ran = [
        {
            "trial": number,
            "status": "diverged" if score is None else "ok",
            "options": values,
            "best_score": score,
        }
        for number, (score, values) in enumerate(zip(scores, options, strict=True))
    ]
    known = [score for score in scores if score is not None]
    best = scores.index(max(known)) if known else None
    return Choice(
        dataset=where.get("dataset", "letters"),
        backbone="tiny",
        loss=loss,
        tuning={"metric": "map@r", "space": space},
        chosen=None if best is None else {"trial": best},
        score=max(known, default=None),
        trials=ran,
        spent={},
        error=None,
    )


def texts(figure):
    return [text.get_text() for ax in figure.axes for text in ax.texts if text.get_text()]


def steps(ax):
    """The curves of the losses."""
    return [line for line in ax.lines if line.get_drawstyle() == "steps-post"]


def test_the_curve_of_a_loss_is_its_best_score_so_far():
    (figure,) = trials([choice("htl", [0.2, 0.1, None, 0.5, 0.4]), choice("rll", [0.3, 0.3])])
    (ax,) = figure.axes
    assert ax.get_title(loc="left") == "letters · tiny"
    curves = {to_hex(line.get_color()): line for line in steps(ax)}
    x, y = curves[colour("htl")].get_data()
    assert x.tolist() == [1, 2, 3, 4, 5]
    np.testing.assert_allclose(y, [20, 20, 20, 50, 50])
    np.testing.assert_allclose(curves[colour("rll")].get_ydata(), [30, 30])
    (cross,) = [line for line in ax.lines if line.get_marker() == "x"]
    assert (cross.get_color(), *cross.get_xydata().tolist()) == (INK, [3, 20])
    assert texts(figure) == ["rll", "htl"]  # from the lowest end


def test_a_better_trial_is_marked_and_an_equal_one_is_not():
    (figure,) = trials([choice("htl", [0.2, 0.2, 0.4])])
    marks = [line for line in figure.axes[0].lines if line.get_marker() not in ("None", "x")]
    assert [line.get_xdata().tolist() for line in marks] == [[1, 3]]


def test_a_curve_begins_with_the_first_trial_that_succeeded():
    (figure,) = trials([choice("htl", [None, 0.2]), choice("rll", [None, None])])
    assert [line.get_xdata().tolist() for line in steps(figure.axes[0])] == [[2]]


@pytest.mark.parametrize("plot", [trials, trial_settings])
def test_without_a_score_the_picture_says_so(plot):
    (figure,) = plot([choice("htl", [None])])
    assert figure.get_supxlabel() == NO_TRIALS


def test_each_data_set_has_a_panel():
    choices = [choice("htl", [0.2]), choice("htl", [0.2], dataset="sop")]
    (figure,) = trials(choices)
    titles = [ax.get_title(loc="left") for ax in figure.axes]
    assert titles == ["letters · tiny", "sop · tiny"]
    (figure,) = trial_settings(choices)
    assert [t for t in texts(figure) if "tiny" in t] == ["letters · tiny", "sop · tiny"]


def test_a_value_is_at_its_height_between_the_ends_of_its_range():
    options = [{"alpha": 2.5, "recipe.lr_factor": 2.0}, {"alpha": 10.0, "recipe.lr_factor": 0.25}]
    (figure,) = trial_settings([choice("htl", [0.4, 0.2], options)])
    worse, better = figure.axes[0].lines  # the best on top
    (frame,) = figure.axes[0].collections
    top, bottom = frame.get_segments()[0][:, 1]

    def parts(line):
        return ((bottom - line.get_ydata()) / (bottom - top)).tolist()

    # lr_factor on a logarithmic scale from 0.25 to 4, alpha from 0 to 10, the score
    assert parts(better) == pytest.approx([0.75, 0.25, 1.0])
    assert parts(worse) == pytest.approx([0.0, 1.0, 0.0])
    assert better.get_linewidth() > worse.get_linewidth()  # it was chosen
    shown = texts(figure)
    names = ["lr_factor", "alpha", "MAP@R"]
    assert [text for text in shown if text in names] == names
    assert {"0.25", "4", "0", "10", "20", "40"} <= {*shown}


def test_a_value_outside_its_range_widens_the_axis():
    options = [{"alpha": 50.0, "recipe.lr_factor": 1.0}, {"alpha": 5.0, "recipe.lr_factor": 1.0}]
    (figure,) = trial_settings([choice("htl", [0.4, 0.2], options)])
    assert "50" in texts(figure)
    assert "10" not in texts(figure)


def test_an_option_that_a_trial_has_not_is_a_gap():
    options = [{"recipe.lr_factor": 1.0}, {"alpha": 5.0, "recipe.lr_factor": 1.0}]
    (figure,) = trial_settings([choice("htl", [0.4, 0.2], options)])
    _, better = figure.axes[0].lines
    assert np.isnan(better.get_ydata()).tolist() == [False, True, False]


def test_only_the_best_trials_of_a_loss_are_shown():
    scores = [n / 20 for n in range(15)]
    (figure,) = trial_settings([choice("htl", scores)])
    assert len(figure.axes[0].lines) == BEST
    assert "25" in texts(figure)  # the tenth best
    assert "20" not in texts(figure)


def test_names_with_every_letter_are_drawn_letter_by_letter(tmp_path):
    hostile = "$\\frac{1}{0}"
    choices = [choice(hostile, [0.2, 0.3], [{hostile: 1.0}] * 2, {hostile: [0.0, 2.0, "log"]})]
    for plot in (trials, trial_settings):
        (figure,) = plot(choices)
        save(figure, [tmp_path / "a.svg", tmp_path / "a.png"])
        assert "frac" in (tmp_path / "a.svg").read_text()


def test_thirty_losses_have_names_that_do_not_overlap():
    choices = [choice(f"loss_{n}", [0.2, 0.2 + n / 1000]) for n in range(30)]
    (figure,) = trials(choices)
    figure.draw_without_rendering()
    boxes = sorted((t.get_window_extent() for t in figure.axes[0].texts), key=lambda box: box.y0)
    assert len(boxes) == 30
    assert all(low.y1 <= high.y0 + 1 for low, high in pairwise(boxes))
    (figure,) = trial_settings(choices)
    assert len([t for t in texts(figure) if t.startswith("loss_")]) == 30
