"""How long the jobs of a study take on a cluster, and how much memory they need.

The speed is that of finished runs of the study on the cluster, else that of a probe there, else a
cautious guess from the size of the model. The machine that submits is not the one that computes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from dmlbench.planning.cost import Cell, count_by_dataset, read_cell, read_trial_cell
from dmlbench.planning.measured_speed import read_throughput
from dmlbench.planning.model_size import ModelSize, model_sizes, size_spec
from dmlbench.planning.throughput import Device, ModelSpeed, forward_passes, last_probed
from dmlbench.study.run import Run
from dmlbench.study.study import Study
from dmlbench.training.provenance import processor
from dmlbench.utils.files import read_json_if_whole, write_json

GPU_OPERATIONS, CPU_OPERATIONS = 5e12, 15e9
"""Operations per second of a slow GPU, and of one core of a slow CPU (a third of what the small
models reach, which use a core worst)."""
MIN_STEP_SECONDS = 0.05
"""A step takes at least this long, or that of each chunk: for small models, starting the kernels
takes the time."""
START_SECONDS = 60.0
"""From the start of the process to the first step, on a shared file system."""
MAX_RESULTS_READ = 200
"""Results that are asked on which device they were made."""
SCORING_SECONDS, SCORING_IMAGES, SCORING_DIM = 480.0, 60_502, 512
"""Scoring this many images takes this long on one core if the network collapsed in part."""

PROCESS_MB, CUDA_MB = 1_000, 3_000
"""Memory of a process with torch, timm and the small tables, and what CUDA adds to it."""
SNAKEMAKE_MB = 500
"""Memory of Snakemake itself, which runs twice in a job of SLURM."""
STATES = 5
"""Copies of the parameters: value, gradient, two moments, and a checkpoint that is written."""
KEPT_ACTIVATIONS = 1.3
"""Memory of a step on the CPU, as a multiple of the activations of its batch, or of a chunk."""
LIVE_ACTIVATIONS = 0.3
"""The share of the activations that are in memory at once when images are only embedded."""
EMBEDDED_AT_ONCE = 256
"""Images; a test compares it with `dmlbench.training.embedding.EMBED_BATCH`."""
PREPARED_BATCHES = 8
"""Batches of bytes that are prepared, pinned or copied at the same time."""
SPARE = 1.25
"""Memory is asked for with this factor."""
UNKNOWN_MB = 8_000
"""Memory of a training if the size of its model is not known."""


class Estimate(NamedTuple):
    """What the jobs of a data set, a backbone and a loss take; all seeds take the same."""

    training_seconds: float | None
    """None: the number of images is not known, as long as they are not packed."""
    scoring_seconds: float | None
    training_mb: int
    scoring_mb: int
    trial_seconds: float | None = None
    """None: there are no trials, or the number of images is not known."""


def estimate_jobs(study: Study, stores: Path) -> dict[str, Estimate]:
    """`Run.cell` -> estimate, for all runs of `study`.

    Args:
        stores: the folder of the packed images.
    """
    on_gpu = study.settings.cluster.device == "gpu"
    device = _cluster_device(study, on_gpu)
    speeds = read_throughput(study, device)
    counts = count_by_dataset(study, stores)
    runs = {run.cell: run for run in study.runs.values()}
    sizes = model_sizes(runs.values())
    estimates = {}
    for name, run in runs.items():
        size = sizes.get(size_spec(run)) if run.uses_model else None
        cell = read_cell(run, counts, speeds)
        if size and not cell.speed and not cell.rate:
            cell.speed = guess_speed(size, run, on_gpu)
        is_known = not cell.uncounted
        dim = size.features if size and run.control == "frozen" else run.embedding_dim
        scoring = cell.scoring_seconds or guess_scoring_seconds(cell.work.tested, dim)
        estimates[name] = Estimate(
            cell.training_seconds(0.0) if is_known else None,
            scoring if is_known else None,
            training_memory(cell, size, on_gpu),
            scoring_memory(cell.work.tested, dim),
        )
        if trials := study.tuned_cells.get(name):
            tried = read_trial_cell(trials[0], counts, speeds)
            tried.speed = cell.speed
            if tried.validation_seconds is None:
                tried.validation_seconds = guess_scoring_seconds(tried.held_out, dim)
            seconds = tried.seconds(0.0) if tried.is_counted else None
            estimates[name] = estimates[name]._replace(trial_seconds=seconds)
    return estimates


def write_estimates(estimates: Mapping[str, Estimate], file: Path) -> None:
    """Keep the estimates for the jobs: each must know the time limit that it was submitted with."""
    write_json(file, {name: [*estimate] for name, estimate in estimates.items()})


def read_estimates(file: Path) -> dict[str, Estimate]:
    """What `write_estimates` wrote; empty if the file is missing."""
    content = read_json_if_whole(file) or {}
    return {name: Estimate(*values) for name, values in content.items()}


def guess_speed(size: ModelSize, run: Run, on_gpu: bool) -> ModelSpeed:
    """The speed of a model on a slow GPU, or on the cores of a slow CPU."""
    threads = run.recipe.cpu_threads
    operations = GPU_OPERATIONS if on_gpu else CPU_OPERATIONS * threads
    passes, at_once = forward_passes(run.recipe), run.recipe.chunk or run.recipe.batch_size
    seconds = max(passes * size.operations * at_once / operations, MIN_STEP_SECONDS)
    rate = at_once / seconds
    return ModelSpeed(rate, passes * rate, START_SECONDS, size.parameters, size.features)


def guess_scoring_seconds(images: float, dim: int) -> float:
    """Seconds that scoring takes at worst; they grow with the square of the number of images."""
    return SCORING_SECONDS * (images / SCORING_IMAGES) ** 2 * max(1.0, dim / SCORING_DIM)


def training_memory(cell: Cell, size: ModelSize | None, on_gpu: bool) -> int:
    """MB of memory that a training of `cell` needs, apart from that of the GPU."""
    run = cell.run
    reads_features = size and run.control in ("untrained_pca", "frozen")
    dim = size.features if size and reads_features else run.embedding_dim
    vectors = 2 * 4 * dim * (cell.work.tested + cell.work.refreshed_at_once)
    if not run.uses_model:
        return _with_spare(PROCESS_MB + vectors / 1e6)
    if not size:
        return UNKNOWN_MB
    batch, side = run.recipe.batch_size, run.model.image_size
    numbers = STATES * size.parameters
    images = PREPARED_BATCHES * max(batch, EMBEDDED_AT_ONCE) * run.facts["channels"] * side**2
    if not on_gpu:
        step = KEPT_ACTIVATIONS * (run.recipe.chunk or batch)
        embedding = LIVE_ACTIVATIONS * EMBEDDED_AT_ONCE
        numbers += int(max(step, embedding) * size.activations)
    base = PROCESS_MB + (CUDA_MB if on_gpu else 0)
    return _with_spare(base + (4 * numbers + images + vectors) / 1e6)


def scoring_memory(images: int, dim: int) -> int:
    """MB of memory that scoring needs: embeddings in float64, and blocks of similarities."""
    return _with_spare(PROCESS_MB + 4 * 8 * images * dim / 1e6)


def _with_spare(megabytes: float) -> int:
    """Round up to 100 MB, with a reserve and the memory of Snakemake."""
    return 100 * -(-round(SPARE * megabytes + SNAKEMAKE_MB) // 100)


def _cluster_device(study: Study, on_gpu: bool) -> Device:
    """The device of the cluster: of most finished runs, else of the last probe.

    For CPUs, this machine stands in for the others. No GPU has an empty name.
    """
    names: Counter[str] = Counter()
    for run in {run.cell: run for run in study.runs.values() if run.uses_model}.values():
        result = study.files.run(run.path).read_run()
        name = (result or {}).get("provenance", {}).get("device")
        if name and name.startswith("cpu (") != on_gpu:
            names[name] += 1
        if names.total() >= MAX_RESULTS_READ:
            break
    name = next((name for name, _ in names.most_common(1)), None) or last_probed(on_gpu)
    if not on_gpu:
        return Device(name or f"cpu ({processor()})", 0)
    return Device(name or "", 1)
