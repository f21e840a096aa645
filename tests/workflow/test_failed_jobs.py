"""`status` names the jobs that failed, until somebody has repaired them."""

import fcntl
import json
import os
import platform
import threading
import time
from pathlib import Path

import pytest

from dmlbench.datasets.archives.hub import LISTING
from dmlbench.datasets.archives.spec import HubFiles
from dmlbench.study.study import check_study
from dmlbench.workflow import study_lock
from dmlbench.workflow.failed_jobs import _were_put_in_place, find_failed_jobs
from dmlbench.workflow.status import format_statuses, read_statuses
from dmlbench.workflow.study_lock import find_worker, lock_study
from tests.result_edits import edit_result

DATA = Path("data")
WEIGHTS = "test_resnet.r160_in1k"
RUN = "letters/tiny/proxy_anchor/seed0"


@pytest.fixture
def study(tiny, tmp_path, monkeypatch):
    """A study with every kind of job: archives, weights, two data sets, tracking."""
    monkeypatch.chdir(tmp_path)
    tiny["datasets"]["drawings"] = {"type": "omniglot"}
    tiny["plan"]["datasets"] = ["letters", "drawings"]
    tiny["backbones"]["tiny"]["pretrained"] = True
    tiny["tracking"] = True
    return check_study(tiny, "tiny")


@pytest.fixture
def locked(study):
    """The study, while a process works on it."""
    lock_study(study)
    yield study
    while study_lock._locks:
        study_lock._locks.pop().close()


def store_of(study, kind):
    (name,) = (name for name in study.stores if name.startswith(kind))
    return name


def jobs(study):
    """Name of each kind of job -> its log and its output."""
    letters, drawings = store_of(study, "glyphs"), store_of(study, "omniglot")
    files = study.files
    return {
        f"fetch_archives {drawings}": (
            files.logs / f"data/{drawings}.archives.log",
            DATA / f"stores/{drawings}/archives.json",
        ),
        f"pack_store {letters}": (
            files.logs / f"data/{letters}.log",
            DATA / f"stores/{letters}/manifest.json",
        ),
        f"fetch_weights {WEIGHTS}": (
            files.logs / f"weights/{WEIGHTS}.log",
            DATA / f"weights/{WEIGHTS}.safetensors",
        ),
        "build_leaderboard": (files.logs / "leaderboard.log", files.table),
        "track": (files.logs / "tracking.log", files.tracked),
    }


def write(file, text="x"):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def failures(study):
    return {job.name: job.reason for job in find_failed_jobs(study, DATA)}


def test_each_job_that_failed_is_named_with_its_reason_until_its_output_is_there(study):
    assert failures(study) == {}
    expected = {}
    for name, (log, _) in jobs(study).items():
        write(log, f"begins\ndmlbench: {name} is broken\n")
        expected[name] = f"{name} is broken"
        assert failures(study) == expected
    for name, (_, output) in jobs(study).items():
        write(output)
        del expected[name]
        assert failures(study) == expected


def test_a_job_that_succeeded_is_no_failure_even_if_its_output_was_removed(study):
    for log, _ in jobs(study).values():
        write(log, "dmlbench: old\ndmlbench: done\n")
    assert failures(study) == {}


def test_a_job_that_was_killed_is_named_with_its_last_line(study):
    for log, _ in jobs(study).values():
        write(log, "20 of 80 images\n")
    reason = "it ended without a message; its last line: 20 of 80 images"
    assert failures(study) == dict.fromkeys(jobs(study), reason)
    write(study.files.tracking_log, "")
    assert failures(study)["track"] == "it ended without a message"


def test_a_job_may_still_run_while_the_study_is_worked_on(locked):
    for log, _ in jobs(locked).values():
        write(log, "20 of 80 images\n")
    assert failures(locked) == {}
    write(locked.files.tracking_log, "dmlbench: no server\n")
    assert failures(locked) == {"track": "no server"}


def test_a_failure_of_an_earlier_call_is_tried_again_by_this_one(locked):
    write(locked.files.tracking_log, "dmlbench: no server\n")
    earlier = locked.files.lock.stat().st_mtime - 10
    os.utime(locked.files.tracking_log, (earlier, earlier))
    assert failures(locked) == {}


@pytest.mark.parametrize(("quiet", "failed"), [(60, False), (420, True)])
def test_a_job_of_another_machine_may_run_until_it_is_quiet(study, quiet, failed):
    write(study.files.lock, "process 7 on node7, since yesterday,\n")
    write(study.files.tracking_log, "20 of 80\n")
    before = time.time() - quiet
    os.utime(study.files.tracking_log, (before, before))
    assert ("track" in failures(study)) == failed


def test_a_study_without_tracking_has_no_failed_import(study, tiny):
    write(study.files.tracking_log, "dmlbench: no server\n")
    assert failures(check_study(tiny | {"tracking": False}, "tiny")) == {}


