import pytest

from dmlbench.leaderboard.plots.recall import recall
from dmlbench.leaderboard.plots.recall_curves import recall_curves
from dmlbench.leaderboard.plots.time import time
from dmlbench.leaderboard.plots.training import training
from dmlbench.leaderboard.table import read, tabulate

OF_THE_TABLE = {"recall": recall, "recall_curves": recall_curves, "time": time}


@pytest.fixture
def draw(results):
    """Draw the plot `name` of all runs added so far."""

    def run(name):
        found = read(results.runs, results.folder)
        return training(found) if name == "training" else OF_THE_TABLE[name](tabulate(found))

    return run
