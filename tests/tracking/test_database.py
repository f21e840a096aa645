"""The local database is made whole or not at all, and a damaged or locked one is named quickly."""

import contextlib
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import yaml
from mlflow import MlflowClient

from dmlbench.study.study import check_study
from dmlbench.tracking import database, sync
from dmlbench.utils.errors import TrackingError

ROOT = Path(__file__).parents[2]
FILE = Path("results/mlflow.db")
ADVICE = (
    "The results and the table are complete without it. `snakemake track` tries again; if the "
    "file is damaged, delete it: it is made anew from the results."
)


def failure(results):
    """The message of an import that fails, and the seconds that it took."""
    start = time.monotonic()
    with pytest.raises(TrackingError) as stopped:
        sync.track(results.study, results.uri)
    return str(stopped.value), time.monotonic() - start


def leave_half():
    """The database of an import that was killed while it made the tables."""
    with contextlib.closing(sqlite3.connect(FILE)) as half, half:
        half.execute("drop table alembic_version")


def leave_part():
    FILE.unlink()
    with contextlib.closing(sqlite3.connect(FILE)) as part, part:
        part.execute("create table experiments (experiment_id integer)")


def have_version(version):
    def change():
        with contextlib.closing(sqlite3.connect(FILE)) as other, other:
            other.execute("update alembic_version set version_num = ?", [version])

    return change


def become_folder():
    FILE.unlink()
    FILE.mkdir()


def become_pipe():
    FILE.unlink()
    os.mkfifo(FILE)


def truncate(share):
    return lambda: os.truncate(FILE, int(FILE.stat().st_size * share) + 100)


def overwrite(start, size):
    def change():
        with FILE.open("r+b") as content:
            content.seek(start)
            content.write(os.urandom(size))

    return change


DAMAGE = {
    "random": (lambda: FILE.write_bytes(os.urandom(50_000)), "file is not a database"),
    "text": (lambda: FILE.write_text("no database\n" * 999), "file is not a database"),
    "head lost": (overwrite(0, 100), "file is not a database"),
    "half of it": (truncate(0.5), "malformed"),
    "one page": (truncate(0), "malformed"),
    "random pages": (overwrite(8192, 100_000), "{file} cannot be used: "),
    "folder": (become_folder, "{file} is no file"),
    "pipe": (become_pipe, "{file} is no file"),
    "half-made": (leave_half, "{file} is half-made: an import was killed"),
    "other program": (leave_part, "{file} belongs to another program"),
    "older": (have_version("451aebb31d03"), "its tables have version 451aebb31d03"),
    "newer": (have_version("ffffffffffff"), "its tables have version ffffffffffff"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_database_that_cannot_be_used_is_named_quickly_and_kept(results, damage):
    change, reason = DAMAGE[damage]
    change()
    before = FILE.read_bytes() if FILE.is_file() else None
    message, seconds = failure(results)
    file = Path.cwd() / FILE
    assert message.startswith(f"tracking to {results.uri} failed: {file} ")
    assert reason.format(file=file) in message
    assert message.endswith(ADVICE)
    assert seconds < 15
    if before:
        assert FILE.read_bytes() == before


@pytest.mark.parametrize("content", [None, b""], ids=["missing", "empty"])
def test_a_new_database_appears_whole(results, monkeypatch, content):
    FILE.unlink()
    if content is not None:
        FILE.write_bytes(content)
    during = []

    def copy_template(uri):
        new = Path(uri.removeprefix("sqlite:///"))
        during.append((new.parent, FILE.exists() and FILE.stat().st_size))
        shutil.copy(results.template, new)

    with monkeypatch.context() as patch:
        patch.setattr("mlflow.MlflowClient", copy_template)
        database.make_ready(FILE.resolve())
    assert during == [(FILE.resolve().parent, False if content is None else 0)]
    assert FILE.read_bytes() == results.template.read_bytes()
    assert [path.name for path in FILE.parent.glob("*mlflow*")] == [FILE.name]


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_an_import_that_fails_while_it_makes_the_database_leaves_none(results, monkeypatch, error):
    FILE.unlink()

    def fail(uri):
        Path(uri.removeprefix("sqlite:///")).write_bytes(results.template.read_bytes()[:9999])
        raise error

    with monkeypatch.context() as patch:
        patch.setattr("mlflow.MlflowClient", fail)
        with pytest.raises((KeyboardInterrupt, TrackingError)):
            sync.track(results.study, results.uri)
    assert not [*FILE.parent.glob("*mlflow.db*[!k]")]  # only the lock


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [0.3, 1.0, 2.0])
def test_after_a_kill_while_the_database_is_made_the_next_import_is_complete(results, seconds):
    FILE.unlink()
    Path("study.yaml").write_text(yaml.safe_dump(results.settings))
    process = start()
    new = FILE.with_name(f".{FILE.name}.new")
    while not new.exists() and process.poll() is None:
        time.sleep(0.01)
    time.sleep(seconds)
    process.kill()
    process.communicate()
    results.track()
    assert results.is_complete()
    assert not new.exists()


def start():
    """Start `dmlbench track study.yaml`."""
    return subprocess.Popen(
        [sys.executable, "-m", "dmlbench", "track", "study.yaml"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@contextlib.contextmanager
def locked():
    """Another program that is writing to the database; call what it gives to end that."""
    with contextlib.closing(sqlite3.connect(FILE, check_same_thread=False)) as other:
        other.execute("begin exclusive")
        yield other.rollback


def test_an_import_waits_for_another_program_that_writes(results, capfd):
    with locked() as end:
        timer = threading.Timer(0.7, end)
        timer.start()
        assert results.track() == {"created": 6}
        timer.join()
    file = Path.cwd() / FILE
    line = f"another program has locked {file}: waiting for it, up to 60 s\n"
    assert capfd.readouterr().err.count(line) == 1


def test_a_database_that_stays_locked_is_given_up_with_one_message(results, monkeypatch):
    monkeypatch.setattr(database, "LOCK_SECONDS", 0.3)
    with locked():
        message, seconds = failure(results)
    problem = f"another program has locked {Path.cwd() / FILE}, for more than 0.3 s: end it"
    assert message == f"tracking to {results.uri} failed: {problem}. {ADVICE}"
    assert seconds < 10
    assert results.track() == {"created": 6}


def test_an_import_that_does_not_end_is_not_waited_for_without_limit(results, monkeypatch):
    monkeypatch.setattr(database, "WRITER_SECONDS", 0.2)
    with database.single_writer(results.uri):
        message, _ = failure(results)
    assert "another import is running, for more than 0.2 s: end it" in message
    assert results.track() == {"created": 6}


def test_four_imports_of_four_studies_at_once_lose_and_double_nothing(results):
    names = ("first", "second", "third", "fourth")
    studies = [check_study(results.settings | {"study": name}, name) for name in names]
    for study in studies:
        shutil.copytree(results.study.folder, study.folder)
    problems = []

    def track(study):
        try:
            sync.track(study, results.uri)
        except Exception as error:
            problems.append(error)

    threads = [threading.Thread(target=track, args=(study,)) for study in studies]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    client = MlflowClient(results.uri)
    for study in studies:
        experiment = client.get_experiment_by_name(study.name).experiment_id
        paths = [run.data.tags["dmlbench.path"] for run in client.search_runs([experiment])]
        cells = {path.rpartition("/")[0] for path in study.runs}
        assert sorted(paths) == sorted({*cells, *study.runs})
