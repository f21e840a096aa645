"""The training of a run of several models as a job: what it reads and writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from dmlbench.study.run import Run
from dmlbench.study.study import Study
from dmlbench.training.job import Output, TrainJob, open_store, save_model
from dmlbench.training.resumable_job import open_device, run_job, training_imports
from dmlbench.training.time_limit import StopRequests


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
        with training_imports(run.recipe, self.stores):
            from dmlbench.training.checkpoint import finishing_copies
            from dmlbench.training.inputs import open_inputs
            from dmlbench.training.train import Diverged
            from dmlbench.tuning.reality_check import embed_by_models, train_models

        device = open_device(run.recipe, run.uses_model, origin)
        store = open_store(self.stores, run)
        with finishing_copies():
            model, history, models = train_models(run, store, device, self.state, stop)
        origin["loss_parameters"] = sum(facts["loss_parameters"] for facts in models)
        # from here on: the test images
        test = open_store(self.stores, run.tested)
        with stop.ending_at_once():
            embeddings, ids = embed_by_models(model, test, device, run)
        if not np.isfinite(embeddings).all():
            raise Diverged("the embeddings hold NaN or infinity after the last step", history)
        if self.study.settings.keep_model:
            inputs = open_inputs(run, store)
            save_model(inputs.whole_model(model), self.files.model)
        return Output(history, embeddings, ids, models)
