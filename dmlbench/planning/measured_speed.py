"""What finished and unfinished runs and trials of a study tell about the speed of a device."""

from __future__ import annotations

import platform
from collections import Counter
from pathlib import Path

from dmlbench.planning.throughput import Device, Throughput, find_device
from dmlbench.study.result_files import RunFiles
from dmlbench.study.run import Run
from dmlbench.study.study import Study
from dmlbench.study.tuning import Trial
from dmlbench.study.tuning_files import TrialFiles
from dmlbench.training.run_state import inspect_training

MAX_RUNS_READ = 3
"""Read the speed of this many finished runs, and finished trials, of a cell at most."""


def read_throughput(study: Study, device: Device | None = None) -> Throughput:
    """What finished and unfinished runs of `study` and remembered probes tell about the speed of
    `device`, or of this machine."""
    speeds = Throughput(device or find_device())
    runs_read: Counter[tuple[str, str, str]] = Counter()
    for path, run in study.runs.items():
        cell = run.dataset, run.backbone, run.loss
        if run.trains and runs_read[cell] < MAX_RUNS_READ:
            runs_read[cell] += _add_finished(speeds, run, study.files.run(path))
    for trial in study.trials.values():
        if len(speeds.trial_times[trial.cell]) < MAX_RUNS_READ:
            _add_finished_trial(speeds, trial, study.files.trial(trial.path))
    shares_gpu = bool(speeds.device.gpus) and study.settings.runs_per_gpu > 1
    for path in study.files.unfinished():
        if path in study.runs:
            run, files = study.runs[path], study.files.run(path)
            _add_unfinished(speeds, path, run, run.train_key, files, run.models, shares_gpu)
        elif path in study.trials:
            trial, tried = study.trials[path], study.files.trial(path)
            folds = trial.tuning.folds_in_use
            _add_unfinished(speeds, path, trial.run, trial.key, tried, folds, shares_gpu)
    return speeds


def _add_finished(speeds: Throughput, run: Run, files: RunFiles) -> bool:
    """Add the speed in a result file to `speeds`, if it was made on the same device.

    Its settings may differ from those of `run`, which is planned now.
    """
    result = files.read_run()
    if not result or result["status"] != "ok":
        return False
    origin, settings = result["provenance"], result["settings"]
    rate, training_seconds = origin.get("images_per_second"), origin.get("train_seconds")
    if origin.get("device") != speeds.device.name or not rate:
        return False
    if origin.get("runs_per_gpu", 1) > 1:  # it had only a part of the device
        return False
    if settings["loss"]["type"] != run.loss_type:  # the other type may not exist any more
        return False
    channels = settings["dataset"]["facts"]["channels"]
    spec = speeds.create_spec(settings["backbone"], settings["recipe"], channels)
    speeds.add_rate(spec, run.loss_type, run.dataset, rate)
    if settings["dataset"] == run.settings["dataset"] and not run.test_on:
        # Snakemake's table includes the start of the process
        job_seconds = _job_seconds(files.train_benchmark) or origin["wall_seconds"]
        if job_seconds > training_seconds:  # if not, this attempt was not the only one
            speeds.overheads[spec, run.dataset].append(job_seconds - training_seconds)
        if seconds := _job_seconds(files.evaluate_benchmark):
            speeds.scoring_times[settings["backbone"]["dim"], run.dataset].append(seconds)
    return True


def _add_finished_trial(speeds: Throughput, trial: Trial, files: TrialFiles) -> None:
    """Add the speed of a finished trial to `speeds`, if it was made on the same device."""
    result = files.read_trial()
    if not result or result["status"] != "ok" or result["key"] != trial.key:
        return
    origin, run = result["provenance"], trial.run
    if origin.get("device") != speeds.device.name or origin.get("runs_per_gpu", 1) > 1:
        return
    # the first is of the last attempt, the second of all
    seconds = max(origin.get("wall_seconds") or 0.0, origin.get("train_seconds") or 0.0)
    if seconds:
        speeds.trial_times[trial.cell].append(seconds)
    if rate := origin.get("images_per_second"):
        speeds.add_rate(speeds.training_spec(run), run.loss_type, run.dataset, rate)


def _job_seconds(table: Path) -> float | None:
    """Seconds that a job took, by Snakemake's table; None if it is missing or damaged."""
    try:
        return float(table.read_text("utf-8").splitlines()[1].split()[0])
    except (OSError, ValueError, IndexError):
        return None


def _add_unfinished(
    speeds: Throughput,
    path: str,
    run: Run,
    key: str,
    files: RunFiles | TrialFiles,
    folds: int,
    shares_gpu: bool,
) -> None:
    """Add the progress of an unfinished training or trial, and its speed if it is that of a whole
    device of this machine.

    Args:
        folds: the number of models that it trains, one after the other.
    """
    unfinished = inspect_training(files.state, key)
    if not unfinished or not unfinished.progress:
        return
    progress = unfinished.progress
    speeds.progress[path] = unfinished.part_of_steps(folds)
    is_same_kind = progress["device"].startswith("cuda") == bool(speeds.device.gpus)
    is_here = progress["host"] == platform.node()
    if unfinished.part:  # its steps per second are less, as it also validates
        return
    if is_same_kind and is_here and not shares_gpu and progress["steps_per_second"]:
        rate = progress["steps_per_second"] * run.recipe.batch_size
        speeds.add_rate(speeds.training_spec(run), run.loss_type, run.dataset, rate)
