"""One evaluation as a job: it reads embeddings and writes metrics."""

from __future__ import annotations

import functools
import os
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from dmlbench.datasets.store.reader import Store
from dmlbench.evaluation.evaluate import evaluate
from dmlbench.study.run import GPU_SCORING_IMAGES, METRICS, Run
from dmlbench.study.study import Study
from dmlbench.utils.errors import MissingResult, failure_result
from dmlbench.utils.files import read_result, write_json
from dmlbench.utils.fingerprint import code_digests
from dmlbench.utils.gpu_lease import GPU_NOT_SEEN, lease, visible_gpus
from dmlbench.utils.text import error_reason

OUT_OF_MEMORY = ("out of memory", "ALLOC_FAILED")
"""What torch and CUDA say if the memory of the GPU is too small."""


def evaluate_job(study: Study, run: Run, stores: Path) -> None:
    """Score the embeddings of `run` and write metrics.json.

    If the training failed, metrics.json has its status and error, and no scores.

    Raises:
        MissingResult: the run has no result, or that of other settings.
    """
    files = study.files.run(run.path)
    trained = read_result(files.run)
    if trained["train_key"] != run.train_key:
        raise MissingResult(
            f"{files.run}: it has key {trained['train_key']}, and the study expects "
            f"{run.train_key}. Remove the file, and call `snakemake` again."
        )
    result: dict[str, Any] = {"status": trained["status"], "error": trained["error"], "metrics": []}
    if trained["status"] == "ok":
        try:
            result |= _score(files.embeddings, run, stores, study.settings.runs_per_gpu)
        except Exception as error:
            traceback.print_exc()
            result |= failure_result("error", f"{type(error).__name__}: {error}")
    keys = {"eval_key": run.eval_key, "train_key": run.train_key}
    origin = {"settings": run.metric_settings, "code": code_digests(METRICS)}
    write_json(files.metrics, {**keys, **result, **origin})


def _score(file: Path, run: Run, stores: Path, runs_per_gpu: int) -> dict[str, Any]:
    """The metrics, and the device that computed them: a GPU if there is one and it is faster."""
    try:
        with np.load(file) as content:
            embeddings, ids, key = content["embeddings"], content["id"], str(content["train_key"])
    except Exception as error:  # parsers raise nearly anything for a damaged file
        fix = "Remove it, and call `snakemake` again"
        raise ValueError(f"{file}: this file is damaged: {error_reason(error)}. {fix}.") from error
    if key != run.train_key:
        raise ValueError(f"{file.name} has key {key}, and run.json has {run.train_key}")
    store = Store(stores / run.tested.store)
    score = functools.partial(
        evaluate,
        embeddings,
        ids,
        store.index,
        store.protocols,
        run.metric_settings,
        partial=run.tested.data.class_fraction < 1,
        pairs=store.pairs,
        levels=store.levels,
    )
    if len(ids) >= GPU_SCORING_IMAGES and (gpus := visible_gpus()):
        # SIGTERM may end this job at any moment: it has nothing to save
        with lease(gpus, runs_per_gpu) as gpu:
            os.environ["CUDA_VISIBLE_DEVICES"] = gpu or ""  # before torch looks
            if result := _score_on_gpu(score):
                return result
    return {"metrics": score(), "device": "cpu"}


def _score_on_gpu(score: Callable[..., list[dict[str, Any]]]) -> dict[str, Any] | None:
    """The metrics by the GPU, and its name; None if torch cannot use it or its memory is too
    small."""
    import torch

    if not torch.cuda.is_available():
        print(f"{GPU_NOT_SEEN}: scoring on the CPU", flush=True)
        return None
    try:
        return {"metrics": score(device="cuda"), "device": torch.cuda.get_device_name()}
    except RuntimeError as error:
        if not any(words in str(error) for words in OUT_OF_MEMORY):
            raise
        print(f"scoring on the CPU, as the GPU says: {error}", flush=True)
    torch.cuda.empty_cache()  # another run may have the GPU now
    return None