def test_archives_that_were_put_in_place_later_end_the_failure_of_their_download(study):
    store = store_of(study, "omniglot")
    names = ("images_background.zip", "images_evaluation.zip")
    write(DATA / "archives" / names[0])
    write(study.files.fetching_log(store), "dmlbench: a checksum is wrong\n")
    future = time.time() + 5  # the archives are there since before the log was written
    os.utime(study.files.fetching_log(store), (future, future))
    write(DATA / "archives" / names[1])
    assert len(failures(study)) == 1
    past = time.time() - 5
    os.utime(study.files.fetching_log(store), (past, past))
    assert failures(study) == {}
    (DATA / "archives" / names[1]).unlink()
    assert len(failures(study)) == 1


def test_files_of_a_hub_that_were_copied_later_end_the_failure_of_their_download(study, tmp_path):
    hub = HubFiles("owner/birds", "c0ffee", ("*.parquet",))
    folder, log = hub.folder(DATA / "archives"), tmp_path / "log"
    write(log, "dmlbench: no internet\n")
    past = time.time() - 5
    os.utime(log, (past, past))
    assert not _were_put_in_place(hub, DATA / "archives", log)
    listing = {"files": {"a.parquet": {"size": 1, "checksum": "md5:0"}}}
    write(folder / LISTING, json.dumps(listing))
    assert not _were_put_in_place(hub, DATA / "archives", log)
    write(folder / "a.parquet")
    assert _were_put_in_place(hub, DATA / "archives", log)


def test_packed_images_need_no_archives(study):
    store = store_of(study, "omniglot")
    write(study.files.fetching_log(store), "dmlbench: no internet\n")
    write(DATA / f"stores/{store}/manifest.json")
    assert failures(study) == {}


def test_status_shows_the_reason_and_the_log(study):
    message = "\n".join(["dmlbench: it cannot be downloaded:", *map(str, range(20))])
    log = study.files.fetching_log(store_of(study, "omniglot"))
    write(log, message)
    lines = format_statuses(study, read_statuses(study), find_failed_jobs(study, DATA))
    assert lines[1:] == [
        "",
        "These jobs failed; the same `snakemake` call tries them again:",
        f"  fetch_archives {store_of(study, 'omniglot')}: it cannot be downloaded:",
        *(f"    {line}" for line in range(8)),
        "    ... and 12 more lines",
        f"    log: {log}",
    ]


def reason_of_run(study):
    return {status.run.path: status for status in read_statuses(study)}[RUN].reason


def test_a_scoring_or_training_that_wrote_no_result_is_a_failed_run(study, write_results):
    files = study.files.run(RUN)
    write(files.train_log, "dmlbench: this job: \n  was planned under key a")
    reason = f"training: this job: was planned under key a (see {files.train_log})"
    assert reason_of_run(study) == reason
    write(files.train_log, "step 7\n")  # it was killed: its state says more
    assert reason_of_run(study) == ""
    write_results(study, RUN, stage="run.json")
    write(files.evaluate_log, "dmlbench: MemoryError: \n")
    assert reason_of_run(study) == f"scoring: MemoryError: (see {files.evaluate_log})"
    write(files.evaluate_log, "")
    assert reason_of_run(study).startswith("scoring: it ended without a message")
    write(files.evaluate_log, "dmlbench: done\n")
    assert reason_of_run(study) == ""
    write_results(study, RUN)
    assert reason_of_run(study) == ""


def test_the_failure_of_an_older_result_does_not_count(study, write_results, tiny):
    files = study.files.run(RUN)
    write(files.evaluate_log, "dmlbench: no space\n")
    write(files.train_log, "dmlbench: no space\n")
    before = time.time() - 10
    for log in (files.evaluate_log, files.train_log):
        os.utime(log, (before, before))
    write_results(study, RUN, stage="run.json")
    assert reason_of_run(study) == ""
    edit_result(files.run, train_key="another")
    assert reason_of_run(study) == ""


def test_the_process_that_works_on_a_study_is_found(study, locked):
    assert find_worker(study).is_sure
    while study_lock._locks:
        study_lock._locks.pop().close()
    assert platform.node() in study.files.lock.read_text()
    assert find_worker(study) is None


def test_looking_at_a_study_does_not_keep_a_process_from_working_on_it(study, monkeypatch):
    write(study.files.lock, "")
    with study.files.lock.open() as looking:
        fcntl.flock(looking, fcntl.LOCK_SH)
        release = threading.Timer(0.1, fcntl.flock, (looking, fcntl.LOCK_UN))
        release.start()
        lock_study(study)
        release.join()
    assert find_worker(study).is_sure
    while study_lock._locks:
        study_lock._locks.pop().close()
