import pytest

from dmlbench.leaderboard.sections.scores import WAY


@pytest.fixture
def section(page):
    """A function that gives the scores of the only panel."""
    return lambda: page().sections[0]


def way(section):
    """Name of each row -> its part of the way from the untrained model to the oracle."""
    column = section.columns.index(WAY)
    return {row.name: row.cells[column].text for row in [*section.rows, *section.controls]}


def test_scores_are_also_parts_of_the_way_from_untrained_to_oracle(results, section):
    results.add("control_random", 0, {"map@r": 0.05})
    results.add("control_untrained", 0, {"map@r": 0.2})
    results.add("control_oracle", 0, {"map@r": 1.0})
    for seed, value in enumerate((0.56, 0.64)):
        results.add("htl", seed, {"map@r": value})
    results.add("rll", 0, {"map@r": 0.12})  # it got worse in training
    results.add("npair", 0, status="diverged")
    assert way(section()) == {
        "htl": "50.0 %",
        "rll": "-10.0 %",
        "npair": "–",
        "control_oracle": "100.0 %",
        "control_untrained": "0.0 %",
        "control_random": "-18.8 %",
    }


@pytest.mark.parametrize(
    "scores",
    [
        {"untrained": 0.2},
        {"oracle": 1.0},
        {"untrained": 1.0, "oracle": 1.0},  # there is no way between equal scores
    ],
)
def test_without_both_controls_there_is_no_such_column(results, section, scores):
    results.add("htl", 0, {"map@r": 0.5})
    for name, value in scores.items():
        results.add(f"control_{name}", 0, {"map@r": value})
    assert WAY not in section().columns


def test_the_metric_of_verification_has_its_own_way(results, section):
    for loss, value in (("htl", 0.8), ("control_untrained", 0.6), ("control_oracle", 1.0)):
        results.add(loss, 0, {"verification_accuracy": value})
    assert way(section())["htl"] == "50.0 %"
