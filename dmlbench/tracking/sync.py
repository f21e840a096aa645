"""Write the results of a study to MLflow.

The study is an experiment, a cell of its grid is a run, and a seed is a child run of its cell.

The result files are the truth. MLflow gets a copy of them afterwards: trainings never import
mlflow. The identity of a run is its path (tag `dmlbench.path`). Its digest (tag `dmlbench.digest`)
covers everything that is written of it, keys included. So an import can be repeated: an equal
digest changes nothing, another digest replaces the run, and a run without a result in the plan goes
to MLflow's bin. The digest is written last. So a run that was interrupted while it was written has
no digest, and is replaced.
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

from dmlbench.tracking.records import SPLITS, Entry, entries, read_available_results

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run as MlflowRun

    from dmlbench.study.study import Study

DATABASE = Path("results/mlflow.db")
ARTEFACTS = Path("results/mlartifacts")
PATH, DIGEST = "dmlbench.path", "dmlbench.digest"
PARENT = "mlflow.parentRunId"
RUNS_QUERY = f"""
select path.value, parent_path.value, digest.value
from experiments join runs using (experiment_id)
join tags path on path.run_uuid = runs.run_uuid and path.key = '{PATH}'
left join tags digest on digest.run_uuid = runs.run_uuid and digest.key = '{DIGEST}'
left join tags parent on parent.run_uuid = runs.run_uuid and parent.key = '{PARENT}'
left join runs parents on parents.run_uuid = parent.value and parents.lifecycle_stage = 'active'
left join tags parent_path on parent_path.run_uuid = parents.run_uuid and parent_path.key = '{PATH}'
where experiments.name = ? and experiments.lifecycle_stage = 'active'
and runs.lifecycle_stage = 'active'
"""
"""Path, parent's path and digest of each run that an import made, from MLflow's tables."""


def tracking_uri() -> str:
    """Where the runs go: MLFLOW_TRACKING_URI, or else a database in the results folder."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{DATABASE}"


