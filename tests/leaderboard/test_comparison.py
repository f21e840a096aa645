import math

import pandas as pd
import pytest

from dmlbench.leaderboard import build, html, markdown
from dmlbench.leaderboard.comparison import compare
from dmlbench.leaderboard.page import compose
from dmlbench.leaderboard.table import read, tabulate
from dmlbench.remarks import Remarks

SETTINGS = {
    "dataset": {"type": "cub200", "class_fraction": 1.0, "facts": {"levels": []}},
    "backbone": {"type": "bn_inception", "dim": 512, "image_size": 224, "pretrained": True},
    "recipe": {"epochs": 50, "lr": 1e-4},
}
SOFTTRIPLE = Remarks("paper", systems={"softtriple": "softtriple"})


@pytest.fixture
def add(results):
    """Add a run by SETTINGS, each part of it updated."""

    def run(loss="softtriple", seed=0, metrics=None, *, settings=None, **where):
        metrics = {"recall@1": 0.6} if metrics is None else metrics
        where = {"dataset": "birds", "backbone": "bn"} | where
        plan = results.add(loss, seed, metrics, history=[1.0], **where)
        made = {part: SETTINGS[part] | (settings or {}).get(part, {}) for part in SETTINGS}
        made |= {part: value for part, value in (settings or {}).items() if part not in made}
        results.edit(f"{plan['path']}/run.json", settings=made)

    return run


@pytest.fixture
def compared(results):
    def run(remarks=SOFTTRIPLE):
        found = read(results.runs, results.folder)
        return [*compare(tabulate(found), found, remarks)]

    return run


def test_the_mean_over_seeds_stands_beside_the_published_number(add, compared):
    for seed, value in enumerate((0.62, 0.64, 0.66)):
        add(seed=seed, metrics={"recall@1": value, "nmi": 0.7})
    found = {one.says.metric: one for one in compared()}
    assert list(found) == ["recall@1", "recall@2", "recall@4", "recall@8", "nmi"]
    one = found["recall@1"]
    assert (one.says.value, one.seeds, one.differs) == (65.4, 3, [])
    assert one.got == pytest.approx(64)
    assert one.half_width == pytest.approx(4.302653 * 2 / math.sqrt(3))
    assert one.difference == pytest.approx(-1.4)
    assert (found["recall@2"].got, found["recall@2"].difference) == (None, None)


def test_no_difference_is_taken_to_an_unconfirmed_number(add, compared):
    add(metrics={"nmi": 0.7})
    (nmi,) = [one for one in compared() if one.says.metric == "nmi"]
    assert (nmi.says.provenance, nmi.got, nmi.difference) == ("unconfirmed", 70, None)


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
def test_a_setting_that_differs_is_a_reason_not_to_compare(add, compared, part, changes, reason):
    add(settings={part: changes})
    reasons = [one.differs for one in compared() if one.says.dim == 512]
    assert len(reasons) == 5
    assert all(len(found) == 1 and found[0].startswith(reason) for found in reasons)


def test_more_epochs_than_the_paper_s_are_no_reason_and_parts_of_one_are_none(add, compared):
    here = {"dataset": {"type": "sop"}, "recipe": {"epochs": 60}, "backbone": {"image_size": 227}}
    add("rll", settings=here)
    remarks = Remarks("paper", systems={"rll": "rll_h"})
    assert {one.says.epochs for one in compared(remarks)} == {60.6}
    assert not any(one.differs for one in compared(remarks))


def test_the_variant_of_the_system_that_is_likest_is_taken(add, compared):
    add(settings={"backbone": {"dim": 64}})
    assert {one.says.dim for one in compared()} == {64}
    assert not any(one.differs for one in compared())


def test_unknown_settings_of_a_paper_are_said_to_be_not_recorded(add, compared):
    add("circle")
    (one, *_) = compared(Remarks("paper", systems={"circle": "circle"}))
    assert one.differs == [
        "backbone: bn_inception here, not recorded of the paper",
        "dim: 512 here, not recorded of the paper",
    ]


