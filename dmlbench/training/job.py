"""One training as a job: its lock, device and signals, and a result in every case.

Exit codes: 0, the result is written (a failure is a result too, with its status); 75, the training
was stopped with its state saved, and must be started again.
"""

from __future__ import annotations

import contextlib
import shutil
import sys
import time
import traceback
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dmlbench.study.result_files import RunFiles
from dmlbench.study.run import Run
from dmlbench.study.study import Study
from dmlbench.training.process import begin_log, keep_frames, keep_freed_memory, keep_kernels
from dmlbench.training.provenance import device_facts, measurements, provenance, utc_now
from dmlbench.training.run_state import WAITED, Attempts, hold_state, more_time
from dmlbench.training.scratch import staged_store
from dmlbench.training.time_limit import (
    Stopped,
    StopRequests,
    TimeLimit,
    read_time_limit,
    stop_requests,
    timings,
)
from dmlbench.utils.device import choose_device
from dmlbench.utils.disk import disk_error
from dmlbench.utils.errors import (
    DatasetError,
    NoFreeGpu,
    UnusableGpu,
    failure_result,
    is_gpu_error,
)
from dmlbench.utils.files import replacing, write_json
from dmlbench.utils.fingerprint import code_digests
from dmlbench.utils.gpu_lease import lease_gpu
from dmlbench.utils.mps import uses_mps
from dmlbench.utils.startup import heavy_imports
from dmlbench.utils.text import format_duration

if TYPE_CHECKING:
    from dmlbench.datasets.store.reader import Store

TRY_AGAIN = 75
"""EX_TEMPFAIL of the system's sysexits.h."""
MAX_WAIT_SHARE, MAX_WAIT = 0.5, 2.0
"""A time limit that is over is no fault of an attempt that waited for more than this share of it,
and for more than these seconds, which it takes to look for a GPU."""


class Output(NamedTuple):
    """What a run has computed; a failed run may have a part of it."""

    history: list[dict[str, Any]]
    """A row for each epoch."""
    embeddings: np.ndarray
    """(N, dim) of the test split."""
    ids: np.ndarray
    """(N,) their rows of the store's index."""


def train_job(study: Study, run: Run, stores: Path, max_minutes: float | None) -> int:
    """Train `run`, or continue its training, and write its result.

    Args:
        stores: the folder of the packed images.
        max_minutes: time limit of this job; None: no limit.

    Returns:
        The exit code.
    """
    files, limit = study.files.run(run.path), read_time_limit(max_minutes)
    with hold_state(files.state):
        if _is_finished(files, run, study.settings.keep_model):
            print(f"{run.path}: finished under this key already")
            shutil.rmtree(files.state, ignore_errors=True)
            return 0
        begin_log(files.train_log, run.train_key)
        shutil.rmtree(files.artefacts, ignore_errors=True)  # of the result that is replaced now
        attempts = Attempts(files.state, run.train_key)
        started, origin = time.monotonic(), provenance()
        output = Output([], np.empty((0, run.model.dim), np.float32), np.empty(0, np.int32))

        def write(result: dict[str, Any]) -> None:
            seconds = round(time.monotonic() - started, 3)
            times = {"finished": utc_now(), "wall_seconds": seconds}
            # without a device, nothing was trained: it was refused, or failed before
            measured = measurements(output.history) if "device" in origin else {}
            _write(files, run, study, result, output, origin | measured | times)

        with stop_requests(limit) as stop:  # also while results are written
            try:
                result = attempts.failure()
                if not result:
                    output = _attempt(study, run, stores, stop, attempts, origin)
                    result = {"status": "ok", "error": None}
                write(result)
            except Stopped as stopped:
                print(f"{stopped}; the time limit of this job: {limit}", flush=True)
                attempts.end(*_how_it_ended(stopped, limit))
                return TRY_AGAIN
            except NoFreeGpu as error:
                print(f"{error}; the time limit of this job: {limit}", flush=True)
                attempts.end(WAITED, str(error))
                return TRY_AGAIN
            except UnusableGpu as error:  # the GPU of another node may work
                print(error, flush=True)
                attempts.end(error.status, str(error))
                return TRY_AGAIN
            except Exception as error:
                if is_gpu_error(error):
                    keep_frames(error)
                attempts.forget()  # before the result: maybe it cannot be written
                problem = disk_error(error, files.folder)
                print(problem or traceback.format_exc(), file=sys.stderr, flush=True)
                result = failure_result(problem or error)
                history = getattr(error, "history", [])
                output = Output(history, output.embeddings[:0], output.ids[:0])
                write(result)
        if result["status"] in ("ok", "diverged"):
            shutil.rmtree(files.state, ignore_errors=True)
        else:  # keep the checkpoint for the next time that the run is started
            attempts.forget()
        print(f"{run.path}: {result['status']}")
    return 0


def _attempt(
    study: Study,
    run: Run,
    stores: Path,
    stop: StopRequests,
    attempts: Attempts,
    origin: dict[str, Any],
) -> Output:
    """Train or embed on a GPU of this machine, if it has any; `origin` notes which, and how it is
    shared."""
    runs, began = study.settings.runs_per_gpu, time.monotonic()
    leased = lease_gpu(runs, lambda: stop.reason) if run.uses_model else contextlib.nullcontext()
    with leased as place:
        timings.wait = time.monotonic() - began
        if place:
            origin |= {"runs_per_gpu": place.runs, "mps": uses_mps()}
        attempts.begin(stop.limit)
        with stop.ending_at_once():
            return _compute(study, run, stores, stop, origin)


