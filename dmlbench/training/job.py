"""One training as a job: what it reads and writes."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow.parquet as pq

from dmlbench.study.result_files import RunFiles
from dmlbench.study.run import Run
from dmlbench.study.study import Study
from dmlbench.study.tuning import choice_key, resolve
from dmlbench.training.optimism import begin_epoch_embeddings, epoch_embedder
from dmlbench.training.provenance import count_parameters
from dmlbench.training.resumable_job import (
    ResumableJob,
    open_device,
    run_job,
    training_imports,
)
from dmlbench.training.scratch import staged_store
from dmlbench.training.time_limit import StopRequests
from dmlbench.utils.arrow import to_table
from dmlbench.utils.errors import DatasetError, MissingResult, UserError
from dmlbench.utils.files import replacing, write_json
from dmlbench.utils.fingerprint import code_digests

if TYPE_CHECKING:
    import pyarrow as pa
    from torch import nn

    from dmlbench.datasets.store.reader import Store


class Output(NamedTuple):
    """What a run has computed; a failed run may have a part of it."""

    history: list[dict[str, Any]]
    """A row for each epoch."""
    embeddings: np.ndarray
    """(N, dim) of the test split."""
    ids: np.ndarray
    """(N,) their rows of the store's index."""
    models: Sequence[Mapping[str, Any]] = ()
    """What is known of each model, if there are several; their embeddings are side by side."""


def train_job(study: Study, run: Run, stores: Path, max_minutes: float | None) -> int:
    """Train `run`, or continue its training, and write its result.

    Args:
        stores: the folder of the packed images.
        max_minutes: time limit of this job; None: no limit.

    Returns:
        The exit code.

    Raises:
        MissingResult: nothing is chosen yet for a run that is tuned.
    """
    return run_job(TrainJob(study, run, stores), max_minutes)


class TrainJob(ResumableJob[Output]):
    """The training of a run, or the embeddings of a control."""

    def __init__(self, study: Study, run: Run, stores: Path) -> None:
        self.files = study.files.run(run.path)
        super().__init__(
            run.path,
            run.train_key,
            self.files.state,
            self.files.folder,
            self.files.train_log,
            run.uses_model,
            study.settings.runs_per_gpu,
        )
        self.study = study
        self.run = run
        self.stores = stores
        self.choice = load_choice(study, run) if run.tuning else None
        self.trained = run
        """The run with the settings that were chosen for it."""
        if self.choice and self.choice["chosen"]:
            self.trained = resolve(run, self.choice["chosen"])

    def is_finished(self) -> bool:
        result = self.files.read_run()
        if result is None or result["train_key"] != self.key or result["status"] != "ok":
            return False
        if result.get("chosen") != self._chosen:
            return False
        return _is_whole(self.files, result, self.run, self.study.settings.keep_model)

    @property
    def _chosen(self) -> dict[str, Any] | None:
        return self.choice["chosen"] if self.choice else None

    def begin(self) -> None:
        shutil.rmtree(self.files.artefacts, ignore_errors=True)
        begin_epoch_embeddings(self.files, self.trained, validated_every(self.study))

    def compute(self, stop: StopRequests, origin: dict[str, Any]) -> Output:
        self.check_choice()
        return _compute(self.study, self.trained, self.stores, stop, origin)

    def check_choice(self) -> None:
        """Check that settings were chosen for a run that is tuned.

        Raises:
            NothingChosen: no trial succeeded.
        """
        if self.choice and not self.choice["chosen"]:
            raise NothingChosen(self.run.cell, self.choice)

    def failed(self, history: list[dict[str, Any]]) -> Output:
        no_embeddings = np.empty((0, self.run.embedding_dim), np.float32)
        return Output(history, no_embeddings, np.empty(0, np.int32))

    def write(self, result: Mapping[str, Any], output: Output, origin: Mapping[str, Any]) -> None:
        """Write the files of the run; run.json is the last one, and says that the others are
        whole."""
        run, files = self.run, self.files
        with replacing(files.history) as temporary:
            pq.write_table(history_table(output.history), temporary)
        with replacing(files.embeddings) as temporary, temporary.open("wb") as file:
            np.savez(file, embeddings=output.embeddings, id=output.ids, train_key=run.train_key)
        if not self.study.settings.keep_model or result["status"] != "ok":
            files.model.unlink(missing_ok=True)  # of the result that is replaced now
        settings = self.trained.settings
        tuned = {}
        if run.tuning:
            settings = {**settings, "tuning": run.settings["tuning"]}
            tuned = {"chosen": self._chosen, "planned": run.settings}
        files.write_run(
            {
                "study": self.study.name,
                "dataset": run.dataset,
                "backbone": run.backbone,
                "loss": run.loss,
                "seed": run.seed,
                "train_key": run.train_key,
                **result,
                "settings": settings,
                **tuned,
                **({"models": [*output.models]} if output.models else {}),
                "code": code_digests(*run.modules),
                "provenance": origin,
            }
        )


class NothingChosen(UserError):
    """No trial of a tuned loss succeeded, so it has no settings to train with."""

    def __init__(self, cell: str, choice: Mapping[str, Any]) -> None:
        super().__init__(f"{cell}: nothing is chosen: {choice['error']['message']}")
        self.status = choice["status"]


