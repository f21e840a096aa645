"""`dmlbench.train`: one run of the workflow, from your own code or a notebook."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from dmlbench.datasets.store.reader import Store
from dmlbench.study.preflight import check_before_jobs
from dmlbench.study.result_files import RunFiles
from dmlbench.study.result_shape import OK
from dmlbench.study.run import Run
from dmlbench.study.study import Study, check_study, find_file, read_study
from dmlbench.utils.errors import InvalidArgument, StudyError, UnreadableYaml, UserError
from dmlbench.utils.files import data_folder, read_json, read_json_if_whole
from dmlbench.utils.modules import PACKAGE
from dmlbench.utils.text import short_repr
from dmlbench.utils.yaml_text import check_data
from dmlbench.workflow.launch import snakemake_command
from dmlbench.workflow.verdict import put_aside

if TYPE_CHECKING:
    from dmlbench.backbones.concatenated import ConcatenatedModels
    from dmlbench.backbones.model import EmbeddingModel

MAKES_NUMBERS = False
STUDY = "library"
"""Name of the study of runs that have no study file."""
INTERVAL = 0.2
"""Seconds between two looks at a training."""
MAX_LINES = 20
"""Last lines of Snakemake's output that a message shows."""

Entry = str | Mapping[str, Any]
"""A type of a study, as "htl"; or a type with its settings, as {"type": "htl", "levels": 8}."""


class TrainingFailed(UserError):
    """The training or its scoring failed. The text says why, and where its log is."""


@dataclass(frozen=True, repr=False)
class TrainedRun:
    """A trained run. Everything is read from its files when it is first used."""

    study: Study
    run: Run

    @property
    def files(self) -> RunFiles:
        return self.study.files.run(self.run.path)

    @property
    def folder(self) -> Path:
        """The folder of its results, as docs/results_folder.md describes it."""
        return self.files.folder

    @cached_property
    def history(self) -> list[dict[str, float]]:
        """A row for each epoch: `epoch`, `loss`, `lr`, `seconds`, and what the loss records."""
        self.files.check_file(self.files.history, self.files.load_run())
        rows: list[dict[str, float]] = pq.ParquetFile(self.files.history).read().to_pylist()
        return rows

    @cached_property
    def protocols(self) -> dict[str, dict[str, float]]:
        """The scores of each test protocol of the data set: protocol -> metric -> value."""
        scores: dict[str, dict[str, float]] = {}
        for row in self.files.load_metrics()["metrics"]:
            scores.setdefault(row["protocol"], {})[row["metric"]] = row["value"]
        return scores

    @property
    def metrics(self) -> dict[str, float]:
        """The scores of the first protocol; most data sets have one."""
        return next(iter(self.protocols.values()))

    @property
    def embeddings(self) -> NDArray[np.float32]:
        """(N, dim) of the test images."""
        return self._arrays["embeddings"]

    @property
    def labels(self) -> NDArray[np.integer]:
        """(N,) class of each embedding."""
        labels: NDArray[np.integer] = self._test_store.index["label"][self._arrays["id"]]
        return labels

    @property
    def levels(self) -> dict[str, NDArray[np.integer]]:
        """Name of each level of super-classes -> (N,) super-class of each embedding."""
        store, rows = self._test_store, self._arrays["id"]
        return {name: store.index[name][rows] for name in store.levels}

    @property
    def paths(self) -> list[str]:
        """Path of the image of each embedding in its data set."""
        paths: list[str] = self._test_store.index["path"][self._arrays["id"]].tolist()
        return paths

    @cached_property
    def learnt(self) -> dict[str, Any]:
        """What the loss has learnt besides its parameters, as HTL's tree; empty for most losses."""
        trained, file = self.files.load_run(), self.files.loss_artefact
        if file.relative_to(self.folder).as_posix() not in trained["files"]:
            return {}
        self.files.check_file(file, trained)
        learnt: dict[str, Any] = read_json(file)["learnt"]
        return learnt

    @cached_property
    def model(self) -> EmbeddingModel | ConcatenatedModels:
        """The trained model in eval mode: images (B, C, S, S) in [0, 1] -> embeddings (B, dim).

        A run of several models has them as one, which gives their embeddings side by side.

        Raises:
            MissingResult: the study does not have `keep_model: true`.
        """
        from dmlbench.embed import load_model

        return load_model(self.study, self.run)

    @property
    def is_finished(self) -> bool:
        """Whether its files are those of this study and this code."""
        metrics, trained = self.files.read_metrics(), self.files.read_run()
        if not metrics or not trained or metrics["status"] != OK:
            return False
        keys = metrics["eval_key"], trained["train_key"], metrics["training"]
        if keys != (self.run.eval_key, self.run.train_key, trained["digest"]):
            return False
        if self._keeps_model and not self.files.model.is_file():
            return False
        missing = {*self.files.find_missing(trained), *self.files.find_missing(metrics)}
        damaged = self.files.find_damaged(trained) + self.files.find_damaged(metrics)
        return not missing - {self.files.model} and not damaged

    def __repr__(self) -> str:
        shown = ("recall@1", "map@r", "nmi")
        scores = [f"{name} {self.metrics[name]:.4f}" for name in shown if name in self.metrics]
        return f"TrainedRun({', '.join([self.run.path, *scores, str(self.folder)])})"

    @property
    def _keeps_model(self) -> bool:
        return self.study.settings.keep_model and self.run.trains

    @cached_property
    def _arrays(self) -> dict[str, NDArray[Any]]:
        self.files.check_file(self.files.embeddings, self.files.load_run())
        with np.load(self.files.embeddings, allow_pickle=False) as content:
            return {name: content[name] for name in ("embeddings", "id")}

    @cached_property
    def _test_store(self) -> Store:
        return Store(data_folder() / "stores" / self.run.tested.store)


