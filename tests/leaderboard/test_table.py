import numpy as np
import pandas as pd
import pytest

from dmlbench.leaderboard.table import panels, read_results, recalls, tabulate, write_csv
from dmlbench.utils.errors import MissingResult


def collect(results, runs=None):
    return tabulate(read_results(runs or results.runs, results.files))


def test_a_run_has_a_row_for_each_protocol_and_metric_with_its_provenance(results):
    planned = results.add("htl", 2, {"map@r": 0.25, "nmi": 0.5}, protocols=("small", "large"))
    table = collect(results)
    assert list(zip(table["protocol"], table["metric"], table["value"], strict=True)) == [
        ("small", "map@r", 0.25),
        ("small", "nmi", 0.5),
        ("large", "map@r", 0.25),
        ("large", "nmi", 0.5),
    ]
    same = table.drop(columns=["protocol", "metric", "value"]).drop_duplicates()
    assert same.dropna(axis=1).to_dict("records") == [
        {
            "study": "made",
            **{key: planned[key] for key in ("dataset", "tested_on", "backbone", "loss", "seed")},
            **{key: planned[key] for key in ("train_key", "eval_key")},
            "status": "ok",
            "git_commit": "c0ffee",
            "device": "cpu (test)",
            "train_seconds": 100.0,
            "peak_memory_mb": 512.5,
            "images_per_second": 1234.5,
            "version_python": "3.11.9",
            "version_timm": "1.0.20",
            "version_torch": "2.15.0",
        }
    ]


def test_the_columns_do_not_depend_on_the_content_of_the_runs(results):
    results.add("htl", 0, {"map@r": 0.25})
    whole = collect(results).columns
    results.edit(
        f"{results.runs[0]['path']}/run.json",
        provenance={"versions": {"timm": "1", "python": "3", "torch": "2"}},
    )
    assert list(collect(results).columns) == list(whole)
    first = ["study", "dataset", "tested_on", "backbone", "loss", "seed"]
    assert list(whole[:9]) == [*first, "protocol", "metric", "value"]


def test_only_planned_runs_are_read_and_in_the_order_of_the_plan(results):
    for loss in ("htl", "abandoned", "rll"):
        results.add(loss, 0, {"map@r": 0.25})
    table = collect(results, [results.runs[2], results.runs[0]])
    assert list(table["loss"]) == ["rll", "htl"]


def test_a_failed_run_has_one_row_with_its_status_and_no_value(results):
    results.add("rll", 1, status="diverged", error="the loss is nan at step 7")
    (row,) = collect(results).to_dict("records")
    assert (row["status"], row["error"]) == ("diverged", "the loss is nan at step 7")
    assert all(pd.isna(row[column]) for column in ("protocol", "metric", "value"))
    assert row["train_seconds"] == 100


def test_a_run_whose_embeddings_could_not_be_scored_counts_as_failed(results):
    planned = results.add("rll", 1, {"map@r": 0.5})
    results.edit(
        f"{planned['path']}/metrics.json",
        status="error",
        error={"message": "collapsed", "tail": []},
        metrics=[],
    )
    assert list(collect(results)["status"]) == ["error"]


@pytest.mark.parametrize(
    ("file", "key"),
    [("run.json", "train_key"), ("metrics.json", "train_key"), ("metrics.json", "eval_key")],
)
@pytest.mark.parametrize("status", ["ok", "diverged"])
def test_a_result_with_another_key_is_refused_whether_failed_or_not(results, file, key, status):
    results.add("htl", 0, {"map@r": 0.25})
    stale = results.add("rll", 0, {"map@r": 0.25}, status=status)
    results.edit(f"{stale['path']}/{file}", **{key: "old"})
    with pytest.raises(MissingResult) as error:
        collect(results)
    assert f"rll/seed0/{file}: {key} is old, the study expects {stale[key]}" in str(error.value)
    assert "htl" not in str(error.value)


def test_all_missing_and_damaged_results_are_named_at_once(results):
    for seed in range(3):
        results.add("htl", seed, {"map@r": 0.25})
    files = [results.files.run(run["path"]).metrics for run in results.runs]
    files[0].unlink()
    files[2].write_text("{")
    with pytest.raises(MissingResult, match=r"(?s)seed0/metrics.json: No such.*seed2/.*: damaged"):
        collect(results)


@pytest.mark.parametrize("problem", ["missing", "damaged"])
def test_scores_of_single_queries_that_are_not_whole_are_named(results, problem):
    planned = results.add("htl", 0, {"map@r": 0.5}, queries=np.full((2, 3), 0.5))
    assert len(collect(results)) == 1
    file = results.files.run(planned["path"]).queries
    file.unlink() if problem == "missing" else file.write_bytes(b"")
    with pytest.raises(MissingResult, match=rf"seed0/queries.parquet: {problem}"):
        collect(results)


def test_the_csv_reads_back_exactly(results, tmp_path):
    results.add("htl", 0, {"map@r": 0.1 + 0.2, "nmi": 1 / 3}, train_seconds=1e-7 / 3)
    results.add("rll", 1, status="error", error='a "quoted", two-\nline message')
    table = collect(results)
    write_csv(table, tmp_path / "a.csv")
    again = pd.read_csv(tmp_path / "a.csv", float_precision="round_trip")
    pd.testing.assert_frame_equal(again, table, check_exact=True, check_dtype=False)
    assert b"\r" not in (tmp_path / "a.csv").read_bytes()


def test_each_data_set_backbone_and_protocol_is_a_panel_and_failed_runs_are_in_each(results):
    results.add("htl", 0, {"map@r": 0.25}, protocols=("small", "large"))
    results.add("rll", 0, status="timeout")
    results.add("rll", 0, dataset="cub200", status="timeout")
    titles = [(panel.title, list(panel.rows["loss"])) for panel in panels(collect(results))]
    assert titles == [
        ("letters · tiny · small", ["htl", "rll"]),
        ("letters · tiny · large", ["htl", "rll"]),
        ("cub200 · tiny", ["rll"]),
    ]


def test_a_title_names_the_test_data_set_if_it_is_another_one(results):
    results.add("htl", 0, {"map@r": 0.25})
    results.add("htl", 0, {"map@r": 0.25}, dataset="mine", tested_on="lfw")
    table = collect(results)
    assert list(table["tested_on"]) == ["letters", "lfw"]
    titles = [panel.title for panel in panels(table)]
    assert titles == ["letters · tiny · zero_shot", "mine → lfw · tiny · zero_shot"]


def test_recalls_are_in_the_order_of_k(results):
    results.add("rll", 0, status="killed")
    results.add("htl", 0, {f"recall@{k}": 0.5 for k in (10, 2, 100)} | {"map@r": 0.1})
    assert recalls(collect(results)) == ["recall@2", "recall@10", "recall@100"]
