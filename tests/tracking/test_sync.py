"""After an import MLflow equals the result files, however often and badly it was done before."""

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from mlflow import MlflowClient

from dmlbench.tracking import sync
from dmlbench.utils.modules import PACKAGE

ROOT = Path(__file__).parents[2]
CELL = "letters/tiny/proxy_anchor"
RUN = f"{CELL}/seed0"


def start(folder, arguments=("-m", "dmlbench", "track", "study.yaml"), **environment):
    """Start `dmlbench track study.yaml`, or another call of Python, in `folder`."""
    return subprocess.Popen(
        [sys.executable, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_second_import_changes_nothing(results):
    results.track()
    before = Path("results/mlflow.db").read_bytes()
    assert results.track() == {"unchanged": 6}
    assert Path("results/mlflow.db").read_bytes() == before


def test_a_repeated_import_loads_neither_mlflow_nor_pandas(results, tmp_path):
    results.track()
    Path("study.yaml").write_text(yaml.safe_dump(results.settings))
    code = (
        "import sys\n"
        "from dmlbench.cli.main import main\n"
        "try: main(['track', 'study.yaml'])\n"
        "finally: print(*{'mlflow', 'sqlalchemy', 'pandas'} & sys.modules.keys())"
    )
    with start(tmp_path, arguments=["-c", code]) as process:
        line, *_, imported = process.communicate()[0].splitlines()
    assert line.endswith("0 created, 0 replaced, 6 unchanged, 0 deleted")
    assert imported == ""


def test_a_changed_key_replaces_only_its_runs(results):
    results.track()
    before = results.ids()
    results.settings["losses"] = {"proxy_anchor": {"alpha": 16.0}}
    results.read()
    for seed in (0, 1):
        results.write(f"{CELL}/seed{seed}")
    assert results.track() == {"replaced": 3, "unchanged": 3}
    after = results.tracked()
    kept = {path for path, run in after.items() if before[path] == run.info.run_id}
    assert kept == {path for path in before if "normalized_softmax" in path}
    assert after[RUN].data.params["loss.alpha"] == "16.0"
    assert results.is_complete()


def test_a_new_result_of_one_seed_replaces_it_and_its_cell(results):
    results.track()
    before = results.ids()
    results.write(RUN, recall=0.9)
    assert results.track() == {"replaced": 2, "unchanged": 4}
    after = results.ids()
    assert {path for path in after if after[path] != before[path]} == {RUN, CELL}
    assert results.is_complete()  # the other seed is now under the new cell
    assert results.tracked()[CELL].data.metrics["zero_shot/recall_at_1"] == pytest.approx(0.75)
    assert results.track() == {"unchanged": 6}


@pytest.mark.parametrize(
    "call",
    ["create_run", "log_batch", "log_inputs", "log_artifact", "set_terminated", "set_tag"],
)
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_the_next_import_completes_an_interrupted_one(results, monkeypatch, call, after):
    method, calls = getattr(MlflowClient, call), []

    def interrupted(*arguments, **named):
        calls.append(call)
        if len(calls) == 3:
            if after:
                method(*arguments, **named)
            raise KeyboardInterrupt
        return method(*arguments, **named)

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, call, interrupted)
        with pytest.raises(KeyboardInterrupt):
            results.track()
    results.track()
    assert results.is_complete()
    results.assert_as_written()
    assert results.track() == {"unchanged": 6}


def test_the_next_import_creates_a_run_that_an_interrupted_one_only_deleted(results, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    results.track()
    results.write(RUN, recall=0.9)
    with monkeypatch.context() as patch:
        patch.setattr(sync, "_write", interrupted)
        with pytest.raises(KeyboardInterrupt):
            results.track()
    results.track()
    assert results.is_complete()
    assert results.track() == {"unchanged": 6}


def test_the_next_import_moves_a_seed_that_an_interrupted_one_left_under_the_old_cell(
    results, monkeypatch
):
    results.track()
    results.write(RUN, recall=0.9)
    set_tag = MlflowClient.set_tag

    def interrupted(client, run, name, value):
        if name == "mlflow.parentRunId":
            raise KeyboardInterrupt
        set_tag(client, run, name, value)

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "set_tag", interrupted)
        with pytest.raises(KeyboardInterrupt):
            results.track()
    assert results.track() == {"unchanged": 6}
    assert results.is_complete()


def test_a_run_that_left_the_plan_is_deleted_and_comes_back_with_it(results):
    results.track()
    losses = results.settings["plan"]["losses"]
    results.settings["plan"]["losses"] = ["normalized_softmax"]
    results.read()
    assert results.track() == {"unchanged": 3, "deleted": 3}
    assert results.is_complete()
    results.settings["plan"]["losses"] = losses
    results.read()
    assert results.track() == {"unchanged": 3, "created": 3}
    assert results.is_complete()


def test_missing_and_outdated_results_are_left_out(results):
    results.track()
    (results.folder(RUN) / "metrics.json").unlink()
    assert results.track() == {"unchanged": 3 + 1, "replaced": 1, "deleted": 1}
    results.settings["recipe"]["epochs"] = 2  # no result has this key yet
    results.read()
    assert results.track() == {"deleted": 5}


def test_runs_that_somebody_else_made_are_left_alone(results):
    results.track()
    client = results.client
    experiment = client.get_experiment_by_name("tiny").experiment_id
    client.create_run(experiment, run_name="by hand")
    assert results.track() == {"unchanged": 6}
    assert "by hand" in results.tracked()


@pytest.mark.parametrize("path", [CELL, RUN])
def test_a_run_that_was_deleted_in_mlflow_comes_back(results, path):
    results.track()
    results.client.delete_run(results.ids()[path])
    assert results.track() == {"created": 1, "unchanged": 5}
    assert results.is_complete()


def test_an_experiment_that_was_deleted_in_mlflow_comes_back(results):
    results.track()
    client = results.client
    client.delete_experiment(client.get_experiment_by_name("tiny").experiment_id)
    results.track()
    assert results.is_complete()


def test_the_duplicate_of_a_run_is_deleted(results):
    results.track()
    run, client = results.tracked()[RUN], results.client
    client.create_run(run.info.experiment_id, tags={"dmlbench.path": RUN})
    assert results.track()["deleted"] == 1
    assert results.is_complete()
    assert results.track() == {"unchanged": 6}


def test_two_imports_at_once_make_one_new_database(results, tmp_path):
    Path("results/mlflow.db").unlink()
    Path("study.yaml").write_text(yaml.safe_dump(results.settings))
    with Path("results/mlflow.db.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        processes = [start(tmp_path), start(tmp_path)]
        for process in processes:
            assert "waiting for it" in process.stderr.readline()
        assert not Path("results/mlflow.db").exists()
    lines = sorted(process.communicate(timeout=120)[0].splitlines()[0] for process in processes)
    where = "tiny: 4 of 4 results are at sqlite:///results/mlflow.db: "
    assert lines == [
        f"{where}0 created, 0 replaced, 6 unchanged, 0 deleted",
        f"{where}6 created, 0 replaced, 0 unchanged, 0 deleted",
    ]
    assert results.is_complete()
    assert Path("results/mlartifacts/tiny").is_dir()
    assert not Path("mlruns").exists()


def test_an_environment_variable_names_another_place(monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert sync.tracking_uri() == "sqlite:///results/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://example.org")
    assert sync.tracking_uri() == "https://example.org"


def test_no_other_module_imports_mlflow():
    importing = {
        str(path.relative_to(PACKAGE))
        for path in PACKAGE.rglob("*.py")
        if "from mlflow" in path.read_text() or "import mlflow" in path.read_text()
    }
    assert importing == {"tracking/sync.py", "tracking/database.py"}
