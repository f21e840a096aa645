"""The training of a run of several models as a job: what it reads and writes."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import numpy as np

from dmlbench.study.run import Run
from dmlbench.study.study import Study
from dmlbench.training.job import Output, TrainJob, open_store, save_model
from dmlbench.training.process import keep_freed_memory, keep_kernels
from dmlbench.training.provenance import device_facts
from dmlbench.training.resumable_job import run_job
from dmlbench.training.time_limit import Stopped, StopRequests
from dmlbench.utils.device import choose_device
from dmlbench.utils.startup import heavy_imports


def train_models_job(study: Study, run: Run, stores: Path, max_minutes: float | None) -> int:
    """Train the models of `run`, or continue, and write its result; see `train_job`."""
    return run_job(ModelsJob(study, run, stores), max_minutes)


class ModelsJob(TrainJob):
    """The training of a run of several models.

    Nothing of the losses is kept: each has learnt other classes.
    """

    def compute(self, stop: StopRequests, origin: dict[str, Any]) -> Output:
        self.check_choice()
        run = self.trained
        if run.recipe.gpu_compile:
            keep_kernels(self.stores.parent / "compiled")
        with heavy_imports():
            from dmlbench.training.checkpoint import finish_copying
            from dmlbench.training.train import Diverged
            from dmlbench.tuning.reality_check import embed_by_models, train_models

        keep_freed_memory()
        device = choose_device(run.recipe.gpu_precision)
        origin |= device_facts(device)  # now, as a GPU that has failed answers nothing
        store = open_store(self.stores, run)
        try:
            model, history, models = train_models(run, store, device, self.state, stop)
        except Stopped:
            finish_copying()
            raise
        finally:
            with contextlib.suppress(OSError):  # the training itself has succeeded, or says more
                finish_copying()
        origin["loss_parameters"] = sum(facts["loss_parameters"] for facts in models)
        # from here on: the test images
        test = open_store(self.stores, run.tested)
        embeddings, ids = embed_by_models(model, test, device, run)
        if not np.isfinite(embeddings).all():
            raise Diverged("the embeddings hold NaN or infinity after the last step", history)
        if self.study.settings.keep_model:
            save_model(model, self.files.model)
        return Output(history, embeddings, ids, models)
