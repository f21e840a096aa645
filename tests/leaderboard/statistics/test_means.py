import numpy as np
import pandas as pd
import pytest
from scipy import stats

from dmlbench.leaderboard.statistics.means import summarise


def table(values, loss="htl", metric="map@r"):
    return pd.DataFrame({"loss": loss, "metric": metric, "value": np.asarray(values, dtype=float)})


def test_the_interval_of_1_2_3_is_that_of_the_textbook():
    (row,) = summarise(table([1, 2, 3])).to_dict("records")
    assert row == {"mean": 2, "half_width": pytest.approx(4.302652730 / 3**0.5), "seeds": 3}


@pytest.mark.parametrize("n", [2, 3, 5, 30])
@pytest.mark.parametrize("confidence", [0.9, 0.95])
def test_the_interval_equals_scipy(n, confidence):
    values = np.random.default_rng(n).normal(0.6, 0.01, size=n)
    row = summarise(table(values), confidence).loc[("htl", "map@r")]
    low, high = stats.t.interval(confidence, n - 1, loc=values.mean(), scale=stats.sem(values))
    assert row["mean"] - row["half_width"] == pytest.approx(low, abs=1e-13)
    assert row["mean"] + row["half_width"] == pytest.approx(high, abs=1e-13)


def test_the_interval_covers_the_true_mean_in_95_of_100_studies():
    values = np.random.default_rng(0).normal(size=3 * 4000)
    summary = summarise(table(values, loss=np.repeat(np.arange(4000), 3)))
    assert (summary["mean"].abs() < summary["half_width"]).mean() == pytest.approx(0.95, abs=0.012)


def test_one_seed_has_a_mean_and_no_interval():
    (row,) = summarise(table([0.5])).to_dict("records")
    assert (row["mean"], row["seeds"]) == (0.5, 1)
    assert np.isnan(row["half_width"])


def test_failed_runs_do_not_count_and_losses_and_metrics_are_kept_apart():
    failed = pd.DataFrame({"loss": ["htl", "rll"], "metric": None, "value": np.nan})
    rows = pd.concat([table([0.1, 0.3]), failed, table([0.7], "hpl"), table([0.9], metric="nmi")])
    summary = summarise(rows)
    assert summary["mean"].to_dict() == {
        ("htl", "map@r"): pytest.approx(0.2),
        ("hpl", "map@r"): 0.7,
        ("htl", "nmi"): 0.9,
    }
    assert list(summary["seeds"]) == [2, 1, 1]
