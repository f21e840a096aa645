"""How long the metrics of 512-dimensional embeddings take, compared with peers on the same numbers.

It prints Markdown tables of medians of rounds in which all take turns.

    python benchmarks/evaluation.py                 # one CPU thread, 20,000 images
    python benchmarks/evaluation.py --size sop      # 60,502 images, as Stanford Online Products
    python benchmarks/evaluation.py --device cuda --size sop
    python benchmarks/evaluation.py --device cpu:0 --size tiny    # what runs on a GPU, in miniature

On a CPU it measures processor seconds, so that other work on the machine counts little. The peer of
retrieval is the least that any such metric needs: faiss's product of all pairs with the R nearest
images of each query. The peer of all metrics is the AccuracyCalculator of pytorch-metric-learning
on the whole gallery (k=None), as its MAP and MRR need it. It has 1,000 queries of 20,000 images, or
fewer of more images, because it holds all pairs in memory several times over.

On a GPU it measures seconds of the clock, and the GPU memory above the embeddings. The least that
any such metric needs is torch's float32 product of all pairs in blocks, and each query's nearest
images. It needs nothing but torch and numpy. Peers that are not installed are left out, and torch
does not know the memory of faiss.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import torch
from bare import describe_machine, hold_gpu, is_installed, package_version
from numpy.typing import NDArray

from dmlbench.evaluation.clustering import ami, nmi
from dmlbench.evaluation.evaluate import evaluate
from dmlbench.evaluation.kmeans import kmeans
from dmlbench.evaluation.ranking import rank, unit
from dmlbench.evaluation.retrieval import (
    average_precision_at_r,
    mean_average_precision,
    mean_reciprocal_rank,
    r_precision,
    recall_at,
)
from dmlbench.utils.arithmetic import use_ieee_float32

SIZES = {"tiny": (600, 60), "20k": (20_000, 1_000), "sop": (60_502, 11_316)}
"""Images and classes; the first is for a test of the script."""
DIMENSIONS, ROUNDS = 512, 3
MAX_QUERIES, PEER_QUERIES = 20_000, 1_000
"""Queries on a CPU: of ours and faiss.knn, and of the AccuracyCalculator."""
SPREADS = {"trained": 2.0, "hardly trained": 3.0, "random": np.inf}
"""Deviation of an embedding from the centre of its class, in units of that of the centres."""
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
RETRIEVAL_RATIO, WHOLE_RATIO = 1.25, 0.7
"""The targets on a CPU."""
SECONDS, MEMORY = 5, 4e9
"""The targets for all metrics of SOP on a GPU: seconds, and bytes of memory."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument(
        "--device",
        default="cpu",
        choices=["cpu", "cuda", "cpu:0"],
        help="cpu:0 is the CPU by torch",
    )
    parser.add_argument("--size", default="20k", choices=SIZES)
    options = parser.parse_args()
    with hold_gpu(options.device):
        measure(options.device, *SIZES[options.size])


def measure(device: str, images: int, classes: int) -> None:
    use_ieee_float32()
    torch.set_num_threads(1)
    packages = (
        "torch",
        "numpy",
        "faiss-gpu",
        "faiss-cpu",
        "pytorch-metric-learning",
        "scikit-learn",
    )
    machine = describe_machine(device, *filter(has_version, packages))
    print(
        f"{machine}; {images:,} x {DIMENSIONS}, {classes:,} classes, "
        f"median of {ROUNDS} rounds, 1 CPU thread\n"
    )
    if device == "cpu":
        on_cpu(images, classes)
    else:
        on_gpu(images, classes, device)


