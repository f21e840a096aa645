"""A study file becomes runs; the studies of config/ are right."""

from pathlib import Path

import pytest

from dmlbench.cli.main import main
from dmlbench.losses import list_losses
from dmlbench.study.study import check_study, read_study
from dmlbench.utils.errors import StudyError

ROOT = Path(__file__).parents[2]
SHIPPED = {path.name: path for path in sorted((ROOT / "config").glob("*.yaml"))}
NEEDS_FILES = {
    "leaderboard-small.yaml": ["datasets.grocery: file"],
    "finetune.yaml": ["datasets.grocery: file", "backbones.mobilenet.pretrained"],
    "frozen.yaml": ["datasets.grocery: file", "backbones.mobilenet.pretrained"],
    "finetune_cub50.yaml": ["datasets.cub50: file", "backbones.mobilenet.pretrained"],
}


@pytest.mark.parametrize("name", sorted(SHIPPED.keys() - NEEDS_FILES))
def test_the_shipped_studies_are_right(name):
    assert read_study(SHIPPED[name]).runs


@pytest.mark.parametrize("name", NEEDS_FILES)
def test_a_shipped_study_without_its_files_asks_for_them_and_for_nothing_else(
    name, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StudyError) as refused:
        read_study(SHIPPED[name])
    _, *problems = str(refused.value).splitlines()
    assert len(problems) == len(NEEDS_FILES[name])
    for path in NEEDS_FILES[name]:
        assert any(path in problem for problem in problems)


def test_the_schema_in_config_is_that_of_the_models(tmp_path):
    with pytest.raises(SystemExit) as ended:
        main(["schema", "--output", str(tmp_path / "schema.json")])
    assert not ended.value.code
    written = (tmp_path / "schema.json").read_text()
    assert (ROOT / "config/schema.json").read_text() == written, "run: dmlbench schema"


def test_the_omniglot_study_has_every_loss():
    study = read_study(ROOT / "config/omniglot.yaml")
    assert {run.loss_type for run in study.runs.values()} >= {*list_losses()}


def test_the_ablation_varies_two_parameters_and_nothing_else():
    study = read_study(ROOT / "config/ablation.yaml")
    runs = [run for run in study.runs.values() if run.trains]
    assert {run.loss_type for run in runs} == {"softtriple"}
    cells = {(run.loss_options["centers_per_class"], run.loss_options["tau"]) for run in runs}
    assert cells == {(1, 0.2), (2, 0.2), (5, 0.2), (10, 0.2), (2, 0), (5, 0), (10, 0)}
    assert len(runs) == 3 * len(cells)
    varied = ("centers_per_class", "tau")
    others = [{k: v for k, v in run.loss_options.items() if k not in varied} for run in runs]
    assert all(options == others[0] for options in others)
    assert len({run.recipe.model_dump_json() for run in runs}) == 1


def test_a_study_is_read_by_its_name_or_its_folder_of_results(letters, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    study = check_study(letters, "my.yaml")
    study.folder.mkdir(parents=True)
    study.files.snapshot.write_text(study.settings.model_dump_json())
    for name in ("my_study", "results/my_study"):
        assert read_study(name).runs.keys() == study.runs.keys()
    with pytest.raises(StudyError, match=r"no such file\. Studies with results here: my_study\."):
        read_study("mine")


def test_a_cell_has_a_tree_if_the_file_of_its_loss_declares_one(tiny):
    tiny["plan"] |= {"losses": ["htl", "flat", "rll", "average"], "seeds": [0, 1]}
    tiny["losses"] = {
        "flat": {"type": "normalized_softmax"},
        "average": {"type": "htl", "tree_linkage": "average"},
    }
    study = check_study(tiny, "tiny")
    assert study.trees == ["trees/letters/tiny/htl", "trees/letters/tiny/average"]
    trees = {row["loss"]: row["tree"] for row in study.rows}
    assert trees["htl"] == "trees/letters/tiny/htl"
    assert trees["rll"] is trees["flat"] is trees["control_random"] is None
