import json
import subprocess
import sys
import xml.etree.ElementTree as ElementTree

import pytest
from PIL import Image

from dmlbench.leaderboard import pictures
from dmlbench.leaderboard.build import build
from dmlbench.study.remarks import Remarks
from dmlbench.utils.errors import MissingResult

PLOTS = ("recall", "recall_curves", "time", "training")
FILES = [
    "leaderboard.csv",
    "leaderboard.html",
    "leaderboard.md",
    "leaderboard.tex",
    *(f"plots/{name}.{suffix}" for name in PLOTS for suffix in ("png", "svg", "pdf")),
]
THIRTY = (*(f"loss_{i:02}" for i in range(29)), "pml.SignalToNoiseRatioContrastiveLoss")


def files(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def without_cells(names):
    return {name for name in names if not name.startswith("cells/")}


@pytest.mark.parametrize("losses", [("htl",), THIRTY], ids=["1 loss", "30 losses"])
def test_all_files_are_written_and_each_names_every_loss(study, tmp_path, losses):
    results = study(losses, seeds=2, controls=len(losses) > 1)
    build("made", results.runs, results.files, tmp_path / "out")
    written = files(tmp_path / "out")
    assert without_cells(written) == {*FILES}
    cells = {run["path"].rpartition("/")[0] for run in results.runs}
    assert {*written} - without_cells(written) == {f"cells/{cell}.html" for cell in cells}
    for name in [file for file in FILES if not file.endswith(("png", "pdf", "tex"))]:
        text = written[name].decode()
        if name.endswith("svg"):
            text = " ".join(ElementTree.fromstring(text).itertext())
        assert [loss for loss in losses if loss not in text] == []
    for name in PLOTS:
        with Image.open(tmp_path / f"out/plots/{name}.png") as image:
            assert image.width == 1440
            assert len(image.convert("RGB").getcolors(2**24)) > 50


def test_the_trials_are_drawn_as_long_as_losses_are_tuned(results, tmp_path):
    space = {"recipe.lr_factor": [0.25, 4.0, "log"]}
    tuned = results.tune("htl", [0.2, 0.4], space, [{"recipe.lr_factor": n} for n in (1.0, 2.0)])
    results.add("htl", 0, {"map@r": 0.5}, history=[1.0], **tuned)
    build("made", results.runs, results.files, tmp_path / "out")
    drawn = {
        f"plots/{plot}.{kind}"
        for plot in ("trials", "trial_settings")
        for kind in ("png", "svg", "pdf")
    }
    assert without_cells(files(tmp_path / "out")) == {*FILES, *drawn}
    page = (tmp_path / "out/leaderboard.html").read_text()
    assert page.count("<figcaption>Tuning: ") == 2
    del results.runs[0]["settings"]["tuning"]
    build("made", results.runs, results.files, tmp_path / "out")
    assert without_cells(files(tmp_path / "out")) == {*FILES}


def test_equal_results_give_equal_files(study, tmp_path):
    results = study(("htl", "rll"))
    for out in ("one", "two"):
        build("made", results.runs, results.files, tmp_path / out)
    assert files(tmp_path / "one") == files(tmp_path / "two")


def test_nothing_is_written_when_a_result_is_stale(study, tmp_path):
    results = study(("htl",))
    results.edit(f"{results.runs[-1]['path']}/metrics.json", eval_key="old")
    with pytest.raises(MissingResult):
        build("made", results.runs, results.files, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_importing_the_package_imports_nothing_heavy():
    check = """
import sys, dmlbench.leaderboard.build
heavy = {"torch", "pandas", "numpy", "scipy", "matplotlib"} & set(sys.modules)
assert not heavy, heavy
"""
    subprocess.run([sys.executable, "-c", check], check=True)


def test_losses_are_sorted_by_accuracy_where_pairs_are_verified(results, tmp_path):
    for loss, accuracy in (("htl", 0.91), ("rll", 0.97)):
        scores = {"verification_accuracy": accuracy, "verification_error": 0.01, "pairs": 6000.0}
        results.add(loss, 0, scores, protocols=("verification",), history=[1.0])
    results.add("hpl", 0, status="diverged", error="the loss is nan", history=[1.0])
    build("made", results.runs, results.files, tmp_path / "out")
    page = (tmp_path / "out/leaderboard.md").read_text()
    assert "Sorted by mean Verification accuracy" in page
    assert page.index("| rll | 97.00 |") < page.index("| htl | 91.00 |") < page.index("| hpl | –")
    assert "R-Precision |" not in page
    plot = ElementTree.fromstring((tmp_path / "out/plots/recall.svg").read_text())
    text = " ".join(plot.itertext())
    assert "Verification accuracy (%)" in text
    assert "MAP@R" not in text
    assert text.count("diverged") == 1


def test_an_unknown_protocol_and_metric_break_nothing(results, tmp_path):
    results.add("htl", 0, {"surprise": 0.5}, protocols=("new",), history=[1.0])
    build("made", results.runs, results.files, tmp_path / "out")
    assert "letters · tiny · new" in (tmp_path / "out/leaderboard.md").read_text()


def test_trees_of_losses_that_left_the_plan_are_removed(results, tmp_path):
    for seed in (0, 1):
        results.add("htl", seed, {"recall@1": 0.5}, history=[1.0], tree="trees/letters/tiny/htl")
    results.add("rll", 0, {"recall@1": 0.5}, history=[1.0])
    stale = tmp_path / "out/plots/trees/letters/tiny/gone.svg"
    stale.parent.mkdir(parents=True)
    stale.touch()
    build("made", results.runs, results.files, tmp_path / "out")
    trees = [f"plots/trees/letters/tiny/htl.{suffix}" for suffix in ("png", "svg", "pdf")]
    assert without_cells(files(tmp_path / "out")) == {*FILES, *trees}
    assert "that a loss has learnt" in (tmp_path / "out/leaderboard.html").read_text()


def test_the_paper_track_has_a_plot_of_the_published_numbers_and_other_studies_have_none(
    results, tmp_path
):
    results.add("htl", 0, {"recall@1": 0.5}, history=[1.0])
    build("made", results.runs, results.files, tmp_path / "out", Remarks(track="paper"))
    plots = [f"plots/published.{suffix}" for suffix in ("png", "svg", "pdf")]
    assert {*plots} <= files(tmp_path / "out").keys()
    assert "on the diagonal both are equal" in (tmp_path / "out/leaderboard.html").read_text()
    build("made", results.runs, results.files, tmp_path / "out")
    assert not {*plots} & files(tmp_path / "out").keys()


def test_a_loss_that_has_learnt_groups_has_a_picture_of_them(results, tmp_path):
    planned = results.add("hpl", 0, {"recall@1": 0.5}, history=[1.0], levels=("script",))
    results.add("rll", 0, {"recall@1": 0.5}, history=[1.0])
    learnt = {
        "train_key": planned["train_key"],
        "classes": ["a", "b", "c"],
        "super_classes": {"level_1": ["Greek", "Greek", "Latin"]},
        "learnt": {"parents": [[0, 0, 1]]},
    }
    file = results.files.run(planned["path"]).loss_artefact
    file.parent.mkdir()
    file.write_text(json.dumps(learnt))
    build("made", results.runs, results.files, tmp_path / "out")
    groups = [f"plots/groups/letters/tiny/hpl.{suffix}" for suffix in ("png", "svg", "pdf")]
    assert without_cells(files(tmp_path / "out")) == {*FILES, *groups}


def test_a_study_of_many_runs_is_drawn_by_several_processes_with_the_same_files(
    study, tmp_path, monkeypatch
):
    used = []
    results = study(("htl", "rll"))
    build("made", results.runs, results.files, tmp_path / "one")
    monkeypatch.setattr("dmlbench.leaderboard.build.MANY_RUNS", 2)
    monkeypatch.setattr("dmlbench.utils.cores.usable_cores", lambda: 8)
    pool = pictures.ProcessPoolExecutor
    monkeypatch.setattr(
        pictures, "ProcessPoolExecutor", lambda *a, **b: used.append(a[0]) or pool(*a, **b)
    )
    build("made", results.runs, results.files, tmp_path / "two")
    assert used == [2]
    assert files(tmp_path / "one") == files(tmp_path / "two")
