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
import os
import re
import sqlite3
import sys
import textwrap
import traceback
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dmlbench.leaderboard.table import read_available_results
from dmlbench.tracking import database as local
from dmlbench.tracking.records import SPLITS, Entry, Record, entries
from dmlbench.utils.disk import disk_error
from dmlbench.utils.errors import TrackingError
from dmlbench.utils.text import count_of, listed

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run as MlflowRun

    from dmlbench.study.study import Study

ARTEFACTS = Path("results/mlartifacts")
ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    # A server that does not answer: 50 s. With the defaults of MLflow it takes many minutes.
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "15",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_RESPECT_RETRY_AFTER_HEADER": "false",
}
"""Settings of MLflow, unless the user has set them."""
MAX_REASON = 400
"""Characters of an error of MLflow that a message shows: it may hold a whole page of a proxy."""
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
EXPERIMENT_QUERY = """
select experiment_id, artifact_location from experiments
where name = ? and lifecycle_stage = 'active'
"""
LOCAL_PAGE = "http://127.0.0.1:5000"
"""The address of `mlflow ui`."""


class UnwrittenRuns(TrackingError):
    """Some runs could not be written, and all others were."""


def tracking_uri() -> str:
    """Where the runs go: MLFLOW_TRACKING_URI, or else a database in the results folder."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{local.DATABASE}"


def track(study: Study, uri: str) -> str:
    """Make the experiment of `study` at `uri` equal to the study's result files.

    Results that are missing or have another key than planned are left out. If a run cannot be
    written, all others are.

    Returns:
        A line that says how many runs were created, replaced, unchanged and deleted, and below it
        where to look at them.

    Raises:
        TrackingError: MLflow cannot be reached, or refuses, or some runs cannot be written.
    """
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        with local.single_writer(uri):
            results = read_available_results(study.rows, study.files)
            wanted = list(entries(study, results))
            actions = Counter(unchanged=len(wanted))
            experiment_id = _find_if_up_to_date(uri, study, wanted)
            if experiment_id is None:
                if file := local.database_file(uri):
                    local.make_ready(file)
                is_ours = uri == f"sqlite:///{local.DATABASE}"
                with local.fast_commits() if is_ours else contextlib.nullcontext():
                    experiment_id, actions = _synchronise(study, uri, wanted)
    except UnwrittenRuns as error:
        raise TrackingError(_without_passwords(f"tracking to {uri}: {error}")) from None
    except Exception as error:
        if not _is_about_the_place(error):
            raise
        raise TrackingError(_without_passwords(_describe_failure(uri, error))) from None
    counts = ", ".join(f"{actions[name]} {name}" for name in ("created", "replaced", "unchanged"))
    line = (
        f"{study.name}: {len(results)} of {len(study.runs)} results are at {uri}: "
        f"{counts}, {actions['deleted']} deleted"
    )
    return _without_passwords("\n".join([line, *_how_to_look(uri, experiment_id)]))


def _describe_failure(uri: str, error: Exception) -> str:
    """Why nothing more can be written to `uri`, and what to do."""
    reason = textwrap.shorten(str(error), MAX_REASON).rstrip(".")
    hint = ""
    if local.database_file(uri):
        hint = "; if the file is damaged, delete it: it is made anew from the results"
    elif re.search(r"\b40[13]\b", reason):
        hint = "; MLFLOW_TRACKING_USERNAME and _PASSWORD, or MLFLOW_TRACKING_TOKEN, let you in"
    return (
        f"tracking to {uri} failed: {reason}. The results and the table are complete without it. "
        f"`snakemake track` tries again{hint}."
    )


def _is_about_the_place(error: Exception) -> bool:
    """Whether `error` says that MLflow, its database or the disk cannot be used."""
    if isinstance(error, OSError | ImportError | sqlite3.Error | TrackingError):
        return True
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    return isinstance(error, MlflowException | SQLAlchemyError)


def _is_about_one_run(error: Exception) -> bool:
    """Whether `error` says nothing about the runs that are still to be written."""
    from mlflow.exceptions import MlflowException
    from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE, ErrorCode
    from sqlalchemy.exc import SQLAlchemyError

    if isinstance(error, MlflowException):
        return bool(error.error_code == ErrorCode.Name(INVALID_PARAMETER_VALUE))
    return not isinstance(error, SQLAlchemyError) and not disk_error(error, ARTEFACTS)


def _how_to_look(uri: str, experiment_id: str) -> list[str]:
    """Lines that lead to the runs of an experiment in a browser."""
    route = f"/#/experiments/{experiment_id}/runs?workflowType=machine_learning"
    if uri.startswith(("http://", "https://")):
        return [f"To look: {uri.rstrip('/')}{route}"]
    if uri.startswith("databricks"):
        return []
    return [f"To look: mlflow ui --backend-store-uri {uri}", f"then open {LOCAL_PAGE}{route}"]


def _find_if_up_to_date(uri: str, study: Study, wanted: Sequence[Entry]) -> str | None:
    """The id of the experiment if a database at `uri` holds exactly `wanted`, below their parents.

    This reads the database without mlflow, whose import takes longer than all the rest. None means
    that mlflow has to be asked.
    """
    file = local.database_file(uri)
    if file is None or not file.is_file():  # a pipe would be waited for
        return None
    planned = Counter((entry.path, entry.parent, entry.digest) for entry in wanted)
    try:
        place = f"{file.as_uri()}?mode=ro"
        with contextlib.closing(sqlite3.connect(place, timeout=0, uri=True)) as database:
            tracked = Counter(database.execute(RUNS_QUERY, [study.name]))
            experiment = database.execute(EXPERIMENT_QUERY, [study.name]).fetchone()
    except sqlite3.Error:  # its tables are others, or another program has locked it
        return None
    if not experiment or tracked != planned:
        return None
    experiment_id, location = experiment
    return None if _has_moved(location, study, file) else str(experiment_id)


def _synchronise(study: Study, uri: str, wanted: Sequence[Entry]) -> tuple[str, Counter[str]]:
    """Make the experiment hold exactly `wanted`, where parents come before their children.

    Returns:
        Its id, and the number of runs for each action.

    Raises:
        UnwrittenRuns: some of `wanted` could not be written, and all others were.
    """
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    experiment_id = _experiment_id(client, study, uri)
    tracked, duplicates = _find_tracked(client, experiment_id)
    actions: Counter[str] = Counter()
    run_ids: dict[str, str] = {}
    failures: list[str] = []
    for entry in wanted:
        old = tracked.pop(entry.path, None)
        parent_id = run_ids.get(entry.parent) if entry.parent else None
        if old and old.data.tags.get(DIGEST) == entry.digest:
            action, run_ids[entry.path] = "unchanged", old.info.run_id
            if parent_id and old.data.tags.get(PARENT) != parent_id:  # its parent was replaced
                client.set_tag(old.info.run_id, PARENT, parent_id)
        else:
            if old:
                client.delete_run(old.info.run_id)
            action = "replaced" if old else "created"
            try:
                run_ids[entry.path] = _write(client, experiment_id, entry, parent_id)
            except Exception as error:
                if not _is_about_one_run(error):
                    raise
                traceback.print_exc()
                failures.append(f"{entry.path}: {type(error).__name__}: {error}")
                continue
            print(f"{entry.path}: {action}", file=sys.stderr)
        actions[action] += 1
    for run in [*duplicates, *tracked.values()]:
        client.delete_run(run.info.run_id)
        actions["deleted"] += 1
    if failures:
        count = f"{len(failures)} of {count_of(len(wanted), 'run')} could not be written"
        raise UnwrittenRuns(listed(f"{count}, and all others were", failures))
    return experiment_id, actions


def _write(client: MlflowClient, experiment_id: str, entry: Entry, parent_id: str | None) -> str:
    """Create the run of `entry`, and return its id.

    If the run cannot be written, nothing of it stays. If MLflow cannot be reached any more, the
    next import deletes what stays.
    """
    record = entry.make_record()
    tags = {**record.tags, PATH: entry.path, **({PARENT: parent_id} if parent_id else {})}
    run_id: str = client.create_run(
        experiment_id, start_time=record.start, tags=tags, run_name=record.name
    ).info.run_id
    try:
        _fill(client, run_id, record)
    except Exception as error:
        if _is_about_one_run(error):
            client.delete_run(run_id)
        raise
    client.set_tag(run_id, DIGEST, entry.digest)  # last: it says that the run is complete
    return run_id


def _fill(client: MlflowClient, run_id: str, record: Record) -> None:
    """Write the content of `record` to a new run, and end it."""
    from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param

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


def _experiment_id(client: MlflowClient, study: Study, uri: str) -> str:
    """The id of the study's experiment. It is created if missing, and restored if deleted."""
    experiment = client.get_experiment_by_name(study.name)
    file = local.database_file(uri)
    if experiment is None:
        # for a database MLflow would choose ./mlruns; a server has its own place
        location = _artefacts(study, file) if file else None
        experiment = client.get_experiment(
            client.create_experiment(study.name, artifact_location=location)
        )
    if experiment.name != study.name:
        raise TrackingError("what answers there is no server of MLflow")
    if experiment.lifecycle_stage == "deleted":
        client.restore_experiment(experiment.experiment_id)
    if file and _has_moved(experiment.artifact_location, study, file):
        _move_artefacts(file, experiment.experiment_id, experiment.artifact_location, study)
    return str(experiment.experiment_id)