def _how_it_ended(stopped: Stopped, limit: TimeLimit) -> tuple[str, str]:
    """How an attempt ended that was stopped, and why it may have come nowhere, if it did."""
    if stopped.reason != "timeout":
        return stopped.reason, str(stopped)
    if timings.wait > max(MAX_WAIT, MAX_WAIT_SHARE * limit.seconds):
        waited = f"it waited {format_duration(timings.wait)} for a GPU"
        return WAITED, f"{waited}, and then its time limit of {limit} was over"
    if timings.start is None:
        why = f"its time limit of {limit} was over before its first step. {more_time({})}"
        return stopped.reason, why
    return stopped.reason, f"its time limit of {limit} was over. {more_time(asdict(timings))}"


def _compute(
    study: Study, run: Run, stores: Path, stop: StopRequests, origin: dict[str, Any]
) -> Output:
    """Train or embed; write the artefact of the loss, and the model if the study keeps it.

    `origin` notes the device.
    """
    if run.recipe.gpu_compile:
        keep_kernels(stores.parent / "compiled")
    with heavy_imports():
        import torch

        from dmlbench.training.checkpoint import finish_copying
        from dmlbench.training.controls import control_embeddings
        from dmlbench.training.external_embeddings import read_embeddings
        from dmlbench.training.train import Diverged, embed_test, train

    keep_freed_memory()
    device = choose_device(run.recipe.gpu_precision) if run.uses_model else torch.device("cpu")
    origin |= device_facts(device)  # now, as a GPU that has failed answers nothing
    test = _open_store(stores, run.tested)
    if run.embeddings:
        rows = test.split("test", run.tested.data.class_fraction).rows
        return Output([], read_embeddings(run.embeddings, test, rows), rows.astype(np.int32))
    if run.control:
        return Output([], *control_embeddings(run.tested, test, device))
    store = _open_store(stores, run)
    files = study.files.run(run.path)
    try:
        model, loss, history = train(run, store, device, files.state, stop)
        with stop.ending_at_once():
            embeddings, ids = embed_test(model, test, device, run.tested)
    except Stopped:
        finish_copying()
        raise
    finally:
        with contextlib.suppress(OSError):  # the training itself has succeeded, or says more
            finish_copying()
    if not np.isfinite(embeddings).all():
        raise Diverged("the embeddings hold NaN or infinity after the last step", history)
    if learnt := loss.artefact():
        write_json(files.loss_artefact, _artefact(learnt, run, store))
    if study.settings.keep_model:
        from safetensors.torch import save_file

        with replacing(files.model) as temporary:
            # safetensors refuses channels-last tensors
            weights = {name: value.contiguous() for name, value in model.state_dict().items()}
            save_file(weights, temporary)
    return Output(history, embeddings, ids)


def _artefact(learnt: dict[str, Any], run: Run, store: Store) -> dict[str, Any]:
    """What the loss has learnt, with the names of the classes that it knows by their numbers."""
    split = store.split("train", run.data.class_fraction)
    example = split.rows[np.unique(split.labels, return_index=True)[1]]  # an image of each class
    return {
        "train_key": run.train_key,
        "loss": run.loss_type,
        "classes": split.class_names,
        "super_classes": {name: store.index[name][example].tolist() for name in store.levels},
        "learnt": learnt,
    }


def _open_store(stores: Path, run: Run) -> Store:
    """The packed images of the data set of `run`."""
    from dmlbench.datasets.store.reader import Store

    store = Store(staged_store(stores / run.store))
    if store.manifest["facts"] != run.facts:
        raise DatasetError(
            f"{store.path}: its facts are {store.manifest['facts']}, and the study expects "
            f"{run.facts}. Delete the folder, and call `snakemake` again."
        )
    return store


def _write(
    files: RunFiles,
    run: Run,
    study: Study,
    result: dict[str, Any],
    output: Output,
    origin: dict[str, Any],
) -> None:
    """Write the files of the run; run.json is the last one, and says that the others are whole."""
    with replacing(files.history) as temporary:
        pq.write_table(_table(output.history), temporary)
    with replacing(files.embeddings) as temporary, temporary.open("wb") as file:
        np.savez(file, embeddings=output.embeddings, id=output.ids, train_key=run.train_key)
    if not study.settings.keep_model or result["status"] != "ok":
        files.model.unlink(missing_ok=True)  # of the result that is replaced now
    files.write_run(
        {
            "study": study.name,
            "dataset": run.dataset,
            "backbone": run.backbone,
            "loss": run.loss,
            "seed": run.seed,
            "train_key": run.train_key,
            **result,
            "settings": run.settings,
            "code": code_digests(*run.modules),
            "provenance": origin,
        }
    )


def _table(history: list[dict[str, Any]]) -> pa.Table:
    """A row for each epoch. It is made of numpy's memory: pyarrow imports pandas to take lists."""
    integers = {"epoch": np.int64, "step": np.int64}
    columns = {
        name: np.array([row.get(name) for row in history], integers.get(name, np.float64))
        for name in (history[0] if history else (*integers, "loss"))
    }
    arrays = [
        pa.Array.from_buffers(
            pa.from_numpy_dtype(column.dtype), len(column), [None, pa.py_buffer(column)]
        )
        for column in columns.values()
    ]
    return pa.Table.from_arrays(arrays, names=[*columns])


def _is_finished(files: RunFiles, run: Run, keep_model: bool) -> bool:
    """Whether the result of `run` is there, under its key and whole; with the model if the study
    keeps it."""
    result = files.read_run()
    if result is None or result["train_key"] != run.train_key or result["status"] != "ok":
        return False
    missing = {*files.find_missing(result)}
    if keep_model and run.trains:
        missing |= {files.model} if not files.model.is_file() else set()
    else:
        missing -= {files.model}
    return not missing and not files.find_damaged(result)