def test_remarks_concern_the_runs_of_their_entry_alone(add, compared):
    add()
    concerned = ["recipe.lr", "losses.softtriple.tau"]
    others = ["losses.softtriple_k1.tau", "datasets.cars.recipe", "plan.datasets"]
    unconfirmed = dict.fromkeys([*concerned, *others], "from memory")
    deviations = {"backbones.bn.image_size": "ours", "backbones.bn2": "ours"}
    remarks = SOFTTRIPLE._replace(unconfirmed=unconfirmed, deviations=deviations)
    assert compared(remarks)[0].differs == [
        "not confirmed: recipe.lr, losses.softtriple.tau",
        "departs from the paper: backbones.bn.image_size",
    ]


def test_a_remark_on_a_whole_section_concerns_every_run(add, compared):
    add()
    whole = ["datasets", "backbones", "losses", "recipe"]
    remarks = SOFTTRIPLE._replace(deviations=dict.fromkeys([*whole, "plan"], "all are ours"))
    assert compared(remarks)[0].differs == [f"departs from the paper: {', '.join(whole)}"]


def test_a_remark_on_the_recipe_is_not_on_what_an_entry_has_otherwise(add, compared):
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
    assert compared(remarks)[0].differs == ["not confirmed: recipe.lr, datasets.birds.recipe"]


def test_what_is_tested_elsewhere_controls_and_other_data_sets_are_not_compared(add, compared):
    add("control_random", settings={"loss": {"type": "control_random"}})
    add(dataset="mine", settings={"dataset": {"type": "omniglot"}})
    add(dataset="far", settings={"test": {"type": "lfw"}})
    assert compared() == []


def test_a_run_that_failed_has_no_number_beside_the_paper_s(add, compared):
    add(status="diverged", error="nan", metrics={})
    assert {(one.says.value, one.got, one.difference) for one in compared()} >= {(65.4, None, None)}


def test_a_mean_without_the_seeds_that_failed_says_so(add, compared):
    add()
    add(seed=1, status="diverged", error="nan", metrics={})
    one, *_ = compared()
    assert (one.got, one.seeds) == (60, 1)
    assert one.differs == ["seeds: the mean of 1 of 2, the others failed"]


@pytest.fixture
def pages(results):
    def run(remarks):
        found = read(results.runs, results.folder)
        table = tabulate(found)
        page = compose("made", table, found, remarks, [*compare(table, found, remarks)])
        return markdown.render(page), html.render(page, {})

    return run


def test_the_pages_show_what_the_paper_says_what_we_got_and_the_remarks(add, pages):
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
    assert '<tr class="faded"><th>softtriple' in page
    assert "<li>dim: 256 here, 512 in the paper" in page


def test_a_fair_study_s_pages_say_so_and_show_nothing_of_the_papers(add, pages):
    add()
    for page in pages(Remarks()):
        assert "fair: one recipe for all losses" in page
        assert "Paper says" not in page
        assert "65.4" not in page


def test_a_system_without_published_numbers_is_said_to_have_none(add, pages):
    add("hpl")
    for page in pages(Remarks("paper")):
        assert "no number that may be quoted" in page


def test_the_comparison_is_a_csv_of_paper_studies_alone(add, results, tmp_path):
    add(settings={"backbone": {"dim": 256, "type": "resnet50"}})
    build("made", results.runs, results.folder, tmp_path / "paper", SOFTTRIPLE)
    build("made", results.runs, results.folder, tmp_path / "fair")
    table = pd.read_csv(tmp_path / "paper/published_comparison.csv")
    first = table.iloc[0]
    assert (first["loss"], first["metric"], first["paper_says"], first["we_got"]) == (
        *("softtriple", "recall@1"),
        *(65.4, 60.0),
    )
    assert first["differs"].count("; ") == 1
    assert not (tmp_path / "fair/published_comparison.csv").exists()