def _artefacts(study: Study, file: Path) -> str:
    """Where the artefacts of `study` are, for the database `file`.

    A database in the folder of the project holds a path relative to that folder, so both can be
    moved. MLflow takes it as relative to the folder in which it runs. Another database may hold
    several projects, and needs the whole path.
    """
    folder = ARTEFACTS / study.name
    is_inside = file.is_relative_to(Path.cwd().resolve())
    return folder.as_posix() if is_inside else folder.resolve().as_uri()


def _has_moved(location: str, study: Study, file: Path) -> bool:
    """Whether artefacts of ours are looked for at `location`, and are not there any more.

    MLflow makes each path absolute when it creates an experiment. A location of the user is kept.
    """
    is_ours = location.endswith((ARTEFACTS / study.name).as_posix())
    return is_ours and location != _artefacts(study, file)


def _move_artefacts(file: Path, experiment_id: str, location: str, study: Study) -> None:
    """Have the database look for the experiment's artefacts where they are now.

    MLflow has no call for this.
    """
    now = _artefacts(study, file)
    with contextlib.closing(sqlite3.connect(file, timeout=60)) as database, database:
        database.execute(
            "update experiments set artifact_location = ? where experiment_id = ?",
            [now, experiment_id],
        )
        database.execute(
            "update runs set artifact_uri = ? || substr(artifact_uri, ?)"
            " where experiment_id = ? and substr(artifact_uri, 1, ?) = ?",
            [now, len(location) + 1, experiment_id, len(location) + 1, f"{location}/"],
        )


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


def _without_passwords(text: str) -> str:
    """The text with user names and passwords removed from its addresses."""
    return re.sub(r"(?<=://)[^/\s]*@", "", text)
