"""The best epoch by a test score, and what it gains over the last one."""

import pytest

from dmlbench.evaluation.optimism import optimism


def scores_of(**curves):
    """{epoch: rows} of curves over epochs, by metric. A value may be None: no score."""
    epochs = range(1, max(map(len, curves.values())) + 1)
    return {
        epoch: [
            {"protocol": "zero_shot", "metric": metric, "value": curve[epoch - 1]}
            for metric, curve in curves.items()
            if curve[epoch - 1] is not None
        ]
        for epoch in epochs
    }


def rows_of(scores):
    return {row["metric"]: row for row in optimism(scores)}


def test_each_metric_has_its_own_best_epoch():
    scores = scores_of(**{"map@r": [0.1, 0.4, 0.3], "recall@1": [0.6, 0.5, 0.5], "mrr": [1, 1, 1]})
    rows = rows_of(scores)
    assert {*rows} == {"map@r", "recall@1"}
    assert rows["map@r"] == {
        "protocol": "zero_shot",
        "metric": "map@r",
        "best_epoch": 2,
        "best": 0.4,
        "last": 0.3,
        "gap": pytest.approx(0.1),
    }
    assert (rows["recall@1"]["best_epoch"], rows["recall@1"]["gap"]) == (1, pytest.approx(0.1))


def test_the_first_of_equal_epochs_is_the_best():
    assert rows_of(scores_of(**{"map@r": [0.2, 0.5, 0.5, 0.5]}))["map@r"]["best_epoch"] == 2


def test_a_run_whose_last_epoch_is_the_best_gains_nothing():
    row = rows_of(scores_of(**{"map@r": [0.1, 0.2, 0.3]}))["map@r"]
    assert (row["best_epoch"], row["gap"]) == (3, 0.0)


def test_the_order_of_the_epochs_does_not_matter():
    scores = scores_of(**{"map@r": [0.1, 0.4, 0.3, 0.4]})
    assert optimism(dict(reversed(scores.items()))) == optimism(scores)


def test_an_epoch_without_a_score_is_not_the_best_and_a_last_one_without_gives_no_row():
    assert rows_of(scores_of(**{"map@r": [None, 0.4, 0.3]}))["map@r"]["best_epoch"] == 2
    assert optimism(scores_of(**{"map@r": [0.1, 0.4, None]})) == []
    assert optimism({}) == []


def test_protocols_are_kept_apart():
    scores = {
        epoch: [
            {"protocol": "small", "metric": "map@r", "value": small},
            {"protocol": "large", "metric": "map@r", "value": large},
            {"protocol": "verification", "metric": "verification_accuracy", "value": 0.9},
        ]
        for epoch, (small, large) in {1: (0.9, 0.1), 2: (0.5, 0.2)}.items()
    }
    best = {row["protocol"]: (row["best_epoch"], row["gap"]) for row in optimism(scores)}
    assert best == {"small": (1, 0.4), "large": (2, 0.0), "verification": (1, 0.0)}