def track(study: Study, uri: str) -> str:
    """Make the experiment of `study` at `uri` equal to the study's result files.

    Results that are missing or have another key than planned are left out.

    Returns:
        A line that says how many runs were created, replaced, unchanged and deleted.

    Raises:
        SystemExit: MLflow cannot be reached, or refuses.
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")  # 14 s; MLflow's default: minutes
    with _single_writer(uri):
        results = read_available_results(study)
        wanted = list(entries(study, results))
        actions = Counter(unchanged=len(wanted))
        if not _is_up_to_date(uri, study, wanted):
            from mlflow.exceptions import MlflowException

            try:
                with _fast_commits(uri):
                    actions = _synchronise(study, uri, wanted)
            except MlflowException as error:
                message = f"dmlbench: tracking to {uri} failed: {error}"
                raise SystemExit(_without_passwords(message)) from None
    counts = ", ".join(f"{actions[name]} {name}" for name in ("created", "replaced", "unchanged"))
    return (
        f"{study.name}: {len(results)} of {len(study.runs)} results are at "
        f"{_without_passwords(uri)}: {counts}, {actions['deleted']} deleted"
    )


def _is_up_to_date(uri: str, study: Study, wanted: Sequence[Entry]) -> bool:
    """Whether a database at `uri` holds exactly `wanted`, each run below its parent.

    This reads the database without mlflow, whose import takes longer than all the rest. False means
    that mlflow has to be asked.
    """
    if not uri.startswith("sqlite:///"):
        return False
    file = Path(uri.removeprefix("sqlite:///")).resolve()
    try:
        with contextlib.closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True)) as database:
            tracked = Counter(database.execute(RUNS_QUERY, [study.name]))
    except sqlite3.Error:  # there is no database yet, or its tables are others
        return False
    return tracked == Counter((entry.path, entry.parent, entry.digest) for entry in wanted)


def _synchronise(study: Study, uri: str, wanted: Sequence[Entry]) -> Counter[str]:
    """Make the experiment hold exactly `wanted`, where parents come before their children."""
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    experiment_id = _experiment_id(client, study, uri)
    tracked, duplicates = _find_tracked(client, experiment_id)
    actions: Counter[str] = Counter()
    run_ids: dict[str, str] = {}
    for entry in wanted:
        old = tracked.pop(entry.path, None)
        parent_id = run_ids[entry.parent] if entry.parent else None
        if old and old.data.tags.get(DIGEST) == entry.digest:
            action, run_ids[entry.path] = "unchanged", old.info.run_id
            if old.data.tags.get(PARENT) != parent_id:  # its parent was replaced
                client.set_tag(old.info.run_id, PARENT, parent_id)
        else:
            if old:
                client.delete_run(old.info.run_id)
            action = "replaced" if old else "created"
            run_ids[entry.path] = _write(client, experiment_id, entry, parent_id)
            print(f"{entry.path}: {action}", file=sys.stderr)
        actions[action] += 1
    for run in [*duplicates, *tracked.values()]:
        client.delete_run(run.info.run_id)
        actions["deleted"] += 1
    return actions


def _write(client: MlflowClient, experiment_id: str, entry: Entry, parent_id: str | None) -> str:
    """Create the run of `entry`, and return its id."""
    from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param

    record = entry.make_record()
    tags = {**record.tags, PATH: entry.path, **({PARENT: parent_id} if parent_id else {})}
    run_id = client.create_run(
        experiment_id, start_time=record.start, tags=tags, run_name=record.name
    ).info.run_id
    params = [Param(name, value) for name, value in record.params.items()]
    metrics = [Metric(*point) for point in record.points]
    client.log_batch(run_id, params=params, metrics=metrics)  # it splits what is too much at once
    if record.datasets:
        inputs = [
            DatasetInput(Dataset(**dataset), [InputTag("mlflow.data.context", split)])
            for split, dataset in zip(SPLITS, record.datasets, strict=True)
        ]
        client.log_inputs(run_id, inputs)
    for file, folder in record.artefacts:
        client.log_artifact(run_id, str(file), folder or None)
    client.set_terminated(run_id, "FAILED" if record.failed else "FINISHED", end_time=record.end)
    client.set_tag(run_id, DIGEST, entry.digest)  # last: it says that the run is complete
    return run_id


def _experiment_id(client: MlflowClient, study: Study, uri: str) -> str:
    """The id of the study's experiment. It is created if missing, and restored if deleted."""
    experiment = client.get_experiment_by_name(study.name)
    if experiment is None:
        # for a database MLflow would choose ./mlruns; a server has its own place
        local = uri.startswith("sqlite:")
        location = (ARTEFACTS / study.name).resolve().as_uri() if local else None
        return client.create_experiment(study.name, artifact_location=location)
    if experiment.lifecycle_stage == "deleted":
        client.restore_experiment(experiment.experiment_id)
    return experiment.experiment_id


def _find_tracked(
    client: MlflowClient, experiment_id: str
) -> tuple[dict[str, MlflowRun], list[MlflowRun]]:
    """The runs that an import made, by path, and further runs with the same paths.

    Runs that somebody else made have no path. They stay as they are.
    """
    tracked: dict[str, MlflowRun] = {}
    duplicates: list[MlflowRun] = []
    token = None
    while True:
        page = client.search_runs(
            [experiment_id], f"tags.`{PATH}` != ''", max_results=1000, page_token=token
        )
        for run in page:
            if tracked.setdefault(run.data.tags[PATH], run) is not run:
                duplicates.append(run)
        if not (token := page.token):
            return tracked, duplicates


@contextlib.contextmanager
def _single_writer(uri: str) -> Iterator[None]:
    """Wait for another import to the same place: two that create one database break it."""
    file = Path(uri.removeprefix("sqlite:///")) if uri.startswith("sqlite:///") else DATABASE
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.with_name(f"{file.name}.lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("another import is running: waiting for it", file=sys.stderr, flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def _fast_commits(uri: str) -> Iterator[None]:
    """Do not wait for the disk after each commit, of which MLflow makes ten for each run.

    This is only for our own database. If the power fails, delete it and import again.
    """
    from sqlalchemy import event
    from sqlalchemy.engine import Engine

    def switch_sync_off(connection: Any, _: Any) -> None:
        connection.execute("PRAGMA synchronous=OFF")

    if uri != f"sqlite:///{DATABASE}":
        yield
        return
    event.listen(Engine, "connect", switch_sync_off)
    try:
        yield
    finally:
        event.remove(Engine, "connect", switch_sync_off)


def _without_passwords(text: str) -> str:
    """The text with user names and passwords removed from its addresses."""
    return re.sub(r"(?<=://)[^/\s]*@", "", text)
