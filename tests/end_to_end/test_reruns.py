"""What changed is computed again, and nothing else. Jobs are counted by a dry run."""

import shutil

import pytest

REST = {"build_leaderboard": 1, "verdict": 1}


def test_a_study_runs_to_its_leaderboard_and_then_nothing_is_left(finished):
    leaderboard = finished.folder / "results/tiny/leaderboard"
    assert "normalized_softmax" in (leaderboard / "leaderboard.md").read_text()
    for name in ("recall", "recall_curves", "time", "training"):
        assert (leaderboard / f"plots/{name}.png").stat().st_size > 5000
    assert "all 3 runs have a result" in (finished.folder / "results/tiny/verdict.txt").read_text()
    assert "results/tiny/leaderboard/leaderboard.html" in finished.output
    assert finished.planned() == {}
    assert "Nothing to be done" in finished.run()


def test_the_recipe_reruns_every_training_and_no_control(finished, tiny):
    tiny["recipe"]["epochs"] = 2
    finished.write(tiny)
    assert finished.planned() == {"train": 2, "evaluate": 2, **REST}


CODE = {
    "a comment": ("losses/proxy_anchor.py", '"""', '# why\n"""', {}),
    "the training": (
        "training/embedding.py",
        "EMBED_BATCH = 256",
        "EMBED_BATCH = 255",
        {"train": 3, "evaluate": 3, **REST},
    ),
}


@pytest.mark.parametrize("what", CODE)
def test_a_change_of_code_reruns_what_it_makes(finished, what):
    file, old, new, expected = CODE[what]
    path = finished.folder / "dmlbench" / file
    path.write_text(path.read_text().replace(old, new, 1))
    assert finished.planned() == expected


@pytest.mark.slow
def test_studies_share_a_store_and_changed_facts_make_another(finished, tiny, tmp_path):
    """Here the workflow itself packs: what it noted of a store must not make it pack again."""
    finished.environment["DMLBENCH_DATA"] = str(tmp_path / "data")
    tiny["plan"] |= {"losses": ["proxy_anchor"], "controls": []}
    one, new_store = {"train": 1, "evaluate": 1, **REST}, {"pack_store": 1, "find_duplicates": 1}
    for name in ("first", "second"):
        tiny["study"] = name
        finished.write(tiny)
        assert finished.planned() == one | (new_store if name == "first" else {})
        finished.run()
    tiny["study"] = "first"
    finished.write(tiny)
    assert finished.planned() == {}
    (manifest,) = (tmp_path / "data/stores").glob("*/manifest.json")
    manifest.touch()
    assert finished.planned() == {}
    tiny["plan"]["seeds"] = [0, 1]
    finished.write(tiny)
    manifest.unlink()  # of a user who needs the space: it is packed again for the new run alone
    assert finished.planned() == one | new_store
    tiny["plan"]["seeds"] = [0]
    finished.write(tiny)
    assert finished.planned() == {}
    finished.edit("dmlbench/datasets/glyphs.py", '"version": 1', '"version": 2')
    assert finished.planned() == one | new_store


def test_changed_metrics_are_in_the_table_after_the_next_call(finished, tiny):
    tiny["evaluation"] = {"recall_at": [3]}
    finished.write(tiny)
    assert finished.planned() == {"evaluate": 3, **REST}
    finished.run()
    table = (finished.folder / "results/tiny/leaderboard/leaderboard.csv").read_text()
    assert "recall@3" in table
    assert "recall@1," not in table


@pytest.mark.slow
def test_the_tree_of_a_loss_is_drawn_and_removed_with_the_loss(finished, tiny):
    tiny["plan"]["losses"] = ["htl"]
    tiny["losses"] = {"htl": {"warmup_epochs": 0, "neighbours": 2}}
    finished.write(tiny)
    assert finished.diff({"train": 1, "evaluate": 1, **REST})
    finished.run()
    artefact = finished.json("results/tiny/runs/letters/tiny/htl/seed0/artefacts/loss.json")
    plots = finished.folder / "results/tiny/leaderboard/plots"
    drawn = (plots / "trees/letters/tiny/htl.svg").read_text()
    assert [name for name in artefact["classes"] if name[:36] not in drawn] == []
    page = (plots.parent / "leaderboard.md").read_text()
    assert "Recall@1 script" in page
    assert "alpha median" in page
    assert finished.planned() == {}

    tiny["plan"]["losses"] = ["proxy_anchor"]
    finished.write(tiny)
    finished.run()
    assert not list(plots.glob("trees/**/*"))


@pytest.mark.slow
def test_one_core_and_two_give_the_same_metrics(finished, project):
    project.run(cores=1)
    assert project.metrics() == finished.metrics()
    assert len(project.metrics()) == 3


def test_the_snakefile_of_the_workflow_catalogue_is_the_same_workflow(finished, tiny):
    catalogue = ("--snakefile", "workflow/Snakefile")
    assert finished.planned(*catalogue) == {}
    tiny["plan"]["seeds"] = [0, 1]
    finished.write(tiny)
    assert finished.planned(*catalogue) == {"train": 2, "evaluate": 2, **REST}


def test_it_runs_from_another_folder(project, tmp_path):
    (tmp_path / "else where").mkdir()
    study = str(project.folder / "study.yaml")
    project.environment["DMLBENCH_DATA"] = str(tmp_path / "else where/data")
    output = project.run("-n", "-p", "--directory", str(tmp_path / "else where"), study=study)
    assert "else where/data/stores/" in output
    assert "Write the table and the plots" in output


def test_a_store_that_another_study_made_meanwhile_is_not_touched(finished, data_folder, tmp_path):
    (manifest,) = data_folder.glob("stores/*/manifest.json")
    (tmp_path / "held").hardlink_to(manifest)
    finished.run("--forcerun", "pack_store", "--", str(manifest))
    assert manifest.samefile(tmp_path / "held")


def test_a_data_folder_that_moved_reruns_nothing(finished, data_folder, tmp_path):
    moved = shutil.copytree(data_folder, tmp_path / "moved")
    finished.environment["DMLBENCH_DATA"] = str(moved)
    finished.diff({})
