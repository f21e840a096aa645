"""One training as a job: its lock, device and signals, and a result in every case.

Exit codes: 0, the result is written (a failure is a result too, with its status); 75, the training
was stopped with its state saved, and must be started again.
"""

from __future__ import annotations

import os
import shutil
import time
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dmlbench.study.result_files import RunFiles
from dmlbench.study.run import Run
from dmlbench.study.study import Study
from dmlbench.training.process import keep_freed_memory, keep_kernels
from dmlbench.training.provenance import measurements, provenance, utc_now
from dmlbench.training.run_state import Attempts, Stopped, hold_state, stop_requests
from dmlbench.utils.errors import DatasetError, MissingWeights, UserError, failure_result
from dmlbench.utils.files import replacing, write_json
from dmlbench.utils.fingerprint import code_digests
from dmlbench.utils.gpu_lease import GPU_NOT_SEEN, lease, visible_gpus
from dmlbench.utils.startup import heavy_imports

if TYPE_CHECKING:
    from dmlbench.datasets.store.reader import Store

TRY_AGAIN = 75
"""EX_TEMPFAIL of the system's sysexits.h."""


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
    files = study.files.run(run.path)
    state = files.state
    with hold_state(state):
        if _is_finished(files, run, study.settings.keep_model):
            print(f"{run.path}: finished under this key already")
            shutil.rmtree(state, ignore_errors=True)
            return 0
        shutil.rmtree(files.artefacts, ignore_errors=True)  # of the result that is replaced now
        attempts = Attempts(state, run.train_key)
        started = time.monotonic()
        origin = provenance()
        failure = attempts.failure()
        output = Output([], np.empty((0, run.model.dim), np.float32), np.empty(0, np.int32))
        if not failure:
            gpus = visible_gpus() if run.uses_model else []
            try:
                with (
                    stop_requests(max_minutes) as stop,
                    lease(gpus, study.settings.runs_per_gpu, partial(_raise_if, stop)) as gpu,
                ):
                    if gpu or not run.uses_model:
                        os.environ["CUDA_VISIBLE_DEVICES"] = gpu or ""  # before torch looks
                    if gpu:
                        origin["runs_per_gpu"] = study.settings.runs_per_gpu
                    attempts.begin()
                    output = _compute(study, run, stores, stop)
            except Stopped as stopped:
                print(stopped, flush=True)
                attempts.end(stopped.reason)
                return TRY_AGAIN
            except Exception as error:
                traceback.print_exc()
                output = output._replace(history=getattr(error, "history", []))
                failure = _failure(error)
            origin |= measurements(output.history)
        origin |= {"finished": utc_now(), "wall_seconds": round(time.monotonic() - started, 3)}
        result = failure or {"status": "ok", "error": None}
        _write(files, run, study, result, output, origin)
        if result["status"] in ("ok", "diverged"):
            shutil.rmtree(state, ignore_errors=True)
        else:  # keep the checkpoint for the next time that the run is started
            attempts.forget()
        print(f"{run.path}: {result['status']}")
    return 0


def _raise_if(stop: Callable[[], str | None]) -> None:
    """End the wait for a GPU if `stop` gives a reason."""
    if reason := stop():
        raise Stopped(reason, f"{reason} while waiting for a GPU")


def _compute(study: Study, run: Run, stores: Path, stop: Callable[[], str | None]) -> Output:
    """Train or embed; write the artefact of the loss, and the model if the study keeps it."""
    if run.recipe.gpu_compile:
        keep_kernels(stores.parent / "compiled")
    with heavy_imports():
        import torch

        from dmlbench.training.controls import control_embeddings
        from dmlbench.training.external_embeddings import read_embeddings
        from dmlbench.training.train import Diverged, embed_test, train

    keep_freed_memory()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if os.environ.get("CUDA_VISIBLE_DEVICES") and device.type == "cpu":
        print(f"{GPU_NOT_SEEN}: training on the CPU", flush=True)
    test = _open_store(stores, run.tested)
    if run.embeddings:
        rows = test.split("test", run.tested.data.class_fraction).rows
        return Output([], read_embeddings(run.embeddings, test, rows), rows.astype(np.int32))
    if run.control:
        return Output([], *control_embeddings(run.tested, test, device))
    store = _open_store(stores, run)
    files = study.files.run(run.path)
    model, loss, history = train(run, store, device, files.state, stop)
    embeddings, ids = embed_test(model, test, device, run.tested)
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

    store = Store(stores / run.store)
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
    if not study.settings.keep_model:
        files.model.unlink(missing_ok=True)
    write_json(
        files.run,
        {
            "study": study.name,
            "dataset": run.dataset,
            "backbone": run.backbone,
            "loss": run.loss,
            "seed": run.seed,
            "train_key": run.train_key,
            **result,
            "artefacts": sorted(file.name for file in files.artefacts.glob("[!.]*")),
            "settings": run.settings,
            "code": code_digests(*run.modules),
            "provenance": origin,
        },
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
    """Whether the result of `run` is complete under its key.

    It must have the artefacts that it names, and the model if the study keeps it.
    """
    result = files.read_run()
    if result is None or result["train_key"] != run.train_key or result["status"] != "ok":
        return False
    needed = [files.embeddings, files.history]
    needed += [files.artefacts / name for name in result.get("artefacts", [])]
    if keep_model and run.trains:
        needed.append(files.model)
    return all(file.is_file() for file in needed)


def _failure(error: Exception) -> dict[str, Any]:
    """The result of a run that failed with `error`."""
    import torch

    from dmlbench.training.train import Diverged

    status = "error"
    if isinstance(error, Diverged):
        status = "diverged"
    elif isinstance(error, MissingWeights):
        status = "missing_weights"
    elif isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(
        error
    ):
        status = "out_of_memory"
    # the texts of our own errors are written for the user; other errors need their type
    is_own = isinstance(error, UserError)
    return failure_result(status, f"{'' if is_own else type(error).__name__ + ': '}{error}")
