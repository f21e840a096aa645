"""The local database of MLflow: made whole or not at all, checked before use, one writer at a time.

The database is derived from the result files. If it is damaged, it can be deleted and made again.
MLflow itself would try a damaged or locked database for minutes, without a word.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from dmlbench.utils.errors import TrackingError
from dmlbench.utils.locks import try_lock

MAKES_NUMBERS = False

DATABASE = Path("results/mlflow.db")
LOCK_SECONDS = 60
"""How long an import waits for another program that writes to the database."""
WRITER_SECONDS = 3600
"""How long an import waits for the imports before it."""


def database_file(uri: str) -> Path | None:
    """The file of a local database; None for any other place."""
    return Path(uri.removeprefix("sqlite:///")).resolve() if uri.startswith("sqlite:///") else None


def make_ready(file: Path) -> None:
    """Make sure that `file` is a database that this MLflow can write to; create it if need be.

    Raises:
        TrackingError: it is no such database, it is damaged, or it stays locked.
        OSError: it cannot be created.
    """
    if file.exists() and not file.is_file():
        raise TrackingError(f"{file} is no file")
    tables, versions = _read_tables(file) if file.exists() else (set(), [])
    if not tables:
        _create(file)
    elif not {"experiments", "runs", "tags"} <= tables:
        raise TrackingError(f"{file} belongs to another program: it lacks the tables of MLflow")
    else:
        _check_version(file, versions)


def _read_tables(file: Path) -> tuple[set[str], list[str]]:
    """The names of the tables in `file`, once no other program writes to it, and their version."""
    try:
        uri = f"{file.as_uri()}?mode=rw"
        with contextlib.closing(sqlite3.connect(uri, timeout=0, uri=True)) as database:
            _wait(partial(_is_free, database), LOCK_SECONDS, f"another program has locked {file}")
            (damage,) = database.execute("pragma quick_check(1)").fetchone()
            if damage != "ok":
                raise sqlite3.DatabaseError(" ".join(damage.split()))
            query = "select name from sqlite_master where type = 'table'"
            tables = {name for (name,) in database.execute(query)}
            if "alembic_version" not in tables:
                return tables, []
            rows = database.execute("select version_num from alembic_version")
            return tables, [version for (version,) in rows]
    except sqlite3.Error as error:
        raise TrackingError(f"{file} cannot be used: {error}") from None


def _is_free(database: sqlite3.Connection) -> bool:
    """Whether no other program writes to `database`."""
    try:
        database.execute("begin immediate")
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY:
            return False
        raise
    database.rollback()
    return True


def _create(file: Path) -> None:
    """Create the database `file`: under another name, so that no half-made one stays here."""
    from mlflow import MlflowClient

    new = file.with_name(f".{file.name}.new")
    journal = new.with_name(f"{new.name}-journal")

    def remove() -> None:
        for path in (new, journal):
            path.unlink(missing_ok=True)

    remove()  # what a killed import left; there is one writer at a time
    try:
        new.touch()
        with fast_commits():
            MlflowClient(f"sqlite:///{new}")
        with new.open("rb+") as content:
            os.fsync(content.fileno())
        new.replace(file)
    finally:
        remove()


def _check_version(file: Path, versions: Sequence[str]) -> None:
    """Make sure that the tables are those of the installed MLflow."""
    import mlflow
    from alembic.script import ScriptDirectory

    migrations = Path(mlflow.__file__).parent / "store/db_migrations"
    head = ScriptDirectory(str(migrations)).get_current_head()
    if versions == [head]:
        return
    if not versions:
        raise TrackingError(f"{file} is half-made: an import was killed while it made the tables")
    raise TrackingError(
        f"{file} is of another version of MLflow: its tables have version {', '.join(versions)}, "
        f"those of MLflow {mlflow.__version__} have {head}. For older tables: `mlflow db upgrade`"
    )


def _wait(is_free: Callable[[], bool], seconds: float, problem: str) -> None:
    """Wait until `is_free()`; say so once on the standard error.

    Raises:
        TrackingError: it is not free after `seconds`.
    """
    if is_free():
        return
    print(f"{problem}: waiting for it, up to {seconds:g} s", file=sys.stderr, flush=True)
    deadline = time.monotonic() + seconds
    while not is_free():
        if time.monotonic() > deadline:
            raise TrackingError(f"{problem}, for more than {seconds:g} s: end it")
        time.sleep(0.1)


@contextlib.contextmanager
def single_writer(uri: str) -> Iterator[None]:
    """Wait for other imports to the same place: two that write at once would make runs twice.

    Raises:
        TrackingError: they take more than WRITER_SECONDS.
    """
    file = database_file(uri) or DATABASE
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.with_name(f"{file.name}.lock").open("a") as lock:
        _wait(partial(try_lock, lock, file), WRITER_SECONDS, "another import is running")
        yield


@contextlib.contextmanager
def fast_commits() -> Iterator[None]:
    """Do not wait for the disk after each commit, of which MLflow makes ten for each run.

    This is only for our own database. If the power fails, delete it and import again.
    """
    from sqlalchemy import event
    from sqlalchemy.engine import Engine

    def switch_sync_off(connection: Any, _: Any) -> None:
        connection.execute("PRAGMA synchronous=OFF")

    event.listen(Engine, "connect", switch_sync_off)
    try:
        yield
    finally:
        event.remove(Engine, "connect", switch_sync_off)
