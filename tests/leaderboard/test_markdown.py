import pytest
from scipy import stats

from dmlbench.leaderboard.markdown import render
from dmlbench.leaderboard.page import compose
from dmlbench.leaderboard.table import read_results, tabulate
from dmlbench.study.remarks import Remarks


@pytest.fixture
def page(results):
    """A function that renders the page of all runs added to `results` so far."""

    def run():
        read = read_results(results.runs, results.files)
        return render(compose("made", tabulate(read), read))

    return run


def tables(page):
    """The tables of a page: lists of rows, which are dicts by column name."""
    parsed, header = [], None
    for line in [*page.splitlines(), ""]:
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if not line.startswith("|"):
            header = None
        elif header is None:
            header = cells
            parsed.append([])
        elif not cells[0].startswith("---"):
            parsed[-1].append(dict(zip(header, cells, strict=True)))
    return parsed


def test_scores_are_percent_with_the_interval_of_the_seeds(results, page):
    for seed, value in enumerate((0.50, 0.52, 0.54)):
        results.add(
            "htl", seed, {"recall@1": value, "map@r": 0.25, "r_precision": 0.333, "nmi": 0.6},
            train_seconds=100.0 + seed, images_per_second=1000.0 * seed,
        )  # fmt: skip
    assert tables(page()) == [
        [
            {
                "loss": "htl",
                "Recall@1": "52.00 ± 4.97",  # 4.302653 * 2 / sqrt(3)
                "MAP@R": "25.00 ± 0.00",
                "R-Precision": "33.30 ± 0.00",
                "NMI": "60.00 ± 0.00",
                "seeds": "3",
                "train time": "1 min 41 s",
                "images/s": "1,000",
            }
        ]
    ]


@pytest.mark.parametrize("track", ["fair", "paper"])
def test_the_page_of_an_untuned_study_says_so(results, track):
    results.add("htl", 0, {"map@r": 0.2})
    read = read_results(results.runs, results.files)
    text = render(compose("made", tabulate(read), read, Remarks(track)))
    assert "\n- Tuning: none" in text


def test_the_page_does_not_take_an_overlap_of_intervals_for_equal_losses(results, page):
    scores = {"htl": (0.200, 0.204, 0.208), "rll": (0.210, 0.214, 0.218)}
    for loss, values in scores.items():
        for seed, value in enumerate(values):
            results.add(loss, seed, {"map@r": value})
    best, second = tables(page())[0][:2]
    assert (best["MAP@R"], second["MAP@R"]) == ("21.40 ± 0.99", "20.40 ± 0.99")  # they overlap
    assert stats.ttest_ind(*scores.values(), equal_var=False).pvalue < 0.05
    notes = " ".join(page().partition("How to read this.")[2].split())
    assert "overlap may still differ significantly" in notes
    assert "does not tell the two losses apart" not in notes


def test_one_seed_shows_no_interval(results, page):
    results.add("htl", 0, {"map@r": 0.25})
    assert tables(page())[0][0]["MAP@R"] == "25.00"


def test_losses_are_sorted_by_mean_map_at_r_and_the_page_says_so(results, page):
    for loss, value in (("a", 0.2), ("b", 0.4), ("c", 0.3), ("aa", 0.2)):
        results.add(loss, 0, {"map@r": value, "recall@1": 1 - value})
    assert [row["loss"] for row in tables(page())[0]] == ["b", "c", "a", "aa"]
    assert "Sorted by mean MAP@R" in page()


def test_recalls_are_columns_in_the_order_of_k(results, page):
    results.add("htl", 0, {f"recall@{k}": 0.5 for k in (10, 2, 100, 1)} | {"map@r": 0.1})
    recalls = [name for name in tables(page())[0][0] if name.startswith("Recall")]
    assert recalls == ["Recall@1", "Recall@2", "Recall@10", "Recall@100"]


def test_metrics_that_were_scored_are_columns_in_a_fixed_order(results, page):
    scored = ("ami", "mrr", "map", "nmi", "recall@1", "r_precision", "map@r", "queries")
    results.add("htl", 0, dict.fromkeys(scored, 0.5))
    columns = [*tables(page())[0][0]][1:-3]
    assert columns == ["Recall@1", "MAP@R", "R-Precision", "MAP", "MRR", "NMI", "AMI"]


