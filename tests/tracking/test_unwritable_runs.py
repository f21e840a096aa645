"""A run that cannot be written does not keep the others from MLflow."""

import json

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from dmlbench.tracking import sync
from dmlbench.utils.errors import TrackingError

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
    text = file.read_text()
    result = json.loads(text)
    del result["provenance"]["started"]
    file.write_text(json.dumps(result))
    return lambda: file.write_text(text)


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


@pytest.mark.parametrize("name", ["history.parquet", "embeddings.npz"])
def test_a_missing_file_is_named_with_its_run(results, name):
    results.settings["track_embeddings"] = True
    results.read()
    (results.folder(RUN) / name).unlink()
    line = failure(results)[1]
    assert line.startswith(f"    {RUN}: FileNotFoundError: ")
    assert f"{RUN}/{name}" in line


def test_a_server_that_refuses_everything_is_asked_once(results, monkeypatch):
    asked = []

    def refuse(*_, **__):
        asked.append(1)
        raise MlflowException("no space left")

    monkeypatch.setattr(MlflowClient, "log_batch", refuse)
    assert failure(results) == [f"tracking to {results.uri} failed: no space left"]
    assert len(asked) == 1
