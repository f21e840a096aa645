import re

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

from dmlbench.leaderboard.plots.figure import (
    add_caption,
    add_panel,
    caption_height,
    describe_seeds,
    new_figure,
    save,
    text_figure,
)

ALL = ("recall", "recall_curves", "time", "training")


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


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("suffix", ["png", "svg", "pdf"])
def test_equal_results_give_equal_files(study, draw, tmp_path, name, suffix):
    study(("htl", "rll"))
    for file in ("first", "second"):
        save(draw(name), [tmp_path / f"{file}.{suffix}"])
    first, second = ((tmp_path / f"{file}.{suffix}").read_bytes() for file in ("first", "second"))
    assert first == second
    assert b"CreationDate" not in first


def test_a_pdf_holds_truetype_fonts_and_its_text_as_text(tmp_path):
    save(text_figure("plain text"), [tmp_path / "a.pdf"])
    content = (tmp_path / "a.pdf").read_bytes()
    assert b"/Subtype /Type3" not in content
    assert re.search(rb"/Subtype /(TrueType|CIDFontType2)", content)
    assert b"/FontFile2" in content
    assert b"/ToUnicode" in content  # by which a reader finds and copies the text


def test_a_long_caption_is_broken_and_stays_below_the_panels_and_within_the_page():
    caption = "mark: mean over seeds   |   " * 12
    height = caption_height(caption)
    figure = new_figure(2 + height)
    ax = add_panel(figure, 0.5, 7, 0.2, 1.8)
    add_caption(figure, caption)
    figure.draw_without_rendering()
    (text,) = figure.texts
    box = text.get_window_extent()
    assert text.get_text().count("\n") >= 2
    assert box.x0 >= 0
    assert box.x1 <= figure.bbox.x1
    assert box.y0 >= 0
    assert box.y1 <= ax.bbox.y0


def test_a_panel_is_where_it_was_wanted_in_inches():
    ax = add_panel(new_figure(10), 1, 4, 2, 5)
    np.testing.assert_allclose(ax.bbox.extents, [100, 300, 400, 800])


@pytest.mark.parametrize(
    ("counts", "text"),
    [({"htl": 5, "rll": 5}, "n = 5 seeds"), ({"htl": 5, "rll": 3}, "n = 3 to 5 seeds"),
     ({"htl": 1}, "n = 1 seed"), ({"htl": 2, "control_random": 1}, "n = 2 seeds"),
     ({"control_random": 1}, "n = 1 seed"), ({}, "n = 0 seeds")],
)  # fmt: skip
def test_the_seeds_that_succeeded_are_counted(counts, text):
    rows = [
        {"loss": loss, "seed": seed, "value": value, "metric": metric}
        for loss, count in counts.items()
        for seed, value in enumerate([0.5] * count + [float("nan")])
        for metric in ("map@r", "recall@1")
    ]
    assert describe_seeds(pd.DataFrame(rows, columns=["loss", "seed", "value", "metric"])) == text


@pytest.mark.parametrize("name", ["recall", "recall_curves", "time", "training"])
def test_a_caption_says_what_n_is_and_what_the_interval_is(study, results, draw, name):
    study(("htl", "rll"), seeds=3)
    results.add("htl", 3, {"recall@1": 0.5, "map@r": 0.3}, history=[2.0, 1.0])
    (caption,) = {draw(name).get_supxlabel().replace("\n", " ")}
    assert "n = 3 to 4 seeds" in caption
    says = "95 % interval of the mean" if name in ("recall", "time") else "interval"
    assert says in caption
    assert ("Student's t over seeds" in caption) == (name in ("recall", "time"))


def test_a_caption_is_broken_between_its_parts():
    figure = new_figure(1)
    parts = ["a part of some letters " * 3, "another " * 8, "the last"]
    add_caption(figure, "   |   ".join(part.strip() for part in parts))
    first, second = figure.get_supxlabel().split("\n")
    assert first == parts[0].strip()
    assert second == f"{parts[1].strip()}   |   the last"
