import math

import pandas as pd
import pytest

from dmlbench.leaderboard import html, markdown
from dmlbench.leaderboard.build import build
from dmlbench.leaderboard.comparison import compare
from dmlbench.leaderboard.page import compose
from dmlbench.leaderboard.table import read_results, tabulate
from dmlbench.study.remarks import Remarks

SETTINGS = {
    "dataset": {"type": "cub200", "class_fraction": 1.0, "facts": {"levels": []}},
    "backbone": {"type": "bn_inception", "dim": 512, "image_size": 224, "pretrained": True},
    "recipe": {"epochs": 50, "lr": 1e-4},
}
SOFTTRIPLE = Remarks("paper", systems={"softtriple": "softtriple"})


@pytest.fixture
def add(results):
    """A function that adds a run with SETTINGS, updated by `settings`."""

    def run(loss="softtriple", seed=0, metrics=None, *, settings=None, **where):
        metrics = {"recall@1": 0.6} if metrics is None else metrics
        where = {"dataset": "birds", "backbone": "bn"} | where
        planned = results.add(loss, seed, metrics, history=[1.0], **where)
        changes = settings or {}
        merged = {part: SETTINGS[part] | changes.get(part, {}) for part in SETTINGS}
        merged |= {part: value for part, value in changes.items() if part not in merged}
        results.edit(f"{planned['path']}/run.json", settings=merged)

    return run


@pytest.fixture
def compared(results):
    """A function that compares all runs added so far with what was published."""

    def run(remarks=SOFTTRIPLE):
        read = read_results(results.runs, results.files)
        return [*compare(tabulate(read), read, remarks)]

    return run


def test_the_mean_over_seeds_is_compared_with_the_published_number(add, compared):
    for seed, value in enumerate((0.62, 0.64, 0.66)):
        add(seed=seed, metrics={"recall@1": value, "nmi": 0.7})
    by_metric = {comparison.published.metric: comparison for comparison in compared()}
    assert list(by_metric) == ["recall@1", "recall@2", "recall@4", "recall@8", "nmi"]
    recall = by_metric["recall@1"]
    assert (recall.published.value, recall.seeds, recall.reasons) == (65.4, 3, [])
    assert recall.mean == pytest.approx(64)
    assert recall.half_width == pytest.approx(4.302653 * 2 / math.sqrt(3))
    assert recall.difference == pytest.approx(-1.4)
    assert (by_metric["recall@2"].mean, by_metric["recall@2"].difference) == (None, None)


def test_there_is_no_difference_from_an_unconfirmed_number(add, compared):
    add(metrics={"nmi": 0.7})
    (nmi,) = [c for c in compared() if c.published.metric == "nmi"]
    assert (nmi.published.provenance, nmi.mean, nmi.difference) == ("unconfirmed", 70, None)


@pytest.mark.parametrize(
    ("part", "changes", "reason"),
    [
        ("backbone", {"type": "resnet50.tv_in1k"}, "backbone: resnet50 here, bn_inception in the"),
        ("backbone", {"dim": 128}, "dim: 128 here, 512 in the paper"),
        ("backbone", {"image_size": 227}, "image_size: 227 here, 224 in the paper"),
        ("backbone", {"pretrained": False}, "random initial weights here"),
        ("recipe", {"epochs": 49}, "epochs: 49 here, 50 in the paper"),
        ("dataset", {"class_fraction": 0.25}, "25% of the data set's classes"),
    ],
)
def test_a_setting_that_differs_is_a_reason(add, compared, part, changes, reason):
    add(settings={part: changes})
    comparisons = [c for c in compared() if c.published.dim == 512]
    assert len(comparisons) == 5
    assert all(len(c.reasons) == 1 and c.reasons[0].startswith(reason) for c in comparisons)


def test_more_epochs_than_in_the_paper_and_parts_of_an_epoch_are_no_reasons(add, compared):
    here = {"dataset": {"type": "sop"}, "recipe": {"epochs": 60}, "backbone": {"image_size": 227}}
    add("rll", settings=here)
    remarks = Remarks("paper", systems={"rll": "rll_h"})
    assert {c.published.epochs for c in compared(remarks)} == {60.6}
    assert not any(c.reasons for c in compared(remarks))


def test_the_most_similar_variant_of_the_system_is_taken(add, compared):
    add(settings={"backbone": {"dim": 64}})
    assert {c.published.dim for c in compared()} == {64}
    assert not any(c.reasons for c in compared())


