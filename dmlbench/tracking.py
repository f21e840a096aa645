"""Results of a study -> MLflow: the study is an experiment, a cell of its grid a run, a seed a
child run of that.

The result files are the truth, and what MLflow holds is made from them after the fact: trainers
never import mlflow. A run's identity is its path (tag `dmlbench.path`); its digest (`dmlbench.
digest`) is over all that is written of it, keys included. So an import can be repeated: equal
digests change nothing, another one replaces the run, and a run without a result in the plan goes
to MLflow's bin. The digest is written last: a run that an interrupted import left is replaced.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import sqlite3
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dmlbench.records import SPLITS, Entry, entries, read_results

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run as Tracked

    from dmlbench.study import Study

DATABASE = Path("results/mlflow.db")
ARTEFACTS = Path("results/mlartifacts")
PATH, DIGEST = "dmlbench.path", "dmlbench.digest"
PARENT = "mlflow.parentRunId"
HELD = f"""
select path.value, above.value, digest.value
from experiments join runs using (experiment_id)
join tags path on path.run_uuid = runs.run_uuid and path.key = '{PATH}'
left join tags digest on digest.run_uuid = runs.run_uuid and digest.key = '{DIGEST}'
left join tags parent on parent.run_uuid = runs.run_uuid and parent.key = '{PARENT}'
left join runs parents on parents.run_uuid = parent.value and parents.lifecycle_stage = 'active'
left join tags above on above.run_uuid = parents.run_uuid and above.key = '{PATH}'
where experiments.name = ? and experiments.lifecycle_stage = 'active'
and runs.lifecycle_stage = 'active'
"""
"""Path, parent's path and digest of each run that an import made, in MLflow's tables."""


def tracking_uri() -> str:
    """Where the runs go: MLFLOW_TRACKING_URI if set, else a database among the results."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{DATABASE}"


