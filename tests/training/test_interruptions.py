"""Whatever ends a job, its training goes on from there, and ends with the same bits."""

import errno
import json
import os
import re
import resource
import subprocess
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest
import safetensors.torch
import torch

from dmlbench.study.study import check_study
from dmlbench.training import job, process, run_state
from dmlbench.training.resumable_job import TRY_AGAIN
from dmlbench.training.time_limit import TimeLimit, timings
from dmlbench.utils.errors import DiskError

PATH = "letters/tiny/softtriple/seed0"


@pytest.fixture
def study(tiny, tmp_path, monkeypatch, data_folder):
    """A study of one training of 30 steps, with a model and an artefact."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("dmlbench.training.checkpoint.MIN_INTERVAL", 0.0)  # save at each step
    monkeypatch.setattr("dmlbench.training.checkpoint.MAX_TIME_SHARE", 1.0)
    for name in ("start", "step", "save"):
        monkeypatch.setattr(timings, name, None)  # as in a new process
    tiny["recipe"]["epochs"] = 2
    tiny["plan"] |= {"losses": ["softtriple"], "controls": []}
    return check_study(tiny | {"keep_model": True}, "tiny")


@pytest.fixture
def run_job(study, data_folder):
    """A function that runs the job; it returns the exit code and run.json."""

    def run(minutes=None):
        files = study.files.run(PATH)
        code = job.train_job(study, study.runs[PATH], data_folder / "stores", minutes)
        return code, json.loads(files.run.read_text()) if files.run.is_file() else None

    return run


@pytest.fixture(scope="module")
def undisturbed():
    return {}


@pytest.fixture
def embeddings(study, run_job, undisturbed, tmp_path):
    """The embeddings of a training that nobody disturbed; made once."""
    if not undisturbed:
        assert run_job()[0] == 0
        undisturbed["embeddings"] = read_embeddings(study)
        (tmp_path / "results").rename(tmp_path / "undisturbed")
    return undisturbed["embeddings"]


def read_embeddings(study):
    with np.load(study.files.run(PATH).embeddings) as file:
        return file["embeddings"]


def test_under_a_limit_of_a_few_steps_a_training_finishes_with_the_same_bits(
    study, run_job, embeddings, monkeypatch, capsys
):
    codes = []
    while not codes or codes[-1]:
        asked = iter(range(1000))
        monkeypatch.setattr(TimeLimit, "is_near", property(lambda limit: next(asked) >= 9))  # noqa: B023
        code, _ = run_job(minutes=60)
        codes.append(code)
    assert codes == [TRY_AGAIN] * 3 + [0]
    assert np.array_equal(read_embeddings(study), embeddings)
    output = capsys.readouterr().out
    assert "timeout: saved at step 8 of 30; the time limit of this job: 1 h 00 min" in output
    assert [*map(int, re.findall(r"^epoch (\d)/2", output, re.MULTILINE))] == [1, 2]
    assert not study.files.run(PATH).state.exists()


def test_a_limit_that_is_over_before_the_first_step_is_said_with_its_numbers(run_job):
    assert [run_job(minutes=1e-6)[0] for _ in range(2)] == [TRY_AGAIN] * 2
    code, result = run_job(minutes=1e-6)
    assert (code, result["status"]) == (0, "timeout")
    assert result["error"]["message"] == (
        "2 attempts in a row ended without progress. The last one: its time limit of 6e-05 s was "
        "over before its first step. Raise `max_minutes` or `time_factor` under `cluster:` of the "
        "study"
    )


def full(*arguments, **options):
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize(
    ("module", "function", "place"),
    [
        (torch, "save", "state"),
        (pq, "write_table", "runs"),
        (np, "savez", "runs"),
        (safetensors.torch, "save_file", "runs"),
        (job, "write_json", "runs"),
        (run_state, "write_json", "runs"),
    ],
)
def test_a_full_disk_is_a_status_and_the_next_call_goes_on(
    study, run_job, embeddings, monkeypatch, module, function, place
):
    write = getattr(module, function)
    asked = iter(range(1000))

    def fail_later(*arguments, **options):
        # the small results of a failure find room
        return full() if next(asked) == 0 else write(*arguments, **options)

    monkeypatch.setattr(module, function, fail_later)
    code, result = run_job()
    files = study.files.run(PATH)
    assert (code, result["status"]) == (0, "disk_full")
    message = result["error"]["message"]
    start = f"results/tiny/{place}/{PATH}: the disk is full (No space left on device; free: "
    assert message.startswith(start)
    assert message.endswith("Make room there, and ask again: the work goes on.")
    assert not (files.state / "attempts.json").exists()
    assert not list(files.folder.glob(".*"))
    if place == "runs" and module is not run_state:
        assert (files.state / "checkpoint.pt").is_file()
    assert run_job()[1]["status"] == "ok"
    assert np.array_equal(read_embeddings(study), embeddings)


def test_a_disk_without_room_for_any_result_is_one_message_and_costs_no_attempt(
    study, run_job, embeddings, monkeypatch
):
    with monkeypatch.context() as without_room:
        without_room.setattr(os, "fsync", full)
        for _ in range(4):
            with pytest.raises(DiskError, match=r"results/tiny/.*: the disk is full"):
                run_job()
    code, result = run_job()
    assert (code, result["status"]) == (0, "ok")
    assert np.array_equal(read_embeddings(study), embeddings)


def test_a_broken_disk_is_a_status_of_its_own(study, run_job, monkeypatch):
    def fail(*arguments):
        raise OSError(errno.EIO, "Input/output error", "/data/stores/x/images.bin")

    monkeypatch.setattr(job, "_compute", fail)
    code, result = run_job()
    assert (code, result["status"]) == (0, "disk_error")
    expected = "/data/stores/x: the disk does not work (Input/output error)."
    assert result["error"]["message"].startswith(expected)


def test_a_damaged_checkpoint_is_said_and_the_one_before_is_continued(
    study, run_job, embeddings, monkeypatch, capsys
):
    asked = iter(range(1000))
    with monkeypatch.context() as limited:
        limited.setattr(TimeLimit, "is_near", property(lambda limit: next(asked) >= 13))
        assert run_job(minutes=60)[0] == TRY_AGAIN
    checkpoint = study.files.run(PATH).state / "checkpoint.pt"
    content = bytearray(checkpoint.read_bytes())
    content[len(content) // 2] ^= 16
    checkpoint.write_bytes(content)
    assert run_job()[1]["status"] == "ok"
    output = capsys.readouterr().out
    assert "checkpoint.pt: damaged, and not used: its bytes are not those" in output
    assert "resumed at step 11 of 30" in output
    assert np.array_equal(read_embeddings(study), embeddings)


LOG = """
import sys; from pathlib import Path
from dmlbench.training.process import begin_log, survive_full_log
survive_full_log()
begin_log(Path(sys.argv[1]), sys.argv[2])
for line in sys.argv[3:]:
    print(line, flush=True)
