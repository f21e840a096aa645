"""The findings on the page."""

import copy

import numpy as np
import pytest

from dmlbench.leaderboard.sections.quality import (
    OUTLIER_LEVEL,
    TITLE,
    find_outlier,
    quality_sections,
)
from dmlbench.leaderboard.table import Result, tabulate

ORIGIN = {"device": "cpu (x)", "versions": {"torch": "2.9"}, "git_commit": "abc"}


def make(loss, seed, value, status="ok", findings=(), origin=None, shape=None):
    planned = {"dataset": "birds", "tested_on": "birds", "backbone": "tiny", "loss": loss}
    planned |= {"seed": seed, "path": f"birds/tiny/{loss}/seed{seed}"}
    rows = [{"protocol": "zero_shot", "metric": "map@r", "value": value}] if status == "ok" else []
    error = None if status == "ok" else {"message": "no", "tail": []}
    metrics = {"status": status, "error": error, "metrics": rows, "findings": [*findings]}
    metrics |= {"train_key": "t", "eval_key": "e", "embedding_shape": shape}
    run = {"study": "s", "provenance": copy.deepcopy(ORIGIN) | (origin or {}), "settings": {}}
    return Result(planned, run, metrics, None)


def seeds(loss, values, **changes):
    return [make(loss, seed, value, **changes) for seed, value in enumerate(values)]


def rows_of(results):
    """(severity, finding, where, message) of each row."""
    section = quality_sections(tabulate(results), results)[0]
    assert section.title == TITLE
    return [(row.cells[0].value, row.name, row.cells[1].text, row.cells[2].text)
            for row in section.rows]  # fmt: skip


def names_of(results):
    return [name for _, name, _, _ in rows_of(results)]


class TestQualitySections:
    def test_a_clean_study_says_that_nothing_was_found(self):
        results = seeds("triplet", [0.5, 0.51]) + seeds("control_untrained", [0.1, 0.1])
        (section,) = quality_sections(tabulate(results), results)
        assert (section.rows, section.notes) == ([], ["Nothing was found."])

    @pytest.mark.parametrize(
        ("values", "severity", "text"),
        [([0.1, 0.15], 2, "2 of 2 seeds are below"), ([0.1, 0.25], 1, "1 of 2 seeds are below")],
    )
    def test_a_loss_below_the_untrained_model_is_found(self, values, severity, text):
        results = seeds("triplet", values) + seeds("control_untrained", [0.2, 0.2])
        ((found, name, where, message),) = rows_of(results)
        assert (found, name) == (severity, "below untrained")
        assert where == "birds · tiny · zero_shot · triplet"
        assert message.endswith(text)

    def test_an_outlying_seed_is_named(self):
        results = seeds("triplet", [0.5, 0.51, 0.5, 0.2, 0.505])
        ((severity, name, _, message),) = rows_of(results)
        assert (severity, name) == (1, "outlying seed")
        assert message == "seed 3: MAP@R is 20.00 %, and 50.00 to 51.00 % with the others"

    def test_failed_seeds_that_the_mean_leaves_out_are_found(self):
        results = [*seeds("triplet", [0.5, 0.5]), make("triplet", 2, 0, status="diverged")]
        ((severity, name, _, message),) = rows_of(results)
        assert (severity, name) == (2, "failed seeds left out")
        assert message.startswith("1 of 3 runs failed (diverged; seed 2)")

    def test_a_loss_of_which_all_seeds_failed_has_no_mean_that_could_flatter(self):
        assert names_of([make("triplet", seed, 0, status="diverged") for seed in (0, 1)]) == []

    @pytest.mark.parametrize(
        ("origin", "finding"),
        [
            ({"device": "NVIDIA H200"}, (1, "mixed devices")),
            ({"versions": {"torch": "2.8"}}, (1, "mixed versions")),
            ({"git_commit": "def"}, (0, "mixed commits")),
        ],
    )
    def test_different_origins_in_one_comparison_are_found(self, origin, finding):
        results = seeds("triplet", [0.5]) + seeds("margin", [0.5], origin=origin)
        ((severity, name, where, _),) = rows_of(results)
        assert (severity, name, where) == (*finding, "birds · tiny")

    def test_a_control_on_another_device_is_no_finding(self):
        results = seeds("triplet", [0.5]) + seeds("control_random", [0.1], origin={"device": "x"})
        assert names_of(results) == []

    def test_runs_with_the_same_finding_share_a_row_and_the_most_severe_comes_first(self):
        leak = {"severity": 1, "name": "near-duplicates", "message": "3 of 9"}
        rank = {"severity": 2, "name": "low effective rank", "message": "1.5 of 16"}
        results = seeds("triplet", [0.5, 0.5], findings=[leak, rank])
        results += seeds("margin", [0.5, 0.5], findings=[leak])
        assert rows_of(results) == [
            (2, "low effective rank", "birds · tiny · triplet, seed 0, 1", "1.5 of 16"),
            (1, "near-duplicates", "birds · tiny", "3 of 9"),
        ]

    def test_the_shape_of_embeddings_is_shown_by_loss(self):
        shape = {"dim": 16, "effective_rank": 4.0, "spread": 0.5}
        results = seeds("triplet", [0.5, 0.5], shape=shape)
        results += seeds("control_random", [0.1], shape=shape | {"effective_rank": 16.0})
        _, section = quality_sections(tabulate(results), results)
        assert section.title == "Shape of the embeddings: birds · tiny"
        assert [cell.text for cell in section.rows[0].cells] == ["16", "4.0", "0.5"]
        assert [row.name for row in section.controls] == ["control_random"]


class TestFindOutlier:
    @pytest.mark.parametrize("count", [4, 5, 10])
    def test_normal_values_have_an_outlier_as_often_as_the_level_says(self, count):
        draws = np.random.default_rng(0).normal(size=(20_000, count))
        distances = np.abs(draws - draws.mean(axis=1, keepdims=True))
        largest = (distances / draws.std(axis=1, ddof=1, keepdims=True)).max(axis=1)
        # the rule depends on this one number: the limit lies between two of the sorted ones
        order = np.argsort(largest)
        low, high = 0, len(order)
        while low < high:
            middle = (low + high) // 2
            if find_outlier(draws[order[middle]]) is None:
                low = middle + 1
            else:
                high = middle
        assert (len(order) - low) / len(order) == pytest.approx(OUTLIER_LEVEL, abs=0.0025)

    @pytest.mark.parametrize("values", [[], [0.1], [0.1, 0.9], [0.1, 0.1, 0.9], [0.5] * 6])
    def test_too_few_or_equal_values_have_none(self, values):
        assert find_outlier(np.array(values)) is None


def test_a_hostile_class_name_is_text():
    from dmlbench.leaderboard import html, markdown
    from dmlbench.leaderboard.content import Page

    message = "1 of 2 test classes: <script>alert(1)</script> | `x`\n# title (n0 lemon)"
    finding = {"severity": 1, "name": "pretraining classes", "message": message}
    results = seeds("triplet", [0.5], findings=[finding])
    sections = quality_sections(tabulate(results), results)
    page = Page("t", {}, sections)
    written = html.render(page, {})
    assert "&lt;script&gt;alert(1)" in written
    assert "<script>alert" not in written
    assert "\\<script\\>" in markdown.render(page)