def test_controls_have_a_table_of_their_own_below(study, page):
    study(("htl", "rll"))
    losses, controls, *_ = tables(page())
    assert {row["loss"] for row in losses} == {"htl", "rll"}
    assert [row["control"] for row in controls] == ["oracle", "untrained", "random"]
    assert controls[0]["MAP@R"] == "100.00"
    assert controls[2]["train time"] == "–"


def test_external_embeddings_are_among_the_losses_and_have_no_recipe(results, page):
    results.add("htl", 0, {"map@r": 0.2}, recipe={"lr": 0.5})
    before = page()
    planned = results.add("embeddings_dino", 0, {"map@r": 0.3}, train_seconds=0.0)
    results.edit(f"{planned['path']}/run.json", settings={})
    rows = tables(page())[0]
    assert [row["loss"] for row in rows] == ["dino (embeddings)", "htl"]
    assert rows[0]["train time"] == "–"
    recipe = "- Recipe: lr 0.5\n"
    assert recipe in before
    assert recipe in page()


def test_a_loss_without_any_score_is_a_row_of_holes_and_its_failure_is_listed(results, page):
    results.add("htl", 0, {"map@r": 0.2})
    for seed in (0, 1):
        results.add("rll", seed, status="diverged", error="the loss is nan | at step 7\nmore")
    last = tables(page())[0][-1]
    assert last["loss"] == "rll"
    assert {value for key, value in last.items() if key not in ("loss", "seeds")} == {"–"}
    assert last["seeds"] == "0 of 2"
    assert "- rll, seed 0, 1: **diverged**: `the loss is nan | at step 7`\n" in page()
    assert "- Runs: 3, of which 2 failed" in page()


def test_a_mean_over_fewer_seeds_than_planned_shows_both_numbers(results, page):
    for seed in (0, 1):
        results.add("htl", seed, {"map@r": 0.2})
    results.add("htl", 2, status="killed")
    (row,) = tables(page())[0]
    assert (row["MAP@R"], row["seeds"]) == ("20.00 ± 0.00", "2 of 3")
    assert "- htl, seed 2: **killed**: `it is killed`" in page()


def test_a_study_in_which_everything_failed_has_a_page(results, page):
    results.add("htl", 0, status="error", error="no such file")
    assert tables(page())[0][0]["MAP@R"] == "–"
    assert "## letters · tiny\n" in page()


def test_each_data_set_backbone_and_protocol_has_its_table(results, page):
    results.add("htl", 0, {"map@r": 0.1, "queries": 5924.0})
    results.add("htl", 0, {"map@r": 0.2}, backbone="big")
    results.add("htl", 0, {"map@r": 0.3}, dataset="vehicle_id", protocols=("small", "large"))
    headings = [line[3:] for line in page().splitlines() if line.startswith("## ")]
    assert headings[:5] == [
        "Overview",
        "letters · tiny · zero_shot",
        "letters · big · zero_shot",
        "vehicle_id · tiny · small",
        "vehicle_id · tiny · large",
    ]
    overview, *panels = tables(page())
    assert [rows[0]["MAP@R"] for rows in panels] == ["10.00", "20.00", "30.00", "30.00"]
    assert [*overview[0].values()] == ["htl", "10.00", "20.00", "30.00", "30.00"]
    assert "5,924 queries" in page()


def test_the_head_has_the_shared_recipe_versions_device_and_code_and_sections_have_the_rest(
    results, page
):
    results.add("control_random", 0, {"map@r": 0.1}, recipe={"cpu_threads": 1})
    results.add("htl", 0, {"map@r": 0.1}, recipe={"epochs": 8, "lr": 0.1})
    results.add(
        "htl", 0, {"map@r": 0.1}, recipe={"epochs": 9, "lr": 0.1}, dataset="sop", device="H200"
    )
    text = page()
    assert "- Recipe: lr 0.1\n" in text
    assert "recipe here: epochs 8." in text
    assert "recipe here: epochs 9." in text
    assert "- Versions: python 3.11.9, timm 1.0.20, torch 2.15.0\n" in text
    assert "- Device: cpu (test) / H200\n" in text
    assert "- Code: c0ffee\n" in text


