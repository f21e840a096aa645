"""One evaluation as a job: it reads embeddings and writes metrics."""

from __future__ import annotations

import contextlib
import functools
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dmlbench.datasets.store.reader import Store
from dmlbench.evaluation.evaluate import Scores, evaluate
from dmlbench.evaluation.leaks import find_leaks, has_duplicates, score_without
from dmlbench.evaluation.models import score_models
from dmlbench.evaluation.optimism import optimism
from dmlbench.evaluation.quality import describe_quality
from dmlbench.evaluation.query_file import write_query_scores
from dmlbench.evaluation.ranking import UnusableEmbeddings
from dmlbench.study.reality_check import REALITY_CHECK
from dmlbench.study.result_files import TRAIN_AGAIN, RunFiles
from dmlbench.study.result_shape import DAMAGED, OK
from dmlbench.study.run import GPU_SCORING_IMAGES, Run
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
from dmlbench.utils.files import replacing
from dmlbench.utils.fingerprint import code_digests
from dmlbench.utils.gpu_lease import lease_gpu
from dmlbench.utils.text import error_reason

SCORING_ON_CPU = "scoring on the CPU"


def evaluate_job(study: Study, run: Run, stores: Path) -> None:
    """Score the embeddings of `run` and write queries.parquet, if images are ranked, and
    metrics.json.

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
    origin = {"settings": run.metric_settings, "code": code_digests(*run.metric_modules)}
    if trained["status"] == OK:
        try:
            files.check_file(files.embeddings, trained)
            epochs = files.epoch_embeddings(trained) if run.report_optimism else {}
            for file in epochs.values():
                files.check_file(file, trained)
            if _is_scored(files, run, trained, stores):
                print(f"{run.path}: scored under this key already")
                return
            (scores, gains, quality), device = _score(
                files.embeddings, epochs, run, stores, study.settings.runs_per_gpu
            )
            if scores.queries:
                with replacing(files.queries) as path:
                    write_query_scores(path, scores.queries)
            else:
                files.queries.unlink(missing_ok=True)
            scored = {**result, "metrics": scores.rows, "device": device, **quality}
            scored |= {"optimism": gains} if run.report_optimism else {}
            files.write_metrics({**keys, **scored, **origin}, trained)
            return
        except MissingResult as error:
            result |= failure_result(error, DAMAGED)
        except DiskError:
            raise
        except Exception as error:
            traceback.print_exc()
            result |= failure_result(error)
    files.queries.unlink(missing_ok=True)
    files.write_metrics({**keys, **result, **origin}, trained)


def _is_scored(files: RunFiles, run: Run, trained: Mapping[str, Any], stores: Path) -> bool:
    """Whether the scores of this training are there, under their key and whole: it was started
    again, and found that nothing had changed."""
    scored = files.read_metrics()
    if scored is None or scored["status"] != OK or scored["eval_key"] != run.eval_key:
        return False
    is_same = scored["training"] == trained["digest"]
    if scored.get("near_duplicates") is None and has_duplicates(run, stores):  # searched since
        return False
    return is_same and not (files.find_missing(scored) or files.find_damaged(scored))


class _Scored(NamedTuple):
    scores: Scores
    gains: list[dict[str, Any]]
    """See `optimism`; empty if the study does not report it."""
    quality: dict[str, Any]
    """See `describe_quality`."""


def _score(
    file: Path, epochs: Mapping[int, Path], run: Run, stores: Path, runs_per_gpu: int
) -> tuple[_Scored, str]:
    """The scores, and the device that computed them: a GPU if there is one and it is faster.

    Args:
        file: the embeddings of the test images.
        epochs: epoch -> the file of the embeddings after it.
    """
    with np.load(file, allow_pickle=False) as content:
        embeddings, ids = content["embeddings"], content["id"]
    store, part = Store(stores / run.tested.store), run.tested.data.part
    leaks = find_leaks(run, store, stores)

    def score(device: str = "cpu") -> _Scored:
        score_model = functools.partial(
            evaluate,
            ids=ids,
            index=store.index,
            protocols=store.protocols_of(part),
            settings=run.metric_settings,
            partial=part.class_fraction < 1,
            pairs=store.pairs,
            levels=store.levels,
            device=device,
            ball=run.ball,
        )

        def score_part(vectors: NDArray[Any], **changes: Any) -> Scores:
            score_them = functools.partial(score_model, **changes)
            if run.protocol == REALITY_CHECK:
                return score_models(vectors, run.models, score_them)
            return score_them(vectors)

        scores = score_part(embeddings)
        without = score_without(leaks, store, part, embeddings, ids, score_part) if leaks else []
        quality = describe_quality(run, store, embeddings, leaks, bool(without))
        by_epoch = {epoch: _score_epoch(score_model, path) for epoch, path in epochs.items()}
        scores = scores._replace(rows=[*scores.rows, *without])
        return _Scored(scores, optimism(by_epoch), quality)

    if len(ids) >= GPU_SCORING_IMAGES:
        try:
            # SIGTERM may end this job at any moment: it has nothing to save
            with lease_gpu(runs_per_gpu) as place:
                if place and (result := _score_on_gpu(score)):
                    return result
        except UnusableGpu as error:
            print(f"{SCORING_ON_CPU}: {error}", flush=True)
    return score(), "cpu"


def _score_epoch(score: Callable[..., Scores], file: Path) -> list[dict[str, Any]]:
    """The scores of the embeddings after an epoch; none if nothing can be ranked by them."""
    try:
        return score(np.load(file, allow_pickle=False).astype(np.float32), clusters=False).rows
    except UnusableEmbeddings:
        return []


def _score_on_gpu(score: Callable[[str], _Scored]) -> tuple[_Scored, str] | None:
    """The scores by the GPU, and its name; None if it fails, or has too little memory. The CPU
    gives the same numbers then.

    Raises:
        UnusableGpu: torch cannot compute on it.
    """
    import torch

    try:
        device = choose_device()
        name = torch.cuda.get_device_name(device)
        return score(device.type), name
    except Exception as error:
        if not (is_out_of_memory(error) or is_gpu_error(error)):
            raise
        print(f"{SCORING_ON_CPU}, as the GPU failed: {error_reason(error)}", flush=True)
    with contextlib.suppress(RuntimeError):  # it answers nothing after some of its errors
        torch.cuda.empty_cache()  # another run may have the GPU now
    return None