print("to stderr", file=sys.stderr)
"""


def append_log(log, key, *lines, **options):
    with log.open("a") as file:
        command = [sys.executable, "-c", LOG, str(log), key, *lines]
        return subprocess.run(command, stdout=file, stderr=file, **options).returncode


def test_the_log_keeps_earlier_attempts_of_the_same_key(tmp_path):
    log = tmp_path / "log.txt"
    assert append_log(log, "k", "first") == append_log(log, "k", "second") == 0
    lines = log.read_text().splitlines()
    assert lines[1:3] + lines[4:] == ["first", "to stderr", "second", "to stderr"]
    assert all(
        re.fullmatch(r"dmlbench: attempt of \S+ on \S+, process \d+, key k", line)
        for line in (lines[0], lines[3])
    )
    append_log(log, "other", "third")
    assert "second" not in log.read_text()
    assert "third" in log.read_text()


def test_a_full_disk_of_the_log_ends_no_training(tmp_path):
    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (200, 200))

    log = tmp_path / "log.txt"
    assert append_log(log, "k", *["x" * 50] * 20, preexec_fn=limit) == 0
    assert log.stat().st_size == 200


def test_what_another_process_prints_is_no_log(tmp_path, capsys):
    (tmp_path / "log.txt").write_text("dmlbench: attempt of yesterday, key other\n")
    process.begin_log(tmp_path / "log.txt", "k")
    assert "yesterday" in (tmp_path / "log.txt").read_text()
    assert ", key k\n" in capsys.readouterr().out
