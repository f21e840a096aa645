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
from dmlbench.study.result_files import TRAIN_AGAIN
from dmlbench.study.result_shape import DAMAGED, OK
from dmlbench.study.run import GPU_SCORING_IMAGES, METRICS, Run
from dmlbench.study.study import Study
from dmlbench.utils.errors import DiskError, MissingResult, failure_result
from dmlbench.utils.fingerprint import code_digests
from dmlbench.utils.gpu_lease import GPU_NOT_SEEN, lease, visible_gpus

OUT_OF_MEMORY = ("out of memory", "ALLOC_FAILED")
"""What torch and CUDA say if the memory of the GPU is too small."""


def evaluate_job(study: Study, run: Run, stores: Path) -> None:
    """Score the embeddings of `run` and write metrics.json.

    If the training failed, metrics.json has its status and error, and no scores. If its embeddings
    are damaged, the status is "damaged": then the training counts as not done.

    Raises:
        MissingResult: the run has no result, or that of other settings.
    """
    files = study.files.run(run.path)
    trained = files.load_run()
    if trained["train_key"] != run.train_key:
        raise MissingResult(
            f"{files.run}: it has key {trained['train_key']}, and the study expects "
            f"{run.train_key}. {TRAIN_AGAIN}"
        )
    result: dict[str, Any] = {"status": trained["status"], "error": trained["error"], "metrics": []}
    keys = {"eval_key": run.eval_key, "train_key": run.train_key}
    origin = {"settings": run.metric_settings, "code": code_digests(METRICS)}
    if trained["status"] == OK:
        try:
            files.check_file(files.embeddings, trained)
            scores = _score(files.embeddings, run, stores, study.settings.runs_per_gpu)
            files.write_metrics({**keys, **result, **scores, **origin}, trained)
            return
        except MissingResult as error:
            result |= failure_result(DAMAGED, str(error))
        except DiskError:
            raise
        except Exception as error:
            traceback.print_exc()
            result |= failure_result("error", f"{type(error).__name__}: {error}")
    files.write_metrics({**keys, **result, **origin}, trained)


def _score(file: Path, run: Run, stores: Path, runs_per_gpu: int) -> dict[str, Any]:
    """The metrics, and the device that computed them: a GPU if there is one and it is faster."""
    with np.load(file, allow_pickle=False) as content:
        embeddings, ids = content["embeddings"], content["id"]
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
