"""One training as a job: its lock, its device, its signals, and a result whatever happens.

Exit codes: 0, the result is written (a failure is one, with its status); 75, stopped with its
state saved - ask again.
"""

from __future__ import annotations

import os
import shutil
import time
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dmlbench import source
from dmlbench.files import read_json_if_whole, replacing, write_json
from dmlbench.gpus import NOT_SEEN, lease, visible_gpus
from dmlbench.imports import importing
from dmlbench.problems import failure
from dmlbench.study import Run, Study
from dmlbench.training.process import keep_freed_memory, keep_kernels
from dmlbench.training.provenance import measured, now, provenance
from dmlbench.training.state import Attempts, Stopped, alone, stop_requests

if TYPE_CHECKING:
    from dmlbench.datasets.store import Store

TRY_AGAIN = 75  # EX_TEMPFAIL


def train_job(study: Study, run: Run, stores: Path, max_minutes: float | None) -> int:
    """Train `run`, or go on with it, and write its result; answers with the exit code."""
    out, state = study.folder / "runs" / run.path, study.folder / "state" / run.path
    with alone(state):
        if _finished(out, run, study.settings.keep_model):
            print(f"{run.path}: finished under this key already")
            shutil.rmtree(state, ignore_errors=True)
            return 0
        shutil.rmtree(out / "artefacts", ignore_errors=True)  # of what it now replaces
        attempts = Attempts(state, run.train_key)
        started = time.monotonic()
        origin = provenance()
        failed: dict[str, Any] | None = attempts.hopeless()
        history: list[dict[str, Any]] = []
        embeddings, ids = np.empty((0, run.model.dim), np.float32), np.empty(0, np.int32)
        if not failed:
            gpus = visible_gpus() if run.uses_model else []
            try:
                with (
                    stop_requests(max_minutes) as stop,
                    lease(gpus, study.settings.runs_per_gpu, partial(_heed, stop)) as gpu,
                ):
                    if gpu or not run.uses_model:
                        os.environ["CUDA_VISIBLE_DEVICES"] = gpu or ""  # before torch looks
                    if gpu:
                        origin["runs_per_gpu"] = study.settings.runs_per_gpu
                    attempts.begin()
                    history, embeddings, ids = _produce(study, run, stores, state, stop)
            except Stopped as stopped:
                print(stopped, flush=True)
                attempts.end(stopped.reason)
                return TRY_AGAIN
            except Exception as error:
                traceback.print_exc()
                history = getattr(error, "history", [])
                failed = _failure(error)
            origin |= measured(history)
        origin |= {"finished": now(), "wall_seconds": round(time.monotonic() - started, 3)}
        result = failed or {"status": "ok", "error": None}
        _write(out, run, study, result, history, embeddings, ids, origin)
        if result["status"] in ("ok", "diverged"):
            shutil.rmtree(state, ignore_errors=True)
        else:  # what was learnt is kept for the next time that it is asked for
            attempts.forget()
        print(f"{run.path}: {result['status']}")
    return 0


def _heed(stop: Callable[[], str | None]) -> None:
    """Stop waiting where `stop` gives a reason."""
    if reason := stop():
        raise Stopped(reason, f"{reason} while waiting for a GPU")


def _produce(
    study: Study, run: Run, stores: Path, state: Path, stop: Callable[[], str | None]
) -> tuple[list[dict[str, Any]], np.ndarray, np.ndarray]:
    """History, and the test split's embeddings with their rows of the index."""
    if run.recipe.gpu_compile:
        keep_kernels(stores.parent / "compiled")
    with importing():
        import torch

        from dmlbench.training.controls import control_embeddings
        from dmlbench.training.elsewhere import read_embeddings
        from dmlbench.training.train import Diverged, embed_test, train

    keep_freed_memory()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if os.environ.get("CUDA_VISIBLE_DEVICES") and device.type == "cpu":
        print(f"{NOT_SEEN}: training on the CPU", flush=True)
    test = _open(stores, run.tested)
    if run.embeddings:
        rows = test.split("test", run.tested.data.class_fraction).rows
        return [], read_embeddings(run.embeddings, test, rows), rows.astype(np.int32)
    if run.control:
        return [], *control_embeddings(run.tested, test, device)
    store = _open(stores, run)
    model, loss, history = train(run, store, device, state, stop)
    embeddings, ids = embed_test(model, test, device, run.tested)
    if not np.isfinite(embeddings).all():
        raise Diverged("the embeddings are no numbers after the last step", history)
    out = study.folder / "runs" / run.path
    if learnt := loss.artefact():
        write_json(out / "artefacts" / "loss.json", _of_classes(learnt, run, store))
    if study.settings.keep_model:
        from safetensors.torch import save_file

        with replacing(out / "model.safetensors") as temporary:
            # channels-last tensors are refused
            weights = {name: value.contiguous() for name, value in model.state_dict().items()}
            save_file(weights, temporary)
    return history, embeddings, ids