def on_cpu(images: int, classes: int) -> None:
    import faiss

    faiss.omp_set_num_threads(1)
    queries = np.arange(images)[:: -(-images // MAX_QUERIES)]
    print(
        f"| embeddings, {len(queries):,} queries | MAP | retrieval metrics | faiss.knn | ratio "
        "| target |"
    )
    print("| --- | ---: | ---: | ---: | ---: | ---: |")

    def compare(vectors: NDArray[np.float32], queries: NDArray[np.integer]) -> tuple:
        """Seconds of the retrieval metrics and of faiss.knn, and the metrics."""

        def peer() -> object:
            metric = faiss.METRIC_INNER_PRODUCT
            return faiss.knn(vectors[queries], vectors, images // classes, metric=metric)

        return side_by_side(partial(retrieval, vectors, labels, queries), peer)

    for name, spread in SPREADS.items():
        vectors, labels = embeddings(images, classes, spread)
        ours, theirs, scores = compare(vectors, queries)
        print(f"| {name} | {scores['map']:.3f} | {row(ours, theirs, RETRIEVAL_RATIO)}")

    vectors, labels = embeddings(images, classes, SPREADS["trained"])
    collapsed, fewer = vectors.copy(), queries[::10]
    collapsed[: images // 2] = collapsed[0]  # a network of which a part has collapsed
    ours, theirs, scores = compare(collapsed, fewer)
    name = f"half of them the same vector, {len(fewer):,} queries"
    print(f"| {name} | {scores['map']:.3f} | {row(ours, theirs)}")

    if not (is_installed("pytorch_metric_learning") and is_installed("sklearn")):
        print("\npytorch-metric-learning or scikit-learn is not installed.")
        return
    from sklearn.metrics import adjusted_mutual_info_score, normalized_mutual_info_score

    clusters = kmeans(vectors, classes, 0, iterations=20, restarts=1)
    peer_queries = queries[: PEER_QUERIES * SIZES["20k"][0] // images]
    peer = partial(calculator, vectors, labels)
    work = {
        f"retrieval metrics of {len(peer_queries):,} queries": (
            lambda: retrieval(vectors, labels, peer_queries),
            lambda: peer(peer_queries, None, WHOLE),
        ),
        "its k='max_bin_count', without MAP and MRR": (
            lambda: retrieval(vectors, labels, peer_queries),
            lambda: peer(peer_queries, "max_bin_count", RETRIEVAL),
        ),
        "k-means of one start, 20 iterations, NMI, AMI": (
            lambda: cluster_scores(labels, kmeans(vectors, classes, 0, iterations=20, restarts=1)),
            lambda: peer(np.arange(images), None, CLUSTERING),
        ),
        "of it NMI": (
            lambda: nmi(labels, clusters),
            lambda: normalized_mutual_info_score(labels, clusters),
        ),
        "of it AMI": (
            lambda: ami(labels, clusters),
            lambda: adjusted_mutual_info_score(labels, clusters),
        ),
    }
    print("\n| embeddings `trained` | dmlbench | AccuracyCalculator | ratio | target |")
    print("| --- | ---: | ---: | ---: | ---: |")
    seconds = {}
    for name, (own_work, peer_work) in work.items():
        seconds[name] = side_by_side(own_work, peer_work)[:2]
        print(f"| {name} | {row(*seconds[name])}")
    whole, _, clustering, *_ = seconds.values()
    ours, theirs = (sum(both) for both in zip(whole, clustering, strict=True))
    print(f"| all metrics: the first row and the third | {row(ours, theirs, WHOLE_RATIO)}")


def on_gpu(images: int, classes: int, device: str) -> None:
    vectors, labels = embeddings(images, classes, SPREADS["trained"])
    ids = np.arange(images)
    index = {"id": ids, "label": labels}
    role, repetition = np.full(images, "both"), np.zeros(images, dtype=np.int32)
    protocol = {"protocol": role, "id": ids, "role": role, "repetition": repetition}
    relevant = int(np.bincount(labels).max() - 1)
    print("| what | seconds | GPU memory above the embeddings | target |")
    print("| --- | ---: | ---: | ---: |")
    work: dict[str, Callable[[], object]] = {
        "all metrics": partial(evaluate, vectors, ids, index, protocol, SETTINGS, device=device),
        "of them retrieval": partial(retrieval, vectors, labels, ids, device),
        "bare product and nearest": partial(nearest, vectors, relevant, device),
    }
    for name, seconds, memory in in_turns(work, vectors.nbytes, device):
        target = f"{SECONDS} s, {MEMORY / 1e9:.0f} GB" if name == "all metrics" else ""
        print(f"| {name} | {seconds:.3g} | {memory / 1e9:.2f} GB | {target} |", flush=True)
    # Two CUDA libraries in one process may conflict: peers come last, and may fail.
    for name, peer in peers(vectors, labels, relevant, device):
        try:
            _, seconds, _ = next(in_turns({name: peer}, vectors.nbytes, device))
            print(f"| {name} | {seconds:.3g} | | |", flush=True)
        except Exception as error:
            print(f"| {name} | failed: {type(error).__name__} | | |", flush=True)
    queries = ids[:: images // 50]
    ranks = rank(vectors, labels, queries, ids, device=device).ranks
    is_equal = np.array_equal(ranks, slow_ranks(vectors, labels, queries))
    verdict = "equal" if is_equal else "DIFFER FROM"
    print(f"\nThe ranks of {len(queries)} queries {verdict} those of a loop in float64.")
    raise SystemExit(None if is_equal else "the ranks are wrong")


def peers(
    vectors: NDArray[np.float32], labels: NDArray[np.integer], k: int, device: str
) -> Iterator[tuple[str, Callable[[], object]]]:
    """Name and work of the peers that are installed."""
    if not is_installed("faiss"):
        print("| peers: faiss is not installed | | | |")
        return
    queries, metrics = np.arange(len(vectors)), (*RETRIEVAL, *CLUSTERING)
    if is_installed("pytorch_metric_learning") and is_installed("sklearn"):
        yield (
            "AccuracyCalculator, without MAP and MRR",
            partial(calculator, vectors, labels, queries, "max_bin_count", metrics, device),
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
        piece()  # what a first call loads is not counted
    seconds, memory = np.empty((ROUNDS, len(work))), dict.fromkeys(work, 0)
    for turn in seconds:
        for place, (name, piece) in enumerate(work.items()):
            if device.startswith("cuda"):
                torch.cuda.reset_peak_memory_stats()
            began = time.perf_counter()
            piece()  # it ends with numbers on the host, so nothing is still running
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
    """The `k` nearest images of every image: the limit, in full float32."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    images = torch.from_numpy(vectors).to(device)
    indices = [
        (queries @ images.T).topk(k).indices for queries in images.split(block // len(vectors))
    ]
    torch.set_float32_matmul_precision(before)
    return torch.cat(indices).cpu()


def calculator(
    vectors: NDArray[np.float32],
    labels: NDArray[np.integer],
    queries: NDArray[np.integer],
    k: str | None,
    include: tuple[str, ...],
    device: str = "cpu",
) -> dict[str, float]:
    from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator

    images, classes = torch.from_numpy(vectors).to(device), torch.from_numpy(labels).to(device)
    calculate = AccuracyCalculator(include=include, k=k, device=torch.device(device))
    return calculate.get_accuracy(
        images[queries], classes[queries], images, classes, ref_includes_query=True
    )


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
        "map@r": float(average_precision_at_r(ranking).mean()),
        "map": mean_average_precision(ranking),
        "mrr": mean_reciprocal_rank(ranking),
    }


def cluster_scores(labels: NDArray, clusters: NDArray) -> tuple[float, float]:
    return nmi(labels, clusters), ami(labels, clusters)


def side_by_side(*work: Callable[[], object]) -> tuple:
    """Median processor seconds of each piece of work, and the result of the first one."""
    seconds = np.empty((ROUNDS, len(work)))
    for turn in seconds:
        for place, piece in reversed(list(enumerate(work))):
            began = time.process_time()
            result = piece()
            turn[place] = time.process_time() - began
    return *np.median(seconds, axis=0), result


def row(ours: float, theirs: float, most: float | None = None) -> str:
    missed = " **missed**" if most and ours > most * theirs else ""
    target = f"<= {most}" if most else ""
    return f"{ours:.3g} s | {theirs:.3g} s | {ours / theirs:.2f}{missed} | {target} |"


def has_version(package: str) -> bool:
    return package_version(package) != "missing"


if __name__ == "__main__":
    main()
