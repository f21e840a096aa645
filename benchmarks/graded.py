"""How long the metrics of super-classes take: the same embeddings with and without them.

It prints a Markdown table: medians of the processor seconds of rounds in which both take turns, and
the median of the ratios of the rounds. The embeddings have the form of Omniglot's test images: 659
classes of 20 images, in 20 alphabets. The flat metrics have to be equal.

    python benchmarks/graded.py > benchmarks/results/graded-cpu.md
"""

from __future__ import annotations

import argparse
from functools import partial

import numpy as np
import torch
from bare import describe_machine
from score import in_turns

import dmlbench
from dmlbench.evaluation.ranking import rank, unit

CLASSES, IMAGES_PER_CLASS, ALPHABETS, DIMENSIONS, ROUNDS = 659, 20, 20, 128, 5
RATIO = 2
"""The target for all metrics."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--classes", type=int, default=CLASSES)
    options = parser.parse_args()
    torch.set_num_threads(1)
    random = np.random.default_rng(0)
    labels = np.repeat(np.arange(options.classes), IMAGES_PER_CLASS)
    alphabets = labels % ALPHABETS
    means = random.normal(size=(options.classes, DIMENSIONS))
    centres = random.normal(size=(ALPHABETS, DIMENSIONS))[alphabets] + means[labels]
    embeddings = (centres + 1.5 * random.normal(size=centres.shape)).astype(np.float32)
    vectors, rows = unit(embeddings), np.arange(len(labels))
    work = {
        "all metrics": (
            partial(dmlbench.score, embeddings, labels),
            partial(dmlbench.score, embeddings, labels, levels={"alphabet": alphabets}),
        ),
        "of them the ranking, without k-means": (
            partial(rank, vectors, labels, rows, rows),
            partial(rank, vectors, labels, rows, rows, levels=[alphabets]),
        ),
    }
    print(
        f"{describe_machine('cpu', 'numpy', 'faiss-cpu')}; {len(labels):,} x {DIMENSIONS}, "
        f"{options.classes} classes, {ALPHABETS} super-classes, {options.rounds} rounds, 1 thread\n"
    )
    print("| what | flat | with super-classes | ratio | target |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for name, (flat, graded) in work.items():
        if name == "all metrics" and not flat().items() <= graded().items():
            raise SystemExit("the flat metrics differ")
        without, with_levels = in_turns(flat, graded, options.rounds)
        ratio = float(np.median(with_levels / without))
        is_all = name == "all metrics"
        missed = " **missed**" if is_all and ratio > RATIO else ""
        target = f"<= {RATIO}" if is_all else ""
        seconds = f"{np.median(without):.3g} s | {np.median(with_levels):.3g} s"
        print(f"| {name} | {seconds} | {ratio:.2f}{missed} | {target} |", flush=True)


if __name__ == "__main__":
    main()
