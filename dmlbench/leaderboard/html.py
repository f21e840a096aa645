"""The leaderboard's pages as HTML files: sortable tables, the plots, and a page for each cell.

They load nothing from elsewhere. Only the page of a large study leaves its plots in the files
beside it.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from typing import NamedTuple
from urllib.parse import quote

from dmlbench.leaderboard.content import CellPage, Page
from dmlbench.leaderboard.made_of import failed_plot_lines
from dmlbench.leaderboard.page import NOTES
from dmlbench.leaderboard.pictures import Picture
from dmlbench.leaderboard.sections import published
from dmlbench.leaderboard.templating import templates
from dmlbench.study.published import UNCONFIRMED

CAPTIONS = {
    "recall": (
        "MAP@R and Recall@1: mean over the n seeds that succeeded, the 95 % interval of the mean "
        "(Student's t over seeds), and single seeds"
    ),
    "recall_curves": (
        "Recall@K against K: mean over the n seeds that succeeded, and single seeds, without an "
        "interval; axes: log K, log odds"
    ),
    "time": (
        "Recall against training time, and against images seen if these differ: mean over the n "
        "seeds that succeeded, with the 95 % interval of the mean score (Student's t over seeds)"
    ),
    "training": "Loss against epoch: a line for each of n seeds, without a mean; the scales differ",
    "trials": (
        "Tuning: the best validation score so far against the n trials of each loss; a score is a "
        "mean over folds, without an interval"
    ),
    "trial_settings": (
        "Tuning: the settings of the best of the n trials of each loss; thick: the chosen one; "
        "scores without an interval"
    ),
    "ladder": (
        "Taxonomy ladder: MAP@R and Recall@1 against what is unseen in training: mean over the n "
        "seeds that succeeded, the 95 % interval of the mean (Student's t over seeds), and single "
        "seeds"
    ),
    "critical_difference": (
        "Mean ranks over n data sets; a thick line joins what Nemenyi's test does not separate"
    ),
    "published": (
        "Published numbers against the means here: mean over the n seeds that succeeded, with the "
        "95 % interval of the mean (Student's t over seeds); on the diagonal both are equal"
    ),
    "trees": (
        "The tree of the training classes that a loss has learnt (n = 1 seed): where classes were "
        "merged, and how well it agrees with the true super-classes"
    ),
    "groups": (
        "The groups of the training classes that a loss has learnt (n = 1 seed) against the true "
        "super-classes"
    ),
}
MAX_EMBEDDED = 4_000_000
"""Bytes of plots that a page holds."""


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
    return templates().get_template("leaderboard.html").render(
        page=page,
        published=published,
        unconfirmed=UNCONFIRMED,
        notes=NOTES,
        plots=plots,
        filters=_filters(page),
        columns=_score_columns(page),
        is_large=is_large,
        failed_plots=failed_plot_lines(page.failed_plots),
    )  # fmt: skip


def render_cell(page: CellPage) -> str:
    """The page of a cell, which loads nothing."""
    return templates().get_template("cell.html").render(page=page)


class Filter(NamedTuple):
    """A control of the page that shows what is about one of its values, or all."""

    name: str
    """Of the attribute data-<name> that a section, a column or a row has."""
    label: str
    values: list[str]


def _filters(page: Page) -> list[Filter]:
    """The filters that have a choice."""
    shown = [place for part in page.sections for place in (part.where, *part.column_where)]
    labels = {"dataset": "data set", "backbone": "backbone", "protocol": "protocol"}
    filters = [
        Filter(name, label, [*dict.fromkeys(filter(None, (getattr(of, name) for of in shown)))])
        for name, label in labels.items()
    ]
    filters.append(Filter("family", "family", sorted(set(page.families.values()))))
    return [of for of in filters if len(of.values) > 1]


def _score_columns(page: Page) -> list[str]:
    """The names of the columns that the tables of scores have, each once."""
    tables = [part for part in page.sections if part.scores and not part.column_where]
    return [*dict.fromkeys(name for part in tables for name in part.columns)]


def _data_url(picture: Picture) -> str:
    return f"data:image/svg+xml;base64,{b64encode(picture.svg.read_bytes()).decode()}"
