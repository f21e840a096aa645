"""Imports to a server: the same runs as in a database, and a clear end if it does not answer."""

import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request

import pytest

from dmlbench.tracking import sync
from dmlbench.utils.errors import TrackingError

from .fake_server import Answer, serve

RUN = "letters/tiny/proxy_anchor/seed0"
needs_server = pytest.mark.skipif(
    importlib.util.find_spec("flask") is None, reason="the extra `ui` is not here"
)


@pytest.fixture(scope="module")
def server(tmp_path_factory, empty_database):
    """The address of an empty MLflow server."""
    folder = tmp_path_factory.mktemp("server")
    shutil.copy(empty_database, folder / "mlflow.db")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    arguments = (
        f"--host 127.0.0.1 --port {port} --workers 1 --artifacts-destination {folder}/files "
        f"--backend-store-uri sqlite:///{folder}/mlflow.db"
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "mlflow", "server", *arguments.split()],
        cwd=folder,
        stdout=(folder / "log").open("w"),
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + 120
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5)
                break
            except OSError:
                log = (folder / "log").read_text()
                assert process.poll() is None, log
                assert time.monotonic() < deadline, log
                time.sleep(0.2)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@pytest.fixture
def own_experiment(results):
    """Results whose experiment no other test of this file uses."""
    client_class = type(results.client)
    yield results
    client = client_class(results.uri)
    client.rename_experiment(client.get_experiment_by_name("tiny").experiment_id, str(time.time()))


@needs_server
def test_a_server_gets_the_same_runs(own_experiment, server):
    results = own_experiment
    results.uri = server
    assert results.track() == {"created": 6}
    assert results.is_complete()
    results.assert_as_written()
    results.write(RUN, recall=0.9)
    assert results.track() == {"replaced": 2, "unchanged": 4}
    assert results.is_complete()
    assert results.track() == {"unchanged": 6}


def hang_up():
    raise Answer


def be_slow():
    time.sleep(1.5)
    raise Answer(200, "{}")


def answer(status, text, **headers):
    def behave():
        raise Answer(status, text, **headers)

    return behave


PAGE = "<html><title>Sign in</title>" + "<p>please " * 9999
FAULTS = {
    "hangs up": (hang_up, "Remote end closed connection"),
    "is slow": (be_slow, "Read timed out"),
    "has an error": (answer(500, "oops"), "too many 500 error responses"),
    "is busy": (answer(503, "", Retry_After="3600"), "too many 503 error responses"),
    "wants a password": (answer(401, "who?"), "401 != 200. Response body: 'who?'"),
    "refuses": (answer(403, "no"), "403 != 200. Response body: 'no'"),
    "is elsewhere": (answer(404, PAGE), "404 != 200"),
    "shows a page": (answer(200, PAGE), "the response body was not in a valid JSON format"),
    "sends in a circle": (answer(302, "", Location="/login"), "Exceeded 30 redirects"),
    "is no MLflow": (answer(200, "{}"), "what answers there is no server of MLflow"),
}


@pytest.fixture
def impatient(monkeypatch):
    """MLflow waits one second for an answer, and asks twice."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_JITTER", "0")


def failure(results, uri):
    """The message of an import that fails."""
    with pytest.raises(TrackingError) as stopped:
        sync.track(results.study, uri)
    return str(stopped.value)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_server_that_does_not_do_its_work_is_one_short_message(results, impatient, fault):
    behave, reason = FAULTS[fault]
    before = {path: path.read_bytes() for path in results.study.folder.rglob("*.*")}
    with serve(lambda _: behave()) as (uri, _):
        message = failure(results, uri)
    assert message.startswith(f"tracking to {uri} failed: ")
    assert reason in message
    assert len(message) < 900
    assert "The results and the table are complete without it. `snakemake track` tries again" in (
        message
    )
    assert ("MLFLOW_TRACKING_TOKEN" in message) == (fault in ("wants a password", "refuses"))
    assert {path: path.read_bytes() for path in results.study.folder.rglob("*.*")} == before


@needs_server
def test_an_import_that_a_server_broke_off_is_completed_without_duplicates(
    own_experiment, server, monkeypatch
):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "60")  # a real server may be slow
    results = own_experiment
    last = 12  # each import gets one run further, and breaks off inside the next
    for fault in ("has an error", "hangs up", "shows a page"):
        behave, reason = FAULTS[fault]

        def break_off(request, behave=behave):
            if request > last:
                behave()

        with serve(break_off, server) as (uri, asked):
            assert reason in failure(results, uri)
        assert last < len(asked) <= last + 2  # it was asked again once, and not for each run
    results.uri = server
    counts = results.track()
    assert counts["unchanged"] > 0
    assert counts["replaced"] > 0
    assert results.is_complete()
    results.assert_as_written()
    assert results.track() == {"unchanged": 6}


def test_a_server_that_never_answers_is_given_up_within_a_minute():
    requests = 1 + int(sync.ENVIRONMENT["MLFLOW_HTTP_REQUEST_MAX_RETRIES"])
    pauses = sum(2 * 2**retry for retry in range(1, requests - 1))  # none before the first retry
    jitter = requests - 1
    assert requests * int(sync.ENVIRONMENT["MLFLOW_HTTP_REQUEST_TIMEOUT"]) + pauses + jitter < 55
    assert sync.ENVIRONMENT["MLFLOW_HTTP_RESPECT_RETRY_AFTER_HEADER"] == "false"


def test_the_error_about_a_server_that_does_not_answer_shows_no_password(results, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with socket.socket() as closed:  # bound, but nobody listens
        closed.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{closed.getsockname()[1]}"
        with pytest.raises(TrackingError) as stopped:
            sync.track(results.study, f"http://me:secret@{address}")
    assert f"tracking to http://{address} failed" in str(stopped.value)
    assert "secret" not in str(stopped.value)
