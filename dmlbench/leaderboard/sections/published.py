"""The published numbers next to those of a study."""

from __future__ import annotations

from collections.abc import Sequence

from dmlbench.leaderboard.comparison import Comparison
from dmlbench.leaderboard.content import HOLE, PublishedTable, score_cell
from dmlbench.leaderboard.sections.scores import metric_name

TITLE = "Paper says, we got"
NOTES = """\
Numbers are in percent. The provenance of a published number is "seen" if it is in the authors'
own table, slides, logs or repository; "second-hand" if it is in a table of others; and
"unconfirmed" if it is from memory and was seen in no source: then no difference is shown. Sources:
published_comparison.csv. The numbers at the end of a row lead to known differences from the paper;
a row without such numbers has no known differences."""
NO_NUMBERS = "published.csv has no number of these systems on these data sets."
TEXT_COLUMNS = ("loss", "data set", "backbone", "metric", "provenance")
"""Columns of the table of published numbers that hold text."""


def published_table(comparisons: Sequence[Comparison]) -> PublishedTable:
    reasons = list(dict.fromkeys(reason for c in comparisons for reason in c.reasons))
    numbers = {reason: number for number, reason in enumerate(reasons, 1)}
    columns = ["loss", "data set", "backbone", "metric", "paper says", "provenance"]
    columns += ["we got", "difference", "not comparable: see"]
    rows = [
        [
            c.loss,
            c.dataset,
            c.backbone,
            metric_name(c.published.metric),
            str(c.published.value),
            c.published.provenance,
            HOLE if c.mean is None else score_cell(c.mean / 100, c.half_width / 100).text,
            HOLE if c.difference is None else f"{c.difference:+.2f}",
            ", ".join(map(str, sorted(numbers[reason] for reason in c.reasons))),
        ]
        for c in comparisons
    ]
    return PublishedTable(columns, rows, reasons)