@overload
def train(
    study: str | Path | Mapping[str, Any], run: str | None = None, *, progress: bool | None = None
) -> TrainedRun: ...


@overload
def train(
    *,
    dataset: Entry,
    backbone: Entry,
    loss: Entry,
    seed: int = 0,
    recipe: Mapping[str, Any] | None = None,
    evaluation: Mapping[str, Any] | None = None,
    progress: bool | None = None,
) -> TrainedRun: ...


def train(
    study: str | Path | Mapping[str, Any] | None = None,
    run: str | None = None,
    *,
    dataset: Entry | None = None,
    backbone: Entry | None = None,
    loss: Entry | None = None,
    seed: int | None = None,
    recipe: Mapping[str, Any] | None = None,
    evaluation: Mapping[str, Any] | None = None,
    progress: bool | None = None,
) -> TrainedRun:
    """Train and score one run, with the numbers that the workflow gives.

    It starts the workflow, which fetches and packs what is missing. All files are in `results/` and
    `data/` of the current folder. A run that is finished is not trained again. An interrupted
    training (Ctrl-C, or the stop button of a notebook) keeps its checkpoint: the same call goes on
    from there.

    Give a study and a run of its plan:

        dmlbench.train("my.yaml", "cub200/resnet50/htl/seed0")

    or the parts of one run, which has `keep_model: true`:

        dmlbench.train(dataset="glyphs", loss={"type": "htl", "levels": 8},
                       backbone={"type": "resnet18", "image_size": 64}, recipe={"epochs": 5})

    Args:
        study: a study file, the name of a study with results, or a study as a mapping.
        run: `dataset/backbone/loss/seed0`. It may be left out if the plan has one run.
        dataset: a type, as `dmlbench list datasets` shows it; or a mapping with `type` and settings
            of the data set.
        backbone: the same for a backbone.
        loss: the same for a loss.
        seed: seed of the run; 0 if it is left out.
        recipe: settings of the recipe. What is left out has its default.
        evaluation: settings of the evaluation.
        progress: whether to show a progress bar; None: in notebooks and on terminals.

    Raises:
        StudyError: the settings are wrong, or another process works on this study.
        TrainingFailed: the run failed.
        KeyboardInterrupt: the training was interrupted, and keeps its checkpoint.
    """
    parts = {"datasets": dataset, "backbones": backbone, "losses": loss}
    content: dict[str, Any] | Path
    if study is None:
        content = _single_run(parts, 0 if seed is None else seed, recipe, evaluation)
        checked = check_study(content, "dmlbench.train")
    elif any(part is not None for part in (*parts.values(), seed, recipe, evaluation)):
        raise InvalidArgument(
            "study: a study has its own data sets, backbones, losses, seeds and recipe. `run` "
            "chooses among its runs."
        )
    elif isinstance(study, Mapping):
        content = _plain(study)
        checked = check_study(content, "dmlbench.train")
    elif not isinstance(study, str | os.PathLike):
        shown = short_repr(study)
        raise InvalidArgument(f"study: found {shown}. Give a file, a name, or a mapping.")
    else:
        content = find_file(Path(study))
        checked = read_study(study)
    if run is None and len(checked.runs) > 1:
        first = next(iter(checked.runs))
        raise InvalidArgument(f"run: the plan has {len(checked.runs)}. Name one, as {first!r}.")
    result = TrainedRun(checked, checked.run(run or next(iter(checked.runs))))
    if not result.is_finished:
        check_before_jobs(checked, data_folder() / "stores")
        with _study_file(content) as file:
            _run_workflow(file, result, progress)
    return result


