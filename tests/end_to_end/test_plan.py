"""`dmlbench plan` counts the jobs that `snakemake -n` does, and says why."""

import pytest

ONE = {"train": 1, "evaluate": 1, "build_leaderboard": 1, "verdict": 1}
LOSS = "results/tiny/runs/letters/tiny/proxy_anchor/seed0"


def test_nothing_is_pending_in_a_finished_study_and_everything_in_a_new_one(finished, tiny):
    said = finished.diff({})
    assert said == "tiny: 3 runs, 1 packed store; to do: nothing\n"
    finished.write(tiny | {"study": "other"})
    said = finished.diff({"train": 3, "evaluate": 3, "build_leaderboard": 1, "verdict": 1})
    assert "no result yet: 3 runs (letters x tiny x all 3 losses x seed 0)" in said


def test_changed_settings_are_named_with_their_values(finished, tiny):
    tiny["losses"] = {"proxy_anchor": {"alpha": 16}}
    finished.write(tiny)
    said = finished.diff(ONE)
    assert "  loss.alpha: 32.0 -> 16.0: 1 run (letters x tiny x proxy_anchor x seed 0)\n" in said
    assert "  after their training: 1\n" in said
    tiny["recipe"]["epochs"] = 2
    tiny["evaluation"] = {"recall_at": [3]}
    finished.write(tiny)
    said = finished.diff({"train": 2, "evaluate": 3, "build_leaderboard": 1, "verdict": 1})
    assert "  loss.alpha: 32.0 -> 16.0; recipe.epochs: 1 -> 2: 1 run (" in said
    assert "  recipe.epochs: 1 -> 2: 1 run (letters x tiny x normalized_softmax x seed 0)" in said
    assert "  evaluation.recall_at: [1, 2, 4, 8] -> [3]: 1 run (letters x tiny x control_" in said


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ("losses/proxy_anchor.py", ONE),
        ("evaluation/retrieval.py", {"evaluate": 3, "build_leaderboard": 1, "verdict": 1}),
        ("leaderboard/table.py", {"build_leaderboard": 1, "verdict": 1}),
        ("cli/main.py", {}),
    ],
)
def test_changed_code_is_named_by_its_file(finished, file, expected):
    path = finished.folder / "dmlbench" / file
    path.write_text(path.read_text() + "\nEXTRA = 1\n")
    said = finished.diff(expected)
    assert (f"code of dmlbench/{file}" in said) == bool(expected)


def test_another_seed_a_removed_loss_and_tracking_are_counted(finished, tiny):
    tiny["plan"]["seeds"] = [0, 1]
    finished.write(tiny)
    said = finished.diff({"train": 2, "evaluate": 2, "build_leaderboard": 1, "verdict": 1})
    assert "no result yet: 2 runs (letters x tiny x all 2 losses x seed 1)" in said
    tiny["plan"] |= {"seeds": [0], "losses": ["proxy_anchor"]}
    finished.write(tiny)
    assert "its runs, their results or its templates changed" in finished.diff(
        {"build_leaderboard": 1, "verdict": 1}
    )
    finished.environment.pop("MLFLOW_TRACKING_URI", None)
    tiny["plan"] |= {"losses": ["normalized_softmax", "proxy_anchor"]}
    finished.write(tiny | {"tracking": True})
    assert "track: not done yet" in finished.diff({"track": 1, "verdict": 1})


def test_removed_files_are_made_again(finished):
    for name in ("run.json", "metrics.json"):
        (finished.folder / LOSS / name).unlink()
    finished.diff(ONE)


@pytest.mark.slow
def test_the_call_that_embed_names_makes_a_model_that_was_not_kept(finished, tiny):
    before = finished.metrics()
    finished.write(tiny | {"keep_model": True})
    which = "2 runs (letters x tiny x all 2 losses x seed 0)"
    assert f"{which} have a result and no model" in finished.diff({})
    finished.run("--forcerun", f"{LOSS}/run.json")
    assert (finished.folder / LOSS / "model.safetensors").is_file()
    assert finished.metrics() == before
    assert "1 run (letters x tiny x normalized_softmax x seed 0) have" in finished.diff({})
