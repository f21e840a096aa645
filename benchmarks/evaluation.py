"""How long the metrics of 20,000 embeddings of 512 dimensions take, beside their peers on the same
numbers, one thread each. Prints Markdown tables of processor seconds, so that other work on the
machine counts little: medians of rounds in which both take turns.

    python benchmarks/evaluation.py

The peer of retrieval is the least that any such metric needs: faiss's product of all pairs with the
R nearest images of each query. The peer of all metrics is pytorch-metric-learning's
AccuracyCalculator on the whole gallery (k=None), as its MAP and MRR need it; for 1,000 queries, as
it holds all pairs in memory several times over.
"""

from __future__ import annotations

import datetime
import os
import platform
import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path

import faiss
import numpy as np
import torch
from numpy.typing import NDArray
from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator
from sklearn.metrics import adjusted_mutual_info_score, normalized_mutual_info_score

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

IMAGES, DIMENSIONS, CLASSES, QUERIES, ROUNDS = 20_000, 512, 1_000, 1_000, 3
SPREADS = {"trained": 2.0, "hardly trained": 3.0, "random": np.inf}  # in a class, of its centre's
RETRIEVAL = ("precision_at_1", "r_precision", "mean_average_precision_at_r")
WHOLE = (*RETRIEVAL, "mean_average_precision", "mean_reciprocal_rank")


def main() -> None:
    faiss.omp_set_num_threads(1)
    torch.set_num_threads(1)
    rows = np.arange(IMAGES)
    packages = ("faiss-gpu", "numpy", "pytorch-metric-learning", "scikit-learn", "torch")
    print(
        f"{datetime.date.today()}, {processor()}, {os.cpu_count()} cores, load "
        f"{os.getloadavg()[0]:.1f}, Python {platform.python_version()}, "
        + ", ".join(f"{name} {version(name)}" for name in packages)
        + f"; {IMAGES:,} x {DIMENSIONS}, {CLASSES:,} classes, median of {ROUNDS} rounds, 1 thread\n"
    )
    print("| embeddings | MAP | retrieval metrics | faiss.knn | ratio |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for name, spread in SPREADS.items():
        vectors, labels = embeddings(spread)
        ours, theirs, scores = side_by_side(
            partial(retrieval, vectors, labels, rows),
            partial(faiss.knn, vectors, vectors, IMAGES // CLASSES, faiss.METRIC_INNER_PRODUCT),
        )
        print(f"| {name} | {scores['map']:.3f} | {row(ours, theirs)}")

    vectors, labels = embeddings(SPREADS["trained"])
    found = kmeans(vectors, CLASSES, 0, iterations=20, restarts=1)
    some = rows[:QUERIES]

    def calculator(k: str | None, include: tuple[str, ...], queries: NDArray) -> dict[str, float]:
        calculate = AccuracyCalculator(include=include, k=k, device=torch.device("cpu"))
        return calculate.get_accuracy(
            vectors[queries], labels[queries], vectors, labels, ref_includes_query=True
        )

    clustering = ("NMI", "AMI")
    work = {
        f"retrieval metrics of {QUERIES:,} queries": (
            lambda: retrieval(vectors, labels, some),
            lambda: calculator(None, WHOLE, some),
        ),
        "its k='max_bin_count', without MAP and MRR": (
            lambda: retrieval(vectors, labels, some),
            lambda: calculator("max_bin_count", RETRIEVAL, some),
        ),
        "k-means of one start, 20 iterations, NMI, AMI": (
            lambda: scores_of(labels, kmeans(vectors, CLASSES, 0, iterations=20, restarts=1)),
            lambda: calculator(None, clustering, rows),
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
    print("\n| embeddings `trained` | dmlbench | AccuracyCalculator | ratio |")
    print("| --- | ---: | ---: | ---: |")
    for name, (one, other) in work.items():
        print(f"| {name} | {row(*side_by_side(one, other)[:2])}")


def embeddings(spread: float) -> tuple[NDArray[np.float32], NDArray[np.integer]]:
    """Gaussian classes of equal size around Gaussian centres, as unit vectors, and their labels."""
    random = np.random.default_rng(0)
    labels = random.permutation(IMAGES) % CLASSES
    centres = random.normal(size=(CLASSES, DIMENSIONS)) / (spread if np.isfinite(spread) else 1)
    noise = random.normal(size=(IMAGES, DIMENSIONS))
    return unit(noise + np.isfinite(spread) * centres[labels]), labels


def retrieval(vectors: NDArray, labels: NDArray, queries: NDArray) -> dict[str, float]:
    ranking = rank(vectors, labels, queries, np.arange(IMAGES))
    return {
        **{f"recall@{k}": recall_at(k, ranking) for k in (1, 10, 100, 1000)},
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


def row(ours: float, theirs: float) -> str:
    return f"{ours:.3g} s | {theirs:.3g} s | {ours / theirs:.2f} |"


def processor() -> str:
    """The processor's name, where Linux tells it."""
    facts = Path("/proc/cpuinfo")
    lines = facts.read_text().splitlines() if facts.exists() else []
    names = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


if __name__ == "__main__":
    main()