def _of_classes(learnt: dict[str, Any], run: Run, store: Store) -> dict[str, Any]:
    """What the loss has learnt, with the names of the classes and super-classes that it knows by
    their numbers."""
    split = store.split("train", run.data.class_fraction)
    example = split.rows[np.unique(split.labels, return_index=True)[1]]
    levels = [name for name in store.index if name.startswith("level_")]
    return {
        "train_key": run.train_key,
        "loss": run.loss_type,
        "classes": split.class_names,
        "super_classes": {name: store.index[name][example].tolist() for name in levels},
        "learnt": learnt,
    }


def _open(stores: Path, run: Run) -> Store:
    """The packed images of `run`'s data set."""
    from dmlbench.datasets import DatasetError
    from dmlbench.datasets.store import Store

    store = Store(stores / run.store)
    if store.manifest["facts"] != run.facts:
        raise DatasetError(
            f"{store.path}: its facts are {store.manifest['facts']}, and the study expects "
            f"{run.facts}. Delete the folder, and ask again."
        )
    return store


def _write(
    out: Path,
    run: Run,
    study: Study,
    result: dict[str, Any],
    history: list[dict[str, Any]],
    embeddings: np.ndarray,
    ids: np.ndarray,
    origin: dict[str, Any],
) -> None:
    """Write the run's files, run.json last: it says that the others are whole."""
    with replacing(out / "history.parquet") as temporary:
        pq.write_table(_table(history), temporary)
    with replacing(out / "embeddings.npz") as temporary, temporary.open("wb") as file:
        np.savez(file, embeddings=embeddings, id=ids, train_key=run.train_key)
    if not study.settings.keep_model:
        (out / "model.safetensors").unlink(missing_ok=True)
    write_json(
        out / "run.json",
        {
            "study": study.name,
            "dataset": run.dataset,
            "backbone": run.backbone,
            "loss": run.loss,
            "seed": run.seed,
            "train_key": run.train_key,
            **result,
            "artefacts": sorted(file.name for file in (out / "artefacts").glob("[!.]*")),
            "settings": run.settings,
            "code": source.code(*run.modules),
            "provenance": origin,
        },
    )


def _table(history: list[dict[str, Any]]) -> pa.Table:
    """A row an epoch. Built from numpy's memory: all that takes lists imports pandas."""
    whole = {"epoch": np.int64, "step": np.int64}
    columns = {
        name: np.array([row.get(name) for row in history], whole.get(name, np.float64))
        for name in (history[0] if history else (*whole, "loss"))
    }
    arrays = [
        pa.Array.from_buffers(pa.from_numpy_dtype(c.dtype), len(c), [None, pa.py_buffer(c)])
        for c in columns.values()
    ]
    return pa.Table.from_arrays(arrays, names=[*columns])


def _finished(out: Path, run: Run, keep_model: bool) -> bool:
    """Whether the result of `run` is there under its key, with the artefacts that it had, and with
    the model where one is kept."""
    found = read_json_if_whole(out / "run.json")
    if found is None or found["train_key"] != run.train_key or found["status"] != "ok":
        return False
    files = [out / "embeddings.npz", out / "history.parquet"]
    files += [out / "artefacts" / name for name in found.get("artefacts", [])]
    if keep_model and run.trains:
        files.append(out / "model.safetensors")
    return all(path.is_file() for path in files)


def _failure(error: Exception) -> dict[str, Any]:
    """A failure in the words of the results."""
    import torch

    from dmlbench.backbones.weights import MissingWeights
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
    # the texts of our own errors are written for people; others need their names
    own = type(error).__module__.startswith("dmlbench.")
    return failure(status, f"{'' if own else type(error).__name__ + ': '}{error}")
