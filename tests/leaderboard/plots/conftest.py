import pytest

from dmlbench.leaderboard.plots.recall import recall
from dmlbench.leaderboard.plots.recall_curves import recall_curves
from dmlbench.leaderboard.plots.time import time
from dmlbench.leaderboard.plots.training import training
from dmlbench.leaderboard.table import read_results, tabulate

TABLE_PLOTS = {"recall": recall, "recall_curves": recall_curves, "time": time}


@pytest.fixture
def draw(results):
    """A function that draws the plot `name` of all runs added so far, in one picture."""

    def run(name):
        read = read_results(results.runs, results.files)
        figures = training(read) if name == "training" else TABLE_PLOTS[name](tabulate(read))
        (figure,) = figures
        return figure

    return run
