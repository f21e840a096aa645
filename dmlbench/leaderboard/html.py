"""The leaderboard's pages as HTML files: sortable tables, the plots, and a page for each cell.

They load nothing from elsewhere. Only the page of a large study leaves its plots in the files
beside it.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from functools import cache
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from dmlbench.leaderboard.content import CellPage, Page
from dmlbench.leaderboard.made_of import failed_plot_lines
from dmlbench.leaderboard.page import NOTES
from dmlbench.leaderboard.pictures import Picture
from dmlbench.leaderboard.sections import published
from dmlbench.leaderboard.style import colour
from dmlbench.study.published import UNCONFIRMED
from dmlbench.study.row_names import display_name
from dmlbench.utils.text import literal

CAPTIONS = {
    "recall": "MAP@R and Recall@1: mean over seeds with its 95 % interval, and single seeds",
    "recall_curves": "Recall@K against K: mean over seeds, and single seeds; axes: log K, log odds",
    "time": "Recall against training time: mean over seeds, with the 95 % interval of the score",
    "training": "Loss against epoch: one line for each seed; the scales differ",
    "trials": "Tuning: the best validation score so far against the trials spent",
    "trial_settings": "Tuning: the settings of the best trials of each loss; thick: the chosen one",
    "critical_difference": "Mean ranks over data sets; a thick line joins what is not separated",
    "trees": "The tree of the training classes that a loss has learnt: where classes were merged",
}
MAX_EMBEDDED = 4_000_000
"""Bytes of plots that a page holds."""
MAX_NARROW = 11  # columns; a wider table puts intervals below their means, to fit 1400 pixels


def render(page: Page, pictures: Sequence[Picture]) -> str:
    """The page with its plots in it, or beside it if they are large.

    Args:
        pictures: they are in the folder `plots` beside the page.
    """
    is_large = sum(picture.svg.stat().st_size for picture in pictures) > MAX_EMBEDDED
    plots = (
        (
            quote(f"plots/{picture.name}.svg") if is_large else _data_url(picture),
            CAPTIONS[picture.plot.partition("/")[0]],
        )
        for picture in pictures
    )
    return _templates().get_template("leaderboard.html").render(
        page=page,
        published=published,
        unconfirmed=UNCONFIRMED,
        notes=NOTES,
        plots=plots,
        is_large=is_large,
        failed_plots=failed_plot_lines(page.failed_plots),
    )  # fmt: skip


def render_cell(page: CellPage) -> str:
    """The page of a cell, which loads nothing."""
    return _templates().get_template("cell.html").render(page=page)


@cache
def _templates() -> Environment:
    """The templates. All that they show is text, letter by letter: no name is taken for HTML."""
    environment = Environment(
        loader=PackageLoader("dmlbench.leaderboard"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=StrictUndefined,
        finalize=_text,
    )
    environment.filters |= {"colour": colour, "display_name": display_name}
    environment.globals |= {"max_narrow": MAX_NARROW}
    return environment


def _text(value: Any) -> Any:
    """What a template shows in the place of `value`, before it is escaped."""
    return value if isinstance(value, Markup) else literal(str(value))


def _data_url(picture: Picture) -> str:
    return f"data:image/svg+xml;base64,{b64encode(picture.svg.read_bytes()).decode()}"
