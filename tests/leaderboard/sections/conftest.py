import pytest

from dmlbench.leaderboard.choices import read_choices
from dmlbench.leaderboard.page import compose
from dmlbench.leaderboard.statistics.panel import all_statistics
from dmlbench.leaderboard.table import read_results, tabulate


@pytest.fixture
def page(results):
    """A function that composes the page of all runs added to `results` so far."""

    def composed():
        read = read_results(results.runs, results.files)
        choices = read_choices(read, results.files)
        table = tabulate(read)
        statistics = all_statistics(table, read)
        return compose("made", table, read, choices=choices, statistics=statistics)

    return composed


@pytest.fixture
def sections(page):
    """A function that gives the sections whose title begins with a word."""

    def titled(word):
        return [section for section in page().sections if section.title.startswith(word)]

    return titled
