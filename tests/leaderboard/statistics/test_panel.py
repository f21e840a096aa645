"""The statistics of a panel are those of its trained losses, the best first."""

import numpy as np
import pytest

from dmlbench.leaderboard.statistics.over_datasets import over_datasets
from dmlbench.leaderboard.statistics.paired import compare_seeds
from dmlbench.leaderboard.statistics.panel import all_statistics
from dmlbench.leaderboard.statistics.two_way import compare_classes
from dmlbench.leaderboard.table import read_results, tabulate


@pytest.fixture
def statistics(results):
    """A function that gives the statistics of all panels, by title."""

    def of_panels():
        read = read_results(results.runs, results.files)
        return all_statistics(tabulate(read), read)

    return of_panels


@pytest.fixture
def only(statistics):
    """A function that gives the statistics of the only panel."""

    def of_panel():
        (of_panel,) = statistics().values()
        return of_panel

    return of_panel


def fill(results, levels, seeds=5, classes=6, queries=4, **where):
    """Runs with single queries; the numbers (losses, seeds, classes, queries)."""
    random = np.random.default_rng(0)
    values = 0.02 * random.normal(size=(len(levels), seeds, classes, queries))
    values += np.array([*levels.values()])[:, None, None, None]
    for loss, of_loss in zip(levels, values, strict=True):
        for seed, of_run in enumerate(of_loss):
            results.add(loss, seed, {"map@r": of_run.mean()}, queries=of_run, **where)
    return values


def test_the_tests_are_those_of_the_scores_and_the_queries(results, only):
    values = fill(results, {"htl": 0.3, "rll": 0.5, "hpl": 0.4})
    results.add("control_oracle", 0, {"map@r": 1.0})
    results.add("embeddings_clip", 0, {"map@r": 0.9})
    panel = only()
    assert panel.losses == ["rll", "hpl", "htl"]
    ordered = values[[1, 2, 0]]
    assert panel.scores == pytest.approx(ordered.mean(axis=(2, 3)))
    expected = compare_seeds(ordered.mean(axis=(2, 3)))
    assert panel.of_seeds.p_values == pytest.approx(expected.p_values)
    expected = compare_classes(ordered.sum(axis=3), np.full(6, 4.0))
    assert panel.of_classes.error == pytest.approx(expected.error)
    assert panel.of_classes.p_values == pytest.approx(expected.p_values)
    assert panel.ranks == {"rll": (1, 1), "hpl": (2, 2), "htl": (3, 3)}


def test_failed_seeds_are_left_out_of_the_pairs(results, only):
    fill(results, {"htl": 0.3, "rll": 0.5})
    results.add("hpl", 0, {"map@r": 0.4}, queries=np.full((6, 4), 0.4))
    results.add("hpl", 1, status="diverged")
    panel = only()
    assert panel.losses == ["rll", "hpl", "htl"]
    assert panel.of_seeds.seeds.tolist() == [1, 5, 1]
    assert panel.ranks == {"rll": (1, 2), "hpl": (1, 3), "htl": (2, 3)}


@pytest.mark.parametrize(
    ("seeds", "losses", "reason"),
    [(1, 2, "one seed"), (3, 1, "one loss has a score"), (0, 1, "no loss has a score")],
)
def test_without_a_pair_to_test_there_are_no_ranks(results, only, seeds, losses, reason):
    for loss in ("htl", "rll")[:losses]:
        for seed in range(seeds):
            results.add(loss, seed, {"map@r": 0.5 + 0.01 * seed})
        if not seeds:
            results.add(loss, 0, status="diverged")
    panel = only()
    assert (panel.no_ranks, panel.ranks, panel.of_classes) == (reason, {}, None)


def test_losses_without_common_seeds_have_no_ranks(results, only):
    for seed in range(2):
        results.add("htl", seed, {"map@r": 0.5})
        results.add("rll", seed + 2, {"map@r": 0.6})
    assert only().no_ranks == "no two losses have 2 seeds in common"


def test_the_other_classes_are_not_asked_for_where_it_cannot_be_answered(results, only):
    fill(results, {"htl": 0.3, "rll": 0.5}, seeds=2)
    assert only().no_classes == "it needs 3 seeds that two losses have in common"