def _single_run(
    parts: Mapping[str, Any], seed: int, recipe: Any, evaluation: Any
) -> dict[str, Any]:
    """The study of one run."""
    content: dict[str, Any] = {"study": STUDY, "tracking": False, "keep_model": True}
    plan: dict[str, Any] = {"seeds": [seed], "controls": []}
    for section, part in parts.items():
        entry = {"type": part} if isinstance(part, str) else part
        if not isinstance(entry, Mapping) or not isinstance(entry.get("type"), str):
            name = {"datasets": "dataset", "backbones": "backbone", "losses": "loss"}[section]
            problem = "is missing" if part is None else f"found {short_repr(part)}"
            raise InvalidArgument(f'{name}: {problem}. Give a name, or {{"type": name, ...}}.')
        plan[section] = [entry["type"]]
        content[section] = {entry["type"]: entry}
    content["plan"] = plan
    content |= {"recipe": recipe} if recipe is not None else {}
    content |= {"evaluation": evaluation} if evaluation is not None else {}
    return _plain(content)


def _plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    """`settings` as YAML would give them: a path as text, a number of NumPy as one of Python."""
    try:
        check_data(settings)
    except UnreadableYaml as error:
        raise StudyError("dmlbench.train", error.problems) from None
    plain: dict[str, Any] = _plain_value(settings)
    return plain


def _plain_value(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain_value(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain_value(inner) for inner in value]
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    return str(value) if isinstance(value, Path) else value


@contextlib.contextmanager
def _study_file(content: dict[str, Any] | Path) -> Iterator[Path]:
    """The file of a study, for the workflow."""
    if isinstance(content, Path):
        yield content
        return
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "study.json"
        file.write_text(json.dumps(content), "utf-8")
        yield file


def _run_workflow(file: Path, result: TrainedRun, progress: bool | None) -> None:
    """Let Snakemake make the scores of `result`, and what they need."""
    files, path = result.files, result.run.path
    put_aside(files)
    # the environment of a user's script may lack the folder that it imports dmlbench from
    python_path = os.pathsep.join(filter(None, [str(PACKAGE.parent), os.environ.get("PYTHONPATH")]))
    command = snakemake_command(file, [str(files.metrics)])
    with tempfile.TemporaryFile() as output:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONPATH": python_path},
            start_new_session=True,  # so that it is interrupted once, by the lines below
        )
        try:
            with _progress_bar(path, progress) as show:
                while child.poll() is None:
                    show(read_json_if_whole(files.state / "progress.json") or {})
                    time.sleep(INTERVAL)
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGINT)
            child.wait()
            print(f"{path}: stopped. The same call goes on from its checkpoint.", file=sys.stderr)
            raise
        output.seek(0)
        lines = output.read().decode(errors="replace").strip().splitlines()
    metrics = files.read_metrics()
    if metrics and metrics["eval_key"] == result.run.eval_key and metrics["status"] != "ok":
        reason = f"{metrics['status']}: {metrics['error']['message']}"
        raise TrainingFailed(f"{path}: {reason}. The log: {files.train_log}")
    if child.returncode or not result.is_finished:
        tail = "\n    ".join(lines[-MAX_LINES:])
        raise TrainingFailed(f"{path}: the workflow failed. Its last lines:\n    {tail}")


@contextlib.contextmanager
def _progress_bar(path: str, shown: bool | None) -> Iterator[Callable[[dict[str, Any]], None]]:
    """A function that shows the content of a training's progress.json."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a notebook without ipywidgets gets a bar of text
        from tqdm.auto import tqdm
    if shown is None:
        shown = sys.stderr.isatty() or "ipykernel" in sys.modules
    with tqdm(desc=path, unit="step", disable=not shown, total=0) as bar:

        def show(progress: dict[str, Any]) -> None:
            if progress and progress["step"] >= bar.n:
                bar.total = progress["steps"]
                bar.set_postfix_str(f"loss {progress['loss']:.4g}", refresh=False)
                bar.update(progress["step"] - bar.n)

        yield show
