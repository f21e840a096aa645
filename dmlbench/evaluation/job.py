"""One evaluation as a job: it reads embeddings and writes metrics."""

from __future__ import annotations

import contextlib
import functools
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
from dmlbench.utils.device import choose_device
from dmlbench.utils.errors import (
    DiskError,
    MissingResult,
    UnusableGpu,
    failure_result,
    is_gpu_error,
    is_out_of_memory,
)
from dmlbench.utils.fingerprint import code_digests
from dmlbench.utils.gpu_lease import lease_gpu
from dmlbench.utils.text import error_reason

SCORING_ON_CPU = "scoring on the CPU"


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
            result |= failure_result(error, DAMAGED)
        except DiskError:
            raise
        except Exception as error:
            traceback.print_exc()
            result |= failure_result(error)
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
    if len(ids) >= GPU_SCORING_IMAGES:
        try:
            # SIGTERM may end this job at any moment: it has nothing to save
            with lease_gpu(runs_per_gpu) as place:
                if place and (result := _score_on_gpu(score)):
                    return result
        except UnusableGpu as error:
            print(f"{SCORING_ON_CPU}: {error}", flush=True)
    return {"metrics": score(), "device": "cpu"}


def _score_on_gpu(score: Callable[..., list[dict[str, Any]]]) -> dict[str, Any] | None:
    """The metrics by the GPU, and its name; None if it fails, or has too little memory. The CPU
    gives the same numbers then.

    Raises:
        UnusableGpu: torch cannot compute on it.
    """
    import torch

    try:
        device = choose_device()
        name = torch.cuda.get_device_name(device)
        return {"metrics": score(device=device.type), "device": name}
    except Exception as error:
        if not (is_out_of_memory(error) or is_gpu_error(error)):
            raise
        print(f"{SCORING_ON_CPU}, as the GPU failed: {error_reason(error)}", flush=True)
    with contextlib.suppress(RuntimeError):  # it answers nothing after some of its errors
        torch.cuda.empty_cache()  # another run may have the GPU now
    return None
