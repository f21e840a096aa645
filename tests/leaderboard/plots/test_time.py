import numpy as np
import pytest

from dmlbench.leaderboard.plots.time import images_seen, time
from dmlbench.leaderboard.style import marker
from dmlbench.leaderboard.table import read_results, tabulate


def marks(axes):
    """The points of the losses by their markers."""
    return {
        line.get_marker(): (*line.get_xdata(), *line.get_ydata())
        for line in axes.lines
        if len(line.get_xdata()) == 1
    }


def test_a_mark_is_the_mean_score_at_the_mean_minutes_with_the_interval_of_the_score(results, draw):
    for seed, (score, seconds) in enumerate([(0.1, 60), (0.2, 120), (0.3, 180)]):
        results.add("htl", seed, {"recall@1": score, "recall@2": 0.9}, train_seconds=seconds)
    (axes,) = draw("time").axes
    np.testing.assert_allclose(marks(axes)[marker("htl")], (2, 20))
    interval, *_ = axes.collections
    ((low, high),) = [segment[:, 1] for segment in interval.get_segments()]
    assert (high - low) / 2 == pytest.approx(10 * 4.302653 / 3**0.5)
    assert axes.get_ylabel() == "Recall@1 (%)"


def test_only_losses_that_were_trained_without_failing_have_a_mark(results, draw):
    results.add("htl", 0, {"recall@1": 0.1}, train_seconds=60)
    results.add("control_untrained", 0, {"recall@1": 0.1}, train_seconds=0)
    results.add("embeddings_dino", 0, {"recall@1": 0.4}, train_seconds=0)
    results.add("rll", 0, status="killed", train_seconds=30)
    (axes,) = draw("time").axes
    assert [text.get_text() for text in axes.texts] == ["htl"]


def test_a_wide_interval_of_two_seeds_does_not_flatten_the_scores(results, draw):
    for seed, score in enumerate((0.5, 0.54)):
        results.add("htl", seed, {"recall@1": score})
    low, high = draw("time").axes[0].get_ylim()
    assert 48 < low < 50
    assert 54 < high < 56


@pytest.mark.parametrize(("seconds", "scale"), [(500, "linear"), (5000, "log")])
def test_times_of_different_magnitude_have_a_logarithmic_axis(results, draw, seconds, scale):
    results.add("htl", 0, {"recall@1": 0.5}, train_seconds=100)
    results.add("rll", 0, {"recall@1": 0.6}, train_seconds=seconds)
    (axes,) = draw("time").axes
    assert axes.get_xscale() == scale
    assert marks(axes).keys() == {marker("htl"), marker("rll")}


@pytest.mark.parametrize(
    ("seconds", "unit", "shown"),
    [(9.6, "seconds", 9.6), (99, "seconds", 99), (120, "minutes", 2), (5940, "minutes", 99),
     (6000, "hours", 5 / 3), (7200, "hours", 2), (864_000, "days", 10)],
)  # fmt: skip
def test_the_unit_of_time_fits_the_largest_value(results, draw, seconds, unit, shown):
    results.add("htl", 0, {"recall@1": 0.5}, train_seconds=seconds)
    results.add("rll", 0, {"recall@1": 0.6}, train_seconds=seconds / 2)
    (axes,) = draw("time").axes
    assert axes.get_xlabel() == f"training time of a run ({unit})"
    assert marks(axes)[marker("htl")][0] == pytest.approx(shown)


@pytest.fixture
def steps(results):
    """A function that adds a run with so many steps of so many images, and draws all runs."""

    def add(loss, last, batch_size, seed=0, models=1, **outcome):
        recipe = {"epochs": 2, "batch_size": batch_size, "optimizer": "adamw"}
        ends = (last // 2, last)  # counted on from one model to the next
        history = {"step": [last * model + end for model in range(models) for end in ends]}
        if models > 1:
            history["model"] = np.repeat(np.arange(1, models + 1), 2)
        curve = [2.0, 1.0] * models
        scores = {"recall@1": 0.5}
        results.add(loss, seed, scores, history=curve, learnt=history, recipe=recipe, **outcome)

    return add


def drawn(results):
    read = read_results(results.runs, results.files)
    (figure,) = time(tabulate(read), read)
    return figure.axes


def test_images_seen_are_the_steps_times_the_images_of_a_batch(steps, results):
    steps("htl", 400, 80)
    steps("htl", 400, 80, seed=1)
    steps("rll", 100, 112, models=4)
    steps("hpl", 50, 80, status="diverged")
    results.add("snr", 0, {"recall@1": 0.5}, history=[1.0])  # it has not recorded its steps
    results.add("control_random", 0, {"recall@1": 0.5})
    seen = images_seen(read_results(results.runs, results.files))
    assert seen == {
        ("letters", "tiny", "htl"): 400 * 80, ("letters", "tiny", "rll"): 4 * 100 * 112,
    }  # fmt: skip


def test_losses_that_saw_different_numbers_of_images_have_a_panel_for_them(steps, results):
    steps("htl", 400, 80)
    steps("rll", 1000, 80)
    by_time, by_images = drawn(results)
    assert by_time.get_xlabel() == "training time of a run (minutes)"
    assert by_images.get_xlabel() == "images seen in a training (thousands)"
    assert {x for x, _ in marks(by_images).values()} == {32, 80}


def test_losses_that_saw_the_same_images_have_one_panel_that_says_how_many(steps, results):
    steps("htl", 400, 80)
    steps("rll", 200, 160)
    (by_time,) = drawn(results)
    assert by_time.get_xlabel() == "training time of a run (minutes); each saw 32,000 images"


def test_an_unknown_number_of_images_is_not_shown(steps, results):
    steps("htl", 400, 80)
    results.add("rll", 0, {"recall@1": 0.5}, history=[1.0])
    (by_time,) = drawn(results)
    assert by_time.get_xlabel() == "training time of a run (minutes)"
