"""Cores and GPUs of the jobs of a study."""

from __future__ import annotations

from pathlib import Path

from dmlbench.study.class_sizes import count_used_images
from dmlbench.study.cluster import Cluster
from dmlbench.study.run import GPU_SCORING_IMAGES, Run

GPU_CORES = 9
"""The most cores that a training on a GPU uses: one drives the GPU, the others prepare images."""
PACK_CORES, PACK_MINUTES, PACK_MB = 4, 240, 4000
"""What a job on a cluster asks for that packs images."""
FEATURES_MINUTES = 480
"""What a job on a cluster asks for that computes the features of a frozen backbone. If it ends
before them, the next attempt goes on."""
PICTURE_CORES = 2
"""The cores of a job that draws pictures: its maps gain little by more."""


def training_threads(run: Run, cores: int, gpu_runs: int) -> int:
    """The cores that the training of `run` gets on this machine.

    A training on a GPU gets an equal share of the cores, for the threads that prepare its images;
    the cores of one scoring are kept free. A training on a CPU gets what its recipe says. No number
    depends on this: arithmetic on the CPU uses `recipe.cpu_threads`.

    Args:
        cores: cores of this machine that jobs may use.
        gpu_runs: trainings that run on GPUs at the same time; 0 if there is no GPU.
    """
    threads = run.recipe.cpu_threads
    if not (gpu_runs and run.uses_model):
        return threads
    return max(threads, min(GPU_CORES, (cores - run.evaluation.threads) // gpu_runs))


def cluster_threads(run: Run, cluster: Cluster) -> int:
    """The cores that the training of `run` asks for on a cluster."""
    threads = run.recipe.cpu_threads
    if cluster.device == "cpu" or not run.uses_model:
        return threads
    return max(threads, cluster.cores_per_gpu)


def scores_on_gpu(run: Run, store: Path) -> bool:
    """Whether `run` is scored on a GPU if there is one: it has many test images.

    Args:
        store: folder of the packed test images. It does not have to exist yet.
    """
    return (count_used_images(run.tested, store) or {}).get("test", 0) >= GPU_SCORING_IMAGES
