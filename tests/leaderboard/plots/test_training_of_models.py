"""A run of several models has one curve: the mean of its models."""

import numpy as np
import pandas as pd
import pytest

from dmlbench.leaderboard.page import PROTOCOL, compose
from dmlbench.leaderboard.table import read_results, tabulate

LOSSES = {1: [4.0, 2.0, 1.0], 2: [2.0, 1.0]}
"""Model -> its loss by epoch. The second one ended earlier."""


@pytest.fixture
def run(results):
    """A run of two models."""
    planned = results.add("htl", 0, {"map@r": 0.1}, history=[1.0])
    rows = [
        {"epoch": epoch, "step": 10 * epoch, "loss": loss, "score": 0.5, "model": model}
        for model, losses in LOSSES.items()
        for epoch, loss in enumerate(losses, start=1)
    ]
    files = results.files.run(planned["path"])
    pd.DataFrame(rows).to_parquet(files.history)
    content = files.load_run()
    content["settings"]["protocol"] = "reality_check"
    files.write_run(content)
    metrics = files.load_metrics()
    files.write_metrics(metrics, files.load_run())
    return files


def test_its_curve_is_the_mean_loss_of_the_models_at_each_epoch(run, draw):
    (axes,) = draw("training").axes
    lines, _frames = axes.collections
    ((x, y),) = (np.transpose(line) for line in lines.get_segments())
    mean = np.array([3.0, 1.5, 1.0])
    np.testing.assert_allclose((x - x[0]) / (x[-1] - x[0]), [0, 0.5, 1])
    np.testing.assert_allclose((y - y[0]) / (y[-1] - y[0]), (mean - mean[0]) / (mean[-1] - mean[0]))


def test_the_page_says_so_and_lists_nothing_that_the_losses_learnt(run, results):
    runs = read_results(results.runs, results.files)
    page = compose("made", tabulate(runs), runs)
    assert page.head["Protocol"] == PROTOCOL
    assert not any(section.title.startswith("What the losses") for section in page.sections)


def test_the_page_of_a_study_of_single_models_says_nothing_of_a_protocol(results):
    results.add("htl", 0, {"map@r": 0.1}, history=[1.0])
    runs = read_results(results.runs, results.files)
    assert "Protocol" not in compose("made", tabulate(runs), runs).head