FOUR_MODELS = {"protocol": "reality_check", "backbone": {"dim": 128}}


def test_numbers_of_four_models_are_compared_with_those_of_four_models_alone(add, compared):
    """hpl_pa has published numbers of four models alone, and softtriple of one model alone."""
    both = Remarks("paper", systems={"hpl": "hpl_pa", "softtriple": "softtriple"})
    for loss in ("hpl", "softtriple"):
        add(loss, settings={"backbone": {"dim": 128}})
    assert {c.loss for c in compared(both)} == {"softtriple"}


def test_concatenated_numbers_are_compared_with_concatenated_ones(add, compared, results):
    for loss in ("hpl", "softtriple"):
        add(loss, metrics={"map@r": 0.27}, settings=FOUR_MODELS)
    for planned in results.runs:
        ways = {"concatenated": 0.27, "separated": 0.21}
        rows = [
            {"protocol": f"zero_shot {way}", "metric": "map@r", "value": value}
            for way, value in ways.items()
        ]
        results.edit(f"{planned['path']}/metrics.json", metrics=rows)
    both = Remarks("paper", systems={"hpl": "hpl_pa", "softtriple": "softtriple"})
    numbers = {c.published.metric: c for c in compared(both)}
    assert {c.loss for c in compared(both)} == {"hpl"}
    assert list(numbers) == ["recall@1", "r_precision", "map@r"]
    assert numbers["map@r"].mean == pytest.approx(27)
    assert numbers["map@r"].difference == pytest.approx(27 - 26.72)
    assert numbers["map@r"].reasons == []  # 4 x 128 dimensions, as in the paper


@pytest.mark.parametrize(
    ("settings", "systems"),
    [(FOUR_MODELS, {"hpl_pa"}), ({"backbone": {"dim": 128}}, {"softtriple"})],
)
def test_runs_that_all_failed_are_listed_with_numbers_of_their_own_protocol(
    add, compared, results, settings, systems
):
    for loss in ("hpl", "softtriple"):
        add(loss, settings=settings)
    for planned in results.runs:
        failure = {"status": "killed", "error": {"message": "", "tail": []}, "metrics": []}
        results.edit(f"{planned['path']}/metrics.json", **failure)
    both = Remarks("paper", systems={"hpl": "hpl_pa", "softtriple": "softtriple"})
    assert {c.published.system for c in compared(both)} == systems


def test_unknown_settings_of_a_paper_are_reported_as_not_recorded(add, compared):
    add("ibc")
    first, *_ = compared(Remarks("paper", systems={"ibc": "ibc"}))
    assert first.reasons == [
        "backbone: bn_inception here, not recorded for the paper",
        "dim: 512 here, not recorded for the paper",
    ]


def test_sources_that_disagree_are_a_reason(add, compared):
    add("htl", settings={"dataset": {"type": "inshop"}, "backbone": {"dim": 128}})
    reasons = [c.reasons for c in compared(Remarks("paper", systems={"htl": "htl"}))]
    disagree = "dimension 128 in Proxy Anchor's table 4, 512 in the README of SEE"
    assert reasons == [[f"the sources disagree: {disagree}"]] * 6


def test_a_remark_concerns_only_the_runs_of_its_entry(add, compared):
    add()
    concerned = ["recipe.lr", "losses.softtriple.tau"]
    others = ["losses.softtriple_k1.tau", "datasets.cars.recipe", "plan.datasets"]
    unconfirmed = dict.fromkeys([*concerned, *others], "from memory")
    deviations = {"backbones.bn.image_size": "ours", "backbones.bn2": "ours"}
    remarks = SOFTTRIPLE._replace(unconfirmed=unconfirmed, deviations=deviations)
    assert compared(remarks)[0].reasons == [
        "not confirmed: recipe.lr, losses.softtriple.tau",
        "departs from the paper: backbones.bn.image_size",
    ]


def test_a_remark_on_a_whole_section_concerns_every_run(add, compared):
    add()
    whole = ["datasets", "backbones", "losses", "recipe"]
    remarks = SOFTTRIPLE._replace(deviations=dict.fromkeys([*whole, "plan"], "all are ours"))
    assert compared(remarks)[0].reasons == [f"departs from the paper: {', '.join(whole)}"]


