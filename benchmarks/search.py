"""Searches on a GPU: right ranks and clusters, and faiss beside torch, in one process and in time.

    python benchmarks/search.py ranks clusters --device cuda
    python benchmarks/search.py torch_then_faiss --device cuda
    python benchmarks/search.py faiss_then_torch --device cuda
    python benchmarks/search.py faiss_beside_torch --device cuda

`benchmarks/gpu.py` runs them. They run on a CPU too, but most can find nothing there. The script
needs torch and numpy; without faiss, what asks for it is skipped.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bare import is_installed, package_version, run_checks
from evaluation import SPREADS, embeddings, nearest
from numpy.typing import NDArray

from dmlbench.evaluation import torch_ranking
from dmlbench.evaluation.faiss_kmeans import SEARCH, FaissPoints, faiss_sees_gpu
from dmlbench.evaluation.kmeans import cluster, kmeans
from dmlbench.evaluation.ranking import rank, unit
from dmlbench.evaluation.torch_kmeans import TorchPoints
from dmlbench.utils.arithmetic import use_ieee_float32

SKIPPED = "skipped: faiss is missing"
NEAREST, ROUNDS = 11, {"cuda": 5, "cpu": 1}
"""NEAREST: the largest R of Stanford Online Products."""
SIZES = {"cuda": (60_502, 11_316, 20), "cpu": (600, 60, 2)}
"""Images, classes and iterations of k-means. On a GPU: as Stanford Online Products."""
CHECKED = {"cuda": (3000, 300), "cpu": (600, 60)}
"""Vectors and classes whose ranks and clusters are compared with those of a CPU."""


def ranks(device: torch.device, folder: Path) -> str:
    """The ranks on this device equal those of plain sorting, with ties in the order of the rows."""
    count, classes = CHECKED[device.type]
    labels = np.random.default_rng(0).integers(classes, size=count)
    points = np.random.default_rng(1).normal(size=(count, 64)) + 2 * labels[:, None] % 7
    points[::50] = points[0]  # many are equal
    points, rows = unit(points), np.arange(count)
    similarities = (points.astype(np.float64) @ points.astype(np.float64).T).astype(np.float32)
    np.fill_diagonal(similarities, -np.inf)
    order = np.argsort(-similarities, axis=1, kind="stable")
    relevant = (labels[order] == labels[:, None]) & (order != rows[:, None])
    expected = relevant.nonzero()[1] + 1
    different = 0
    for torch_ranking.COMPARED in (0, 10**9):  # by sorting, by comparing
        ranking = rank(points, labels, rows, rows, device=by_torch(device))
        different = max(different, np.count_nonzero(ranking.ranks != expected))
    remark = f"{len(expected)} ranks, {different} differ"
    assert different <= 3, remark  # one similarity in 10⁸ is rounded differently
    return remark


def clusters(device: torch.device, folder: Path) -> str:
    """k-means on this device repeats its result, which is as good as that of torch on a CPU."""
    count, k = CHECKED[device.type]
    labels = np.random.default_rng(0).integers(k, size=count)
    centres, noise = (np.random.default_rng(n).normal(size=(count, 64)) for n in (1, 2))
    points = unit(centres[labels] + noise)
    points[::50] = points[0]  # many are equal
    first, second, expected = (
        kmeans(points, k, 0, 20, 1, device=d) for d in (by_torch(device), by_torch(device), "cpu:0")
    )
    assert np.array_equal(first, second)
    reached, on_cpu = inertia(points, first), inertia(points, expected)
    remark = f"inertia {reached:.1f}, and {on_cpu:.1f} on the CPU"
    assert abs(reached / on_cpu - 1) < 0.02, remark
    return remark


def by_torch(device: torch.device) -> str:
    """The name of `device` with which torch computes: on "cpu", numpy and faiss do."""
    return "cpu:0" if device.type == "cpu" else device.type


def inertia(points: NDArray, clusters: NDArray) -> float:
    means = np.zeros((clusters.max() + 1, points.shape[1]))
    np.add.at(means, clusters, points)
    means /= np.bincount(clusters)[:, None].clip(1)
    return float(np.square(points - means[clusters]).sum())


def torch_then_faiss(device: torch.device, folder: Path) -> str:
    """Both find the same neighbours in one process; the libraries of torch are loaded first."""
    neighbours = neighbours_by_torch(device)
    if not is_installed("faiss"):
        return SKIPPED
    return compare_neighbours(neighbours, *neighbours_by_faiss())


def faiss_then_torch(device: torch.device, folder: Path) -> str:
    """The same, with those of faiss first. (torch is imported, but has not used the GPU.)"""
    if not is_installed("faiss"):
        return SKIPPED
    neighbours = neighbours_by_faiss()
    return compare_neighbours(neighbours_by_torch(device), *neighbours)


def vectors() -> NDArray[np.float32]:
    return np.random.default_rng(0).normal(size=(4000, 64)).astype(np.float32)


def neighbours_by_torch(device: torch.device) -> NDArray[np.integer]:
    points = torch.from_numpy(vectors()).to(device)
    return (points[:100] @ points.T).argmax(1).cpu().numpy()


def neighbours_by_faiss() -> tuple[NDArray[np.integer], str]:
    import faiss

    index, gpus = faiss.IndexFlatIP(64), getattr(faiss, "get_num_gpus", int)()
    if gpus:
        index = faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), 0, index)
    index.add(vectors())
    description = f"faiss {package_version('faiss')} sees {gpus} GPUs"
    return index.search(vectors()[:100], 1)[1][:, 0], description


def compare_neighbours(by_torch: NDArray, by_faiss: NDArray, faiss: str) -> str:
    same = np.mean(by_torch == by_faiss)
    remark = f"{faiss}; {same:.0%} of the neighbours are equal"
    assert same > 0.98, remark
    return remark


def faiss_beside_torch(device: torch.device, folder: Path) -> str:
    """How fast both are where a search for the nearest is what is wanted, with the same answers.

    In the package, that is the assignment in k-means alone: all other metrics need the ranks of all
    images of a class. The nearest images of each image are measured for comparison.
    """
    if not is_installed("faiss"):
        return SKIPPED
    if device.type == "cuda" and not faiss_sees_gpu():
        return "skipped: faiss sees no GPU"
    import faiss

    use_ieee_float32()
    images, classes, iterations = SIZES[device.type]
    points, _ = embeddings(images, classes, SPREADS["trained"])
    place = by_torch(device)
    resources = faiss.StandardGpuResources() if device.type == "cuda" else None
    print("| search | torch | faiss | torch / faiss |")
    print("| --- | ---: | ---: | ---: |")
    searches = [
        lambda: nearest(points, NEAREST, place).numpy(),
        lambda: nearest_by_faiss(points, NEAREST, resources),
    ]
    compare(f"{NEAREST} nearest of {images:,} images", searches, 0.99, device)

    rows, columns = np.arange(images), np.arange(classes)
    seeds = np.random.default_rng(0).choice(images, classes, replace=False)
    both = [way(points, classes, place) for way in (TorchPoints, FaissPoints)]
    for way in both:
        way.place(columns, seeds)
    assign = [lambda way=way: way.nearest(rows, columns)[0] for way in both]
    compare(f"{images:,} images to the nearest of {classes:,} centroids", assign, 0.9999, device)

    starts = [lambda way=way: cluster(way, 0, iterations, 1) for way in both]
    ratio = compare(f"k-means of one start, {iterations} iterations", starts, 0.99, device)
    if ratio >= 1:
        return f"k-means: faiss is {ratio:.2f} times as fast as torch: set {SEARCH}=faiss"
    return f"k-means: torch is {1 / ratio:.2f} times as fast as faiss, and stays"


def nearest_by_faiss(points: NDArray[np.float32], k: int, resources: Any) -> NDArray[np.integer]:
    """The `k` nearest of every vector, on the GPU of `resources`; None: on the CPU."""
    import faiss

    metric = faiss.METRIC_INNER_PRODUCT
    if resources is None:
        return faiss.knn(points, points, k, metric=metric)[1]
    return faiss.knn_gpu(resources, points, points, k, metric=metric)[1]


def compare(
    name: str, ways: Sequence[Callable[[], NDArray]], least_equal: float, device: torch.device
) -> float:
    """Print the seconds of torch and of faiss, and return their ratio.

    Each result is copied to the host, so nothing is still running when a clock is read.

    Raises:
        AssertionError: less than this share of the answers is equal.
    """
    first, second = (way() for way in ways)  # what a first call loads is not counted
    seconds: list[list[float]] = [[], []]
    for _ in range(ROUNDS[device.type]):
        for way, times in zip(ways, seconds, strict=True):
            began = time.perf_counter()
            way()
            times.append(time.perf_counter() - began)
    torch_seconds, faiss_seconds = map(statistics.median, seconds)
    ratio = torch_seconds / faiss_seconds
    print(f"| {name} | {torch_seconds:.3g} s | {faiss_seconds:.3g} s | {ratio:.2f} |", flush=True)
    same = np.mean(first == second)
    assert same >= least_equal, f"{name}: {same:.4%} of the answers are equal"
    return ratio


def main() -> None:
    checks = [ranks, clusters, torch_then_faiss, faiss_then_torch, faiss_beside_torch]
    run_checks(checks, __doc__.split("\n\n")[0])


if __name__ == "__main__":
    main()