def load_choice(study: Study, run: Run) -> dict[str, Any]:
    """The content of chosen.json of the cell of `run`.

    Raises:
        MissingResult: it is missing, damaged, or of other trials than those of the study.
    """
    files = study.files.choice(run.cell)
    choice, key = files.load_chosen(), choice_key(study.tuned_cell(run.cell))
    if choice["key"] != key:
        raise MissingResult(
            f"{files.chosen}: it has key {choice['key']}, and the study expects {key}. "
            f"`snakemake` chooses again."
        )
    return choice


def _compute(
    study: Study, run: Run, stores: Path, stop: StopRequests, origin: dict[str, Any]
) -> Output:
    """Train or embed; write the artefact of the loss, and the model if the study keeps it.

    `origin` notes the device.
    """
    with training_imports(run.recipe, stores):
        from dmlbench.training.checkpoint import finishing_copies
        from dmlbench.training.controls import control_embeddings
        from dmlbench.training.embedding import embed_test
        from dmlbench.training.external_embeddings import read_embeddings
        from dmlbench.training.inputs import open_inputs
        from dmlbench.training.train import Diverged, train

    device = open_device(run.recipe, run.uses_model, origin)
    test = open_store(stores, run.tested)
    if run.embeddings:
        rows = test.split("test", run.tested.data.part).rows
        return Output([], read_embeddings(run.embeddings, test, rows), rows.astype(np.int32))
    if run.control:
        training = open_store(stores, run) if run.reads_training_images else None
        return Output([], *control_embeddings(run, training, test, device))
    store = open_store(stores, run)
    files = study.files.run(run.path)
    with finishing_copies():
        split = store.split("train", run.data.part)
        after_epoch = None
        if run.report_optimism:
            after_epoch = epoch_embedder(
                files,
                run,
                lambda model: embed_test(model, test, device, run.tested)[0],
                validated_every(study),
            )
        model, loss, history = train(run, store, split, device, files.state, stop, after_epoch)
        origin["loss_parameters"] = count_parameters(loss)
        with stop.ending_at_once():
            embeddings, ids = embed_test(model, test, device, run.tested)
    if not np.isfinite(embeddings).all():
        raise Diverged("the embeddings hold NaN or infinity after the last step", history)
    if learnt := loss.artefact():
        write_json(
            files.loss_artefact, _artefact(learnt, run, study.run(run.path).train_key, store)
        )
    if study.settings.keep_model:
        save_model(open_inputs(run, store).whole_model(model), files.model)
    return Output(history, embeddings, ids)


def validated_every(study: Study) -> int:
    """After how many epochs the trials of `study` are validated: final runs look as often for their
    optimism gap."""
    return study.settings.tuning.every if study.settings.tuning else 1


def save_model(model: nn.Module, path: Path) -> None:
    """Write the weights of `model`."""
    from safetensors.torch import save_file

    with replacing(path) as temporary:
        # safetensors refuses channels-last tensors
        weights = {name: value.contiguous() for name, value in model.state_dict().items()}
        save_file(weights, temporary)


def _artefact(learnt: dict[str, Any], run: Run, key: str, store: Store) -> dict[str, Any]:
    """What the loss has learnt, with the names of the classes that it knows by their numbers."""
    split = store.split("train", run.data.part)
    example = split.rows[np.unique(split.labels, return_index=True)[1]]  # an image of each class
    return {
        "train_key": key,
        "loss": run.loss_type,
        "classes": split.class_names,
        "super_classes": {name: store.index[name][example].tolist() for name in store.levels},
        "learnt": learnt,
    }


def open_store(stores: Path, run: Run) -> Store:
    """The packed images of the data set of `run`."""
    from dmlbench.datasets.store.reader import Store

    folder = stores / run.store
    # With a frozen trunk, no image is read: the features are beside the store
    store = Store(folder if run.model.is_frozen else staged_store(folder))
    if store.manifest["facts"] != run.facts:
        raise DatasetError(
            f"{store.path}: its facts are {store.manifest['facts']}, and the study expects "
            f"{run.facts}. Delete the folder, and call `snakemake` again."
        )
    return store


def history_table(
    history: list[dict[str, Any]], names: Sequence[str] = ("epoch", "step", "loss")
) -> pa.Table:
    """A row for each epoch.

    Args:
        names: the columns of a table without rows.
    """
    integers = ("fold", "model", "epoch", "step")
    return to_table(
        {
            name: np.array(
                [row.get(name) for row in history], np.int64 if name in integers else np.float64
            )
            for name in (history[0] if history else names)
        }
    )


def _is_whole(files: RunFiles, result: Mapping[str, Any], run: Run, keep_model: bool) -> bool:
    """Whether the files of a training are there and undamaged, with the model if the study keeps
    it; `result` is the content of run.json."""
    if run.report_optimism and not files.epoch_embeddings(result):
        return False
    missing = {*files.find_missing(result)}
    if keep_model and run.trains:
        missing |= {files.model} if not files.model.is_file() else set()
    else:
        missing -= {files.model}
    return not missing and not files.find_damaged(result)