def test_a_remark_on_the_recipe_does_not_concern_an_entry_that_overrides_it(add, compared):
    add()
    general = ["recipe.epochs", "recipe.lr", "recipe.augmentation.flip", "recipe.batch_size"]
    paths = [*general, "datasets.birds.recipe"]
    remarks = SOFTTRIPLE._replace(
        unconfirmed=dict.fromkeys(paths, "from memory"),
        overrides={
            "datasets.birds": ["augmentation", "epochs"],
            "backbones.bn": ["batch_size"],
            "datasets.cars": ["lr"],
        },
    )
    assert compared(remarks)[0].reasons == ["not confirmed: recipe.lr, datasets.birds.recipe"]


def test_other_test_sets_controls_and_other_data_sets_are_not_compared(add, compared):
    add("control_random", settings={"loss": {"type": "control_random"}})
    add(dataset="mine", settings={"dataset": {"type": "omniglot"}})
    add(dataset="far", settings={"test": {"type": "lfw"}})
    assert compared() == []


def test_the_split_of_a_holdout_is_not_compared_with_published_numbers(add, compared):
    add(settings={"dataset": {"holdout": "class"}})
    assert compared() == []


def test_a_failed_run_has_no_number(add, compared):
    add(status="diverged", error="nan", metrics={})
    rows = {(c.published.value, c.mean, c.difference) for c in compared()}
    assert rows >= {(65.4, None, None)}


def test_failed_seeds_are_a_reason(add, compared):
    add()
    add(seed=1, status="diverged", error="nan", metrics={})
    first, *_ = compared()
    assert (first.mean, first.seeds) == (60, 1)
    assert first.reasons == ["seeds: the mean of 1 of 2, the others failed"]


@pytest.fixture
def pages(results):
    """A function that renders all runs added so far as Markdown and as HTML."""

    def run(remarks):
        read = read_results(results.runs, results.files)
        table = tabulate(read)
        page = compose("made", table, read, remarks, [*compare(table, read, remarks)])
        return markdown.render(page), html.render(page, {})

    return run


def test_the_pages_show_published_numbers_results_and_remarks(add, pages):
    add(settings={"backbone": {"dim": 256}, "recipe": {"epochs": 20}})
    text, page = pages(
        SOFTTRIPLE._replace(unconfirmed={"recipe.lr": "from <memory>,\n*not* by_name"})
    )
    rows = [line for line in text.splitlines() if line.startswith("| softtriple | birds")]
    assert rows[0] == (
        "| softtriple | birds | bn | Recall@1 | 65.4 | second-hand | 60.00 | -5.40 | 1, 2, 3 |"
    )
    assert "| --- | --- | --- | --- | ---: | --- | ---: | ---: | ---: |" in text
    assert "| NMI | 69.3 | unconfirmed | – | – |" in text
    assert "1. dim: 256 here, 512 in the paper\n2. epochs: 20 here, 50 in the paper\n" in text
    assert (
        "## Not confirmed by a source\n\n- `recipe.lr`: from \\<memory\\>, \\*not\\* by_name"
        in text
    )
    assert "- Track: paper" in text
    assert "<li><code>recipe.lr</code>: from &lt;memory&gt;" in page
    assert '<tr class="faded"><th scope="row">softtriple' in page
    assert "<li>dim: 256 here, 512 in the paper" in page


def test_the_pages_of_a_fair_study_say_so_and_show_no_published_numbers(add, pages):
    add()
    for page in pages(Remarks()):
        assert "fair: one recipe for all losses" in page
        assert "Paper says" not in page
        assert "65.4" not in page


def test_the_pages_say_if_there_are_no_published_numbers(add, pages):
    add("hpl")
    for page in pages(Remarks("paper")):
        assert "published.csv has no number of these systems on these data sets" in page


def test_only_a_paper_study_has_a_csv_of_the_comparison(add, results, tmp_path):
    add(settings={"backbone": {"dim": 256, "type": "resnet50"}})
    build("made", results.runs, results.files, tmp_path / "paper", SOFTTRIPLE)
    build("made", results.runs, results.files, tmp_path / "fair")
    table = pd.read_csv(tmp_path / "paper/published_comparison.csv")
    first = table.iloc[0]
    assert (first["loss"], first["metric"]) == ("softtriple", "recall@1")
    assert (first["paper_says"], first["we_got"]) == (65.4, 60.0)
    assert first["differs"].count("; ") == 1
    assert not (tmp_path / "fair/published_comparison.csv").exists()