def test_runs_without_single_queries_are_ranked_all_the_same(results, only):
    fill(results, {"htl": 0.3, "rll": 0.5}, seeds=3)
    results.add("rll", 3, {"map@r": 0.5})
    panel = only()
    assert panel.of_classes is None
    assert panel.no_classes == "single queries of this protocol were not kept"
    assert panel.ranks["rll"] == (1, 1)


def test_runs_with_other_queries_are_not_compared_class_by_class(results, only):
    fill(results, {"htl": 0.3}, seeds=3)
    for seed in range(3):
        results.add("rll", seed, {"map@r": 0.5}, queries=np.full((7, 4), 0.5))
    assert only().no_classes == "its runs do not have the same queries"


def test_only_the_protocol_of_the_queries_is_asked_about_classes(results, statistics):
    fill(results, {"htl": 0.3, "rll": 0.5}, seeds=3, protocols=("small", "large"))
    small, large = statistics().values()
    assert small.of_classes is not None
    assert large.no_classes == "single queries of this protocol were not kept"


def test_verified_pairs_are_ranked_by_their_accuracy(results, only):
    for loss, level in (("htl", 0.9), ("rll", 0.8)):
        for seed in range(5):
            accuracy = level + 0.001 * (seed**2 % 3)
            results.add(loss, seed, {"verification_accuracy": accuracy, "pairs": 600.0})
    panel = only()
    assert panel.metric == "verification_accuracy"
    assert panel.losses == ["htl", "rll"]
    assert "no image is a query" in panel.no_classes


@pytest.mark.parametrize(
    ("origin", "cost", "unit"),
    [
        ({"device": "cpu (test)"}, 4.0, "core-hours"),
        ({"device": "Fake 9000"}, 2.0, "GPU-hours"),
        ({"device": "Fake 9000", "runs_per_gpu": 4}, 0.5, "GPU-hours"),
    ],
)
def test_a_seed_costs_hours_of_a_gpu_or_of_cores(results, only, origin, cost, unit):
    for seed in range(2):
        recipe = {"cpu_threads": 2}
        results.add("htl", seed, {"map@r": 0.5}, recipe=recipe, wall_seconds=7200.0, **origin)
    results.add("rll", 0, {"map@r": 0.4}, recipe=recipe, **origin)
    panel = only()
    assert panel.cost_unit == unit
    assert panel.cost[0] == cost
    assert np.isnan(panel.cost[1])


def test_a_panel_is_tuned_if_all_its_losses_are(results, only):
    results.add("htl", 0, {"map@r": 0.5}, settings={"tuning": {"folds": 4}})
    assert only().is_tuned
    results.add("rll", 0, {"map@r": 0.5})
    assert not only().is_tuned


def test_losses_are_ranked_over_data_sets_by_their_first_protocol(results, statistics):
    for dataset, best in (("cub", "htl"), ("sop", "rll"), ("cars", "htl")):
        for loss in ("htl", "rll", "hpl"):
            value = 0.9 if loss == best else 0.3 if loss == "hpl" else 0.6
            protocols = ("one", "two") if dataset == "sop" else ("zero_shot",)
            results.add(loss, 0, {"map@r": value}, dataset=dataset, protocols=protocols)
    results.add("npair", 0, {"map@r": 0.99}, dataset="cub")
    (comparison,) = over_datasets(statistics().values())
    assert comparison.losses == ["htl", "rll", "hpl"]
    assert comparison.left_out == ["npair"]
    assert comparison.ranks.ranks.tolist() == [[1, 2, 3], [2, 1, 3], [1, 2, 3]]
    assert comparison.datasets[1] == "sop · tiny · one"


def test_backbones_are_compared_apart_and_two_losses_are_too_few(results, statistics):
    for backbone, losses in (("tiny", ("htl", "rll", "hpl")), ("large", ("htl", "rll"))):
        for dataset in ("cub", "sop"):
            for loss in losses:
                where = {"dataset": dataset, "backbone": backbone}
                results.add(loss, 0, {"map@r": 0.5}, **where)
    assert [of.backbone for of in over_datasets(statistics().values())] == ["tiny"]
