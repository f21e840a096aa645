"""How long `dmlbench.score` takes, compared with the workflow's evaluation of the same embeddings.

It prints a Markdown table: medians of the processor seconds of rounds in which both take turns, and
the median of the ratios of the rounds. The workflow's evaluation reads tables, as those of a store;
`score` takes arrays and a tensor, and has to give equal numbers.

    python benchmarks/score.py > benchmarks/results/score-cpu.md
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from bare import describe_machine

import dmlbench
from dmlbench.evaluation.evaluate import evaluate
from dmlbench.study.settings import Evaluation

IMAGES, CLASSES, DIMENSIONS, ROUNDS = 13_180, 250, 128, 9
RATIO = 1.05
"""The target."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--images", type=int, default=IMAGES)
    options = parser.parse_args()
    torch.set_num_threads(1)
    random = np.random.default_rng(0)
    labels = np.sort(random.permutation(options.images) % CLASSES)
    means = random.normal(size=(CLASSES, DIMENSIONS))
    embeddings = means[labels] + 2 * random.normal(size=(options.images, DIMENSIONS))
    embeddings = embeddings.astype(np.float32)
    tensor = torch.from_numpy(embeddings)
    workflow = partial(evaluate_as_workflow, embeddings, labels)
    print(
        f"{describe_machine('cpu', 'torch', 'numpy', 'faiss-gpu')}; {options.images:,} x "
        f"{DIMENSIONS}, {CLASSES} classes, {options.rounds} rounds, 1 thread\n"
    )
    print("| dmlbench.score of | score | the workflow | ratio | target |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for name, values in {"an array": embeddings, "a tensor": tensor}.items():
        score = partial(dmlbench.score, values, labels)
        if score() != workflow():
            raise SystemExit("the scores differ")
        ours, theirs = in_turns(score, workflow, options.rounds)
        ratio = float(np.median(ours / theirs))
        missed = " **missed**" if ratio > RATIO else ""
        seconds = f"{np.median(ours):.3g} s | {np.median(theirs):.3g} s"
        print(f"| {name} | {seconds} | {ratio:.3f}{missed} | <= {RATIO} |", flush=True)


def evaluate_as_workflow(embeddings: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """The scores by metric, from tables as those of a store."""
    ids = np.arange(len(embeddings))
    columns = {"protocol": "zero_shot", "role": "both"}
    protocols = {name: np.full(len(ids), value, object) for name, value in columns.items()}
    protocols |= {"id": ids, "repetition": np.zeros_like(ids)}
    settings = {**Evaluation().model_dump(mode="json"), "recall_at": [1, 2, 4, 8]}
    scores = evaluate(embeddings, ids, {"id": ids, "label": labels}, protocols, settings)
    return {row["metric"]: row["value"] for row in scores.rows}


def in_turns(first: Callable[[], object], second: Callable[[], object], rounds: int) -> np.ndarray:
    """Processor seconds (2, rounds) of two pieces of work."""
    seconds = np.empty((2, rounds))
    for number in range(rounds):
        for place, work in [(0, first), (1, second)][:: 1 if number % 2 else -1]:
            began = time.process_time()
            work()
            seconds[place, number] = time.process_time() - began
    return seconds


if __name__ == "__main__":
    main()