def test_the_head_says_how_runs_shared_their_gpus(results, page):
    results.add("htl", 0, {"map@r": 0.1})
    results.add("htl", 1, {"map@r": 0.1}, runs_per_gpu=1, mps=True)
    assert "GPUs shared" not in page()
    results.add("htl", 2, {"map@r": 0.1}, runs_per_gpu=4, mps=False)
    results.add("htl", 3, {"map@r": 0.1}, runs_per_gpu=2, mps=True)
    results.add("htl", 4, {"map@r": 0.1}, runs_per_gpu=4, mps=False)
    assert (
        "- GPUs shared: up to 2 runs on a GPU, with MPS / up to 4 runs on a GPU, without MPS; so "
        "train times are not those of a whole GPU\n"
    ) in page()


def test_the_page_does_not_depend_on_when_and_where_runs_were_made(results, page):
    results.add("htl", 0, {"map@r": 0.1})
    first = page()
    results.runs.clear()
    results.add("htl", 0, {"map@r": 0.1}, started="2031-12-24T00:00:00+00:00", host="there")
    assert page() == first


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0, "–"), (9.94, "9.9 s"), (60, "1 min 00 s"), (3599.6, "1 h 00 min"), (9000, "2 h 30 min")],
)
def test_train_times_are_readable(results, page, seconds, text):
    results.add("htl", 0, {"map@r": 0.1}, train_seconds=seconds)
    assert tables(page())[0][0]["train time"] == text


def test_thirty_losses_are_thirty_rows(study, page):
    study(tuple(f"loss_{i}" for i in range(30)), seeds=1, controls=False)
    rows, *_ = tables(page())
    scores = [float(row["MAP@R"]) for row in rows]
    assert len(rows) == 30
    assert scores == sorted(scores, reverse=True)


def test_recall_by_level_is_shown_with_the_names_of_the_levels(results, page):
    scores = {"recall@1": 0.5, "recall@2": 0.6, "map@r": 0.2}
    by_level = {"recall@1 level_1": 0.75, "recall@2 level_1": 0.8, "recall@1 level_2": 0.875}
    by_level |= {"h_ap": 0.5, "asi": 0.25, "ndcg": 0.125}
    results.add("htl", 0, scores | by_level, levels=("genus", "family"))
    results.add("htl", 0, scores, dataset="flat", levels=())
    _, deep, flat = tables(page())
    assert [*deep[0]][:6] == [
        "loss",
        "Recall@1",
        "Recall@2",
        "Recall@1 genus",
        "Recall@1 family",
        "MAP@R",
    ]
    assert (deep[0]["Recall@1 genus"], deep[0]["Recall@1 family"]) == ("75.00", "87.50")
    assert [deep[0][name] for name in ("H-AP", "ASI", "NDCG")] == ["50.00", "25.00", "12.50"]
    assert [*flat[0]][:4] == ["loss", "Recall@1", "Recall@2", "MAP@R"]
    assert not {"H-AP", "ASI", "NDCG", "Recall@2 genus"} & flat[0].keys()


def test_the_names_of_the_levels_are_those_of_the_test_data_set(results, page):
    planned = results.add("htl", 0, {"recall@1 level_1": 0.75}, levels=("kind",))
    settings = {name: {"facts": {"levels": [name]}} for name in ("dataset", "test")}
    results.edit(f"{planned['path']}/run.json", settings={"recipe": {}, **settings})
    assert "Recall@1 test" in tables(page())[0][0]


def test_numbers_that_losses_report_about_themselves_are_below_the_scores(results, page):
    scores = {"recall@1": 0.5}
    for seed, median in enumerate((0.5, 1.5)):
        learnt = {"alpha_median": median, "alpha_max": 2.0}
        results.add("htl", seed, scores, history=[2.0, 1.0], learnt=learnt)
    results.add("htl", 2, status="diverged", error="nan", history=[9.0], learnt={"alpha_max": 99})
    results.add("softtriple", 0, scores, history=[1.0], learnt={"distinct_centers": 7.25})
    results.add("triplet", 0, scores, history=[1.0])
    results.add("triplet", 0, scores, dataset="flat", history=[1.0])
    results.add("control_random", 0, scores)
    text = page()
    assert text.count("What the losses learnt") == 1
    assert "## What the losses learnt: letters · tiny" in text
    assert tables(text)[-1] == [
        {"loss": "htl", "alpha median": "1", "alpha max": "2", "distinct centers": "–"},
        {"loss": "softtriple", "alpha median": "–", "alpha max": "–", "distinct centers": "7.25"},
    ]