def track(study: Study, uri: str) -> str:
    """Make the experiment of `study` at `uri` equal to its result files, and say what was done.

    Results that are missing or of another key than planned are left out: their cells wait.

    Raises:
        SystemExit: MLflow cannot be reached, or refuses.
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")  # 14 s; MLflow's own: minutes
    with _one_writer(uri):
        results = read_results(study)
        wanted = list(entries(study, results))
        done = Counter(unchanged=len(wanted))
        if not _holds(uri, study, wanted):
            from mlflow.exceptions import MlflowException

            try:
                with _derived(uri):
                    done = _synchronise(study, uri, wanted)
            except MlflowException as error:
                raise SystemExit(_shown(f"dmlbench: tracking to {uri} failed: {error}")) from None
    counts = ", ".join(f"{done[what]} {what}" for what in ("created", "replaced", "unchanged"))
    return (
        f"{study.name}: {len(results)} of {len(study.runs)} results are at {_shown(uri)}: "
        f"{counts}, {done['deleted']} deleted"
    )


def _holds(uri: str, study: Study, wanted: Sequence[Entry]) -> bool:
    """Whether a database at `uri` holds exactly `wanted`, each below its parent. It is asked
    without MLflow, whose import takes longer than all the rest; False means: ask MLflow."""
    if not uri.startswith("sqlite:///"):
        return False
    file = Path(uri.removeprefix("sqlite:///")).resolve()
    try:
        with contextlib.closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True)) as database:
            held = Counter(database.execute(HELD, [study.name]))
    except sqlite3.Error:  # there is none yet, or its tables are others
        return False
    return held == Counter((entry.path, entry.parent, entry.digest) for entry in wanted)


def _synchronise(study: Study, uri: str, wanted: Sequence[Entry]) -> Counter[str]:
    """Make the experiment hold `wanted`, in which parents stand before their children."""
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    experiment = _experiment(client, study, uri)
    known, surplus = _tracked(client, experiment)
    done: Counter[str] = Counter()
    ids: dict[str, str] = {}
    for entry in wanted:
        old = known.pop(entry.path, None)
        parent = ids[entry.parent] if entry.parent else None
        if old and old.data.tags.get(DIGEST) == entry.digest:
            what, ids[entry.path] = "unchanged", old.info.run_id
            if old.data.tags.get(PARENT) != parent:  # which is a new run
                client.set_tag(old.info.run_id, PARENT, parent)
        else:
            if old:
                client.delete_run(old.info.run_id)
            what = "replaced" if old else "created"
            ids[entry.path] = _write(client, experiment, entry, parent)
            print(f"{entry.path}: {what}", file=sys.stderr)
        done[what] += 1
    for run in [*surplus, *known.values()]:
        client.delete_run(run.info.run_id)
        done["deleted"] += 1
    return done


def _write(client: MlflowClient, experiment: str, entry: Entry, parent: str | None) -> str:
    """Make the run of `entry`; its id."""
    from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param

    record = entry.record()
    tags = {**record.tags, PATH: entry.path, **({PARENT: parent} if parent else {})}
    run = client.create_run(
        experiment, start_time=record.start, tags=tags, run_name=record.name
    ).info.run_id
    params = [Param(name, value) for name, value in record.params.items()]
    metrics = [Metric(*point) for point in record.points]
    client.log_batch(run, params=params, metrics=metrics)  # in parts that MLflow takes at once
    if record.datasets:
        inputs = [
            DatasetInput(Dataset(**dataset), [InputTag("mlflow.data.context", split)])
            for split, dataset in zip(SPLITS, record.datasets, strict=True)
        ]
        client.log_inputs(run, inputs)
    for file, folder in record.artefacts:
        client.log_artifact(run, str(file), folder or None)
    client.set_terminated(run, "FAILED" if record.failed else "FINISHED", end_time=record.end)
    client.set_tag(run, DIGEST, entry.digest)  # last: all of it is there
    return run


def _experiment(client: MlflowClient, study: Study, uri: str) -> str:
    """Id of the study's experiment; made where missing, fetched from the bin where deleted."""
    found = client.get_experiment_by_name(study.name)
    if found is None:
        # else MLflow takes ./mlruns; a server has a place of its own
        local = uri.startswith("sqlite:")
        location = (ARTEFACTS / study.name).resolve().as_uri() if local else None
        return client.create_experiment(study.name, artifact_location=location)
    if found.lifecycle_stage == "deleted":
        client.restore_experiment(found.experiment_id)
    return found.experiment_id


def _tracked(client: MlflowClient, experiment: str) -> tuple[dict[str, Tracked], list[Tracked]]:
    """The runs that an import made, by path, and what is there twice. Others' runs are not ours."""
    known: dict[str, Tracked] = {}
    surplus: list[Tracked] = []
    token = None
    while True:
        page = client.search_runs(
            [experiment], f"tags.`{PATH}` != ''", max_results=1000, page_token=token
        )
        for run in page:
            if known.setdefault(run.data.tags[PATH], run) is not run:
                surplus.append(run)
        if not (token := page.token):
            return known, surplus


@contextlib.contextmanager
def _one_writer(uri: str) -> Iterator[None]:
    """Wait for another import to the same place: two that make one database break it."""
    file = Path(uri.removeprefix("sqlite:///")) if uri.startswith("sqlite:///") else DATABASE
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.with_name(f"{file.name}.lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("another import is at work: waiting for it", file=sys.stderr, flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def _derived(uri: str) -> Iterator[None]:
    """Do not wait for the disk after each of MLflow's ten commits a run, where the database is
    our own: if the power fails now, delete it and import again."""
    from sqlalchemy import event
    from sqlalchemy.engine import Engine

    def hurry(connection: Any, _: Any) -> None:
        connection.execute("PRAGMA synchronous=OFF")

    if uri != f"sqlite:///{DATABASE}":
        yield
        return
    event.listen(Engine, "connect", hurry)
    try:
        yield
    finally:
        event.remove(Engine, "connect", hurry)


def _shown(text: str) -> str:
    """`text` with its addresses less their users and passwords."""
    return re.sub(r"(?<=://)[^/\s]*@", "", text)
