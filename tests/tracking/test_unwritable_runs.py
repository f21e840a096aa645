"""A run that cannot be written does not keep the others from MLflow."""

import errno
import json
import os

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from dmlbench.tracking import sync
from dmlbench.utils.errors import TrackingError

from ..result_edits import edit_result

FIRST = "letters/tiny/normalized_softmax"
RUN = f"{FIRST}/seed0"


def failure(results):
    """The message of an import in which something cannot be written."""
    with pytest.raises(TrackingError) as stopped:
        sync.track(results.study, results.uri)
    return str(stopped.value).splitlines()


def without_provenance(results):
    """Remove what the first seed says of its time; return how to undo that."""
    file = results.folder(RUN) / "run.json"
    before = json.loads(file.read_text())["provenance"]
    edit_result(file, provenance={name: before[name] for name in before if name != "started"})
    return lambda: edit_result(file, provenance=before)


def test_all_other_runs_are_written_and_the_failed_ones_are_named(results):
    repair = without_provenance(results)
    assert failure(results) == [
        f"tracking to {results.uri}: 2 of 6 runs could not be written, and all others were:",
        f"    {FIRST}: KeyError: 'started'",
        f"    {RUN}: KeyError: 'started'",
    ]
    written = {f"{FIRST}/seed1"} | {path for path in results.study.runs if "proxy" in path}
    assert results.tracked().keys() == {*written, "letters/tiny/proxy_anchor"}
    repair()
    assert results.track() == {"created": 2, "unchanged": 4}
    assert results.is_complete()  # the other seed is below its cell now


def test_a_run_that_cannot_be_replaced_does_not_stay_as_it_was(results):
    results.track()
    repair = without_provenance(results)
    failure(results)
    assert len(results.tracked()) == 4
    repair()
    assert results.track() == {"created": 2, "unchanged": 4}
    assert results.is_complete()


def test_nothing_stays_of_a_run_that_mlflow_refuses(results):
    results.write(RUN, columns=("long" * 70,))
    message = "\n".join(failure(results))
    assert f"1 of 6 runs could not be written, and all others were:\n    {RUN}: Mlflow" in message
    assert "exceeds the maximum length" in message
    assert len(results.tracked()) == 5


def test_missing_embeddings_are_named_with_their_run(results):
    results.settings["track_embeddings"] = True
    results.read()
    file = results.study.files.run(RUN).embeddings
    file.unlink()
    line = failure(results)[1]
    assert line.startswith(f"    {RUN}: MissingResult: {file}: there is no such file")


@pytest.mark.parametrize("name", ["history.parquet", "embeddings.npz"])
def test_a_run_with_a_damaged_file_is_left_out(results, name):
    file = results.folder(RUN) / name
    file.write_bytes(bytes(file.stat().st_size))
    assert results.track() == {"created": 5}
    assert RUN not in results.tracked()


def test_a_server_that_refuses_everything_is_asked_once(results, monkeypatch):
    asked = []

    def refuse(*_, **__):
        asked.append(1)
        raise MlflowException("no space left")

    monkeypatch.setattr(MlflowClient, "log_batch", refuse)
    assert failure(results) == [
        f"tracking to {results.uri} failed: no space left. The results and the table are complete "
        f"without it. `snakemake track` tries again; if the file is damaged, delete it: it is made "
        f"anew from the results."
    ]
    assert len(asked) == 1


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
def test_a_disk_that_takes_no_more_files_is_asked_once(results, monkeypatch, code):
    asked = []

    def refuse(*_, **__):
        asked.append(1)
        raise OSError(code, os.strerror(code), "mlartifacts/run.json")

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "log_artifact", refuse)
        (message,) = failure(results)
    assert f"failed: [Errno {code}] {os.strerror(code)}: 'mlartifacts/run.json'. The" in message
    assert len(asked) == 1
    assert results.track() == {"created": 4, "replaced": 1, "unchanged": 1}
    assert results.is_complete()
