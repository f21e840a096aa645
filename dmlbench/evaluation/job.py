"""One evaluation as a job: embeddings on disk -> metrics on disk."""

from __future__ import annotations

import functools
import os
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from dmlbench import source
from dmlbench.datasets.store import Store
from dmlbench.evaluation import evaluate
from dmlbench.files import MissingResult, read_result, write_json
from dmlbench.gpus import NOT_SEEN, SCORED_FROM, lease, visible_gpus
from dmlbench.problems import failure
from dmlbench.run import METRICS, Run
from dmlbench.study import Study


def evaluate_job(study: Study, run: Run, stores: Path) -> None:
    """Score the embeddings of `run`; a run that failed hands its failure on."""
    folder = study.folder / "runs" / run.path
    trained = read_result(folder / "run.json")
    if trained["train_key"] != run.train_key:
        raise MissingResult(
            f"{folder}/run.json: it has key {trained['train_key']}, and the study expects "
            f"{run.train_key}. Remove the file, and ask again."
        )
    result: dict[str, Any] = {"status": trained["status"], "error": trained["error"], "metrics": []}
    if trained["status"] == "ok":
        try:
            result |= _score(folder, run, stores, study.settings.runs_per_gpu)
        except Exception as error:
            traceback.print_exc()
            result |= failure("error", f"{type(error).__name__}: {error}")
    keys = {"eval_key": run.eval_key, "train_key": run.train_key}
    made_by = {"settings": run.metric_settings, "code": source.code(METRICS)}
    write_json(folder / "metrics.json", {**keys, **result, **made_by})


def _score(folder: Path, run: Run, stores: Path, runs_per_gpu: int) -> dict[str, Any]:
    """The metrics, and the device that they were made on: a GPU if it pays and there is one."""
    with np.load(folder / "embeddings.npz") as file:
        embeddings, ids, key = file["embeddings"], file["id"], str(file["train_key"])
    if key != run.train_key:
        raise ValueError(f"embeddings.npz has key {key}, and run.json has {run.train_key}")
    store = Store(stores / run.tested.store)
    partial = run.tested.data.class_fraction < 1
    tables = store.index, store.protocols
    levels = [name for name in store.index if name.startswith("level_")]
    score = functools.partial(
        evaluate, embeddings, ids, *tables, run.metric_settings, partial, store.pairs, levels
    )
    if len(ids) >= SCORED_FROM and (gpus := visible_gpus()):
        # SIGTERM ends this job at any moment: it has nothing to save
        with lease(gpus, runs_per_gpu) as gpu:
            os.environ["CUDA_VISIBLE_DEVICES"] = gpu or ""  # before torch looks
            if found := _on_gpu(score):
                return found
    return {"metrics": score(), "device": "cpu"}


def _on_gpu(score: Callable[..., list[dict[str, Any]]]) -> dict[str, Any] | None:
    """The metrics by the GPU, and its name; None where torch cannot use it, or its memory does not
    suffice."""
    import torch

    if not torch.cuda.is_available():
        print(f"{NOT_SEEN}: scoring on the CPU", flush=True)
        return None
    try:
        return {"metrics": score(device="cuda"), "device": torch.cuda.get_device_name()}
    except RuntimeError as error:
        if not any(words in str(error) for words in ("out of memory", "ALLOC_FAILED")):
            raise
        print(f"scoring on the CPU, as the GPU says: {error}", flush=True)
    torch.cuda.empty_cache()  # another run may have the GPU now
    return None
