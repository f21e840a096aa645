"""How long the metrics of 512-dimensional embeddings take, beside their peers on the same numbers.
Prints Markdown tables of medians of rounds in which all take turns.

    python benchmarks/evaluation.py                 # one CPU thread, 20,000 images
    python benchmarks/evaluation.py --size sop      # 60,502 images, as Stanford Online Products
    python benchmarks/evaluation.py --device cuda --size sop

On CPU, processor seconds are measured, so that other work on the machine counts little. The peer of
retrieval is the least that any such metric needs: faiss's product of all pairs with the R nearest
images of each query. The peer of all metrics is pytorch-metric-learning's AccuracyCalculator on the
whole gallery (k=None), as its MAP and MRR need it; for 1,000 queries of 20,000 images or fewer of
more, as it holds all pairs in memory several times over.

On a GPU, seconds of the clock and the GPU memory that is taken above the embeddings. The least that
any such metric needs is torch's float32 product of all pairs in blocks, and each query's nearest
images. It needs nothing but torch and numpy; peers that are not installed are left out, and the
memory of faiss is not known to torch.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from functools import partial
from importlib.util import find_spec

import numpy as np
import torch
from bare import found_version, machine
from numpy.typing import NDArray

from dmlbench.evaluation import evaluate
from dmlbench.evaluation.clustering import ami, nmi
from dmlbench.evaluation.kmeans import kmeans
from dmlbench.evaluation.ranking import rank, unit
from dmlbench.evaluation.retrieval import (
    map_at_r,
    mean_average_precision,
    mean_reciprocal_rank,
    r_precision,
    recall_at,
)

SIZES = {"20k": (20_000, 1_000), "sop": (60_502, 11_316)}  # images, classes
DIMENSIONS, ROUNDS = 512, 3
RANKED, CALCULATED = 20_000, 1_000  # queries on CPU: ours and faiss.knn, AccuracyCalculator
# The deviation of an embedding from its class's centre, in those of the centres.
SPREADS = {"trained": 2.0, "hardly trained": 3.0, "random": np.inf}
RETRIEVAL = ("precision_at_1", "r_precision", "mean_average_precision_at_r")
WHOLE = (*RETRIEVAL, "mean_average_precision", "mean_reciprocal_rank")
CLUSTERING = ("NMI", "AMI")
SETTINGS = {
    "recall_at": [1, 10, 100, 1000],
    "kmeans_seed": 0,
    "kmeans_iterations": 20,
    "kmeans_restarts": 3,
    "threads": 1,
}
RETRIEVAL_RATIO, WHOLE_RATIO = 1.25, 0.7  # asked for on a CPU
SECONDS, MEMORY = 5, 4e9  # asked for, of all metrics of SOP on a GPU; memory in bytes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--device", default="cpu", help="cpu, or one of torch's, as cuda")
    parser.add_argument("--size", default="20k", choices=SIZES)
    options = parser.parse_args()
    images, classes = SIZES[options.size]
    torch.set_num_threads(1)
    packages = (
        *("torch", "numpy", "faiss-gpu", "faiss-cpu"),
        *("pytorch-metric-learning", "scikit-learn"),
    )
    print(
        f"{machine(options.device, *filter(installed, packages))}; {images:,} x {DIMENSIONS}, "
        f"{classes:,} classes, median of {ROUNDS} rounds, 1 CPU thread\n"
    )
    if options.device == "cpu":
        on_cpu(images, classes)
    else:
        on_gpu(images, classes, options.device)


def on_cpu(images: int, classes: int) -> None:
    import faiss

    faiss.omp_set_num_threads(1)
    ranked = np.arange(images)[:: -(-images // RANKED)]
    print(
        f"| embeddings, {len(ranked):,} queries | MAP | retrieval metrics | faiss.knn | ratio "
        "| asked for |"
    )
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for name, spread in SPREADS.items():
        vectors, labels = embeddings(images, classes, spread)
        ours, theirs, scores = side_by_side(
            partial(retrieval, vectors, labels, ranked),
            partial(
                *(faiss.knn, vectors[ranked], vectors, images // classes),
                metric=faiss.METRIC_INNER_PRODUCT,
            ),
        )
        print(f"| {name} | {scores['map']:.3f} | {row(ours, theirs, RETRIEVAL_RATIO)}")

    vectors, labels = embeddings(images, classes, SPREADS["trained"])
    half, tenth = vectors.copy(), ranked[::10]
    half[: images // 2] = half[0]  # a network that has collapsed in part
    ours, theirs, scores = side_by_side(
        partial(retrieval, half, labels, tenth),
        partial(
            *(faiss.knn, half[tenth], half, images // classes), metric=faiss.METRIC_INNER_PRODUCT
        ),
    )
    name = f"half of them the same vector, {len(tenth):,} queries"
    print(f"| {name} | {scores['map']:.3f} | {row(ours, theirs)}")

    if not (find_spec("pytorch_metric_learning") and find_spec("sklearn")):
        print("\npytorch-metric-learning or scikit-learn is not installed.")
        return
    from sklearn.metrics import adjusted_mutual_info_score, normalized_mutual_info_score

    found = kmeans(vectors, classes, 0, iterations=20, restarts=1)
    some = ranked[: CALCULATED * SIZES["20k"][0] // images]
    peer = partial(calculator, vectors, labels)
    work = {
        f"retrieval metrics of {len(some):,} queries": (
            lambda: retrieval(vectors, labels, some),
            lambda: peer(some, None, WHOLE),
        ),
        "its k='max_bin_count', without MAP and MRR": (
            lambda: retrieval(vectors, labels, some),
            lambda: peer(some, "max_bin_count", RETRIEVAL),
        ),
        "k-means of one start, 20 iterations, NMI, AMI": (
            lambda: scores_of(labels, kmeans(vectors, classes, 0, iterations=20, restarts=1)),
            lambda: peer(np.arange(images), None, CLUSTERING),
        ),
        "of it NMI": (
            lambda: nmi(labels, found),
            lambda: normalized_mutual_info_score(labels, found),
        ),
        "of it AMI": (
            lambda: ami(labels, found),
            lambda: adjusted_mutual_info_score(labels, found),
        ),
    }
    print("\n| embeddings `trained` | dmlbench | AccuracyCalculator | ratio | asked for |")
    print("| --- | ---: | ---: | ---: | ---: |")
    seconds = {}
    for name, (one, other) in work.items():
        seconds[name] = side_by_side(one, other)[:2]
        print(f"| {name} | {row(*seconds[name])}")
    first, _, clusters, *_ = seconds.values()
    ours, theirs = (sum(both) for both in zip(first, clusters, strict=True))
    print(f"| all metrics: the first row and the third | {row(ours, theirs, WHOLE_RATIO)}")


def on_gpu(images: int, classes: int, device: str) -> None:
    vectors, labels = embeddings(images, classes, SPREADS["trained"])
    ids = np.arange(images)
    index = {"id": ids, "label": labels}
    role, repetition = np.full(images, "both"), np.zeros(images, dtype=np.int32)
    protocol = {"protocol": role, "id": ids, "role": role, "repetition": repetition}
    relevant = int(np.bincount(labels).max() - 1)
    print("| what | seconds | GPU memory above the embeddings | asked for |")
    print("| --- | ---: | ---: | ---: |")
    work: dict[str, Callable[[], object]] = {
        "all metrics": partial(evaluate, vectors, ids, index, protocol, SETTINGS, device=device),
        "of them retrieval": partial(retrieval, vectors, labels, ids, device),
        "bare product and nearest": partial(nearest, vectors, relevant, device),
    }
    for name, seconds, memory in in_turns(work, vectors.nbytes, device):
        asked = f"{SECONDS} s, {MEMORY / 1e9:.0f} GB" if name == "all metrics" else ""
        print(f"| {name} | {seconds:.3g} | {memory / 1e9:.2f} GB | {asked} |", flush=True)
    # Two CUDA libraries in one process may not get along: peers come last, and may fail.
    for name, peer in peers(vectors, labels, relevant, device):
        try:
            _, seconds, _ = next(in_turns({name: peer}, vectors.nbytes, device))
            print(f"| {name} | {seconds:.3g} | | |", flush=True)
        except Exception as error:
            print(f"| {name} | failed: {type(error).__name__} | | |", flush=True)
    some = ids[:: images // 50]
    same = np.array_equal(
        rank(vectors, labels, some, ids, device=device).ranks, slow_ranks(vectors, labels, some)
    )
    verdict = "equal" if same else "DIFFER FROM"
    print(f"\nThe ranks of {len(some)} queries {verdict} those of a loop in float64.")
    raise SystemExit(None if same else "the ranks are wrong")


def peers(
    vectors: NDArray[np.float32], labels: NDArray[np.integer], k: int, device: str
) -> Iterator[tuple[str, Callable[[], object]]]:
    """Name and work of those that are installed."""
    if not find_spec("faiss"):
        print("| peers: faiss is not installed | | | |")
        return
    if find_spec("pytorch_metric_learning") and find_spec("sklearn"):
        metrics = (*RETRIEVAL, *CLUSTERING)
        yield (
            "AccuracyCalculator, without MAP and MRR",
            partial(
                *(calculator, vectors, labels, np.arange(len(vectors)), "max_bin_count"),
                *(metrics, device),
            ),
        )
    import faiss

    if hasattr(faiss, "StandardGpuResources"):
        resources, metric = faiss.StandardGpuResources(), faiss.METRIC_INNER_PRODUCT
        search = partial(faiss.knn_gpu, resources, vectors, vectors, k, metric=metric)
        yield "faiss.knn_gpu", search


def in_turns(
    work: dict[str, Callable[[], object]], embeddings: int, device: str
) -> Iterator[tuple[str, float, int]]:
    """Name, median seconds and peak GPU bytes above the `embeddings` of each piece of work."""
    for piece in work.values():
        piece()  # what a first call loads counts for nobody
    seconds, memory = np.empty((ROUNDS, len(work))), dict.fromkeys(work, 0)
    for turn in seconds:
        for place, (name, piece) in enumerate(work.items()):
            if device.startswith("cuda"):
                torch.cuda.reset_peak_memory_stats()
            began = time.perf_counter()
            piece()  # which ends with numbers on the host, so nothing is still running
            turn[place] = time.perf_counter() - began
            if device.startswith("cuda"):
                memory[name] = max(0, torch.cuda.max_memory_allocated() - embeddings)
    yield from zip(work, np.median(seconds, axis=0).tolist(), memory.values(), strict=True)


def slow_ranks(
    vectors: NDArray[np.float32], labels: NDArray[np.integer], queries: NDArray[np.integer]
) -> NDArray[np.integer]:
    exact, rows, ranks = vectors.astype(np.float64), np.arange(len(vectors)), []
    for query in queries:
        order = np.lexsort((rows, -(exact @ exact[query]).astype(np.float32)))
        ranks.append(1 + np.flatnonzero(labels[order[order != query]] == labels[query]))
    return np.concatenate(ranks)


def nearest(vectors: NDArray[np.float32], k: int, device: str, block: int = 2**25) -> torch.Tensor:
    """The `k` nearest images of every image: the bare limit, in float32 proper."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    images = torch.from_numpy(vectors).to(device)
    found = [
        (queries @ images.T).topk(k).indices for queries in images.split(block // len(vectors))
    ]
    torch.set_float32_matmul_precision(before)
    return torch.cat(found).cpu()


def calculator(
    vectors: NDArray[np.float32],
    labels: NDArray[np.integer],
    queries: NDArray[np.integer],
    k: str | None,
    include: tuple[str, ...],
    device: str = "cpu",
) -> dict[str, float]:
    from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator

    every, its = torch.from_numpy(vectors).to(device), torch.from_numpy(labels).to(device)
    calculate = AccuracyCalculator(include=include, k=k, device=torch.device(device))
    return calculate.get_accuracy(every[queries], its[queries], every, its, ref_includes_query=True)


def embeddings(
    images: int, classes: int, spread: float
) -> tuple[NDArray[np.float32], NDArray[np.integer]]:
    """Gaussian classes of equal size around Gaussian centres, as unit vectors, and their labels."""
    random = np.random.default_rng(0)
    labels = random.permutation(images) % classes
    centres = random.normal(size=(classes, DIMENSIONS)) / (spread if np.isfinite(spread) else 1)
    noise = random.normal(size=(images, DIMENSIONS))
    return unit(noise + np.isfinite(spread) * centres[labels]), labels


def retrieval(
    vectors: NDArray[np.float32],
    labels: NDArray[np.integer],
    queries: NDArray[np.integer],
    device: str = "cpu",
) -> dict[str, float]:
    ranking = rank(vectors, labels, queries, np.arange(len(vectors)), device=device)
    return {
        **{f"recall@{k}": recall_at(k, ranking) for k in SETTINGS["recall_at"]},
        "r_precision": r_precision(ranking),
        "map@r": map_at_r(ranking),
        "map": mean_average_precision(ranking),
        "mrr": mean_reciprocal_rank(ranking),
    }


def scores_of(labels: NDArray, clusters: NDArray) -> tuple[float, float]:
    return nmi(labels, clusters), ami(labels, clusters)


def side_by_side(*work: Callable[[], object]) -> tuple:
    """Median processor seconds of each piece of work, and what the first one gave."""
    seconds = np.empty((ROUNDS, len(work)))
    for turn in seconds:
        for place, piece in reversed(list(enumerate(work))):
            began = time.process_time()
            result = piece()
            turn[place] = time.process_time() - began
    return *np.median(seconds, axis=0), result


def row(ours: float, theirs: float, most: float | None = None) -> str:
    missed = " **missed**" if most and ours > most * theirs else ""
    asked = f"<= {most}" if most else ""
    return f"{ours:.3g} s | {theirs:.3g} s | {ours / theirs:.2f}{missed} | {asked} |"


def installed(package: str) -> bool:
    return found_version(package) != "missing"


if __name__ == "__main__":
    main()
