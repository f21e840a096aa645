"""How long this machine takes to score embeddings: random ones, by the real evaluation. Runs in a
process of its own: `python -m dmlbench.evaluation.probe SPEC TIME`."""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

import numpy as np

from dmlbench.evaluation import evaluate
from dmlbench.gpus import NOT_SEEN, SCORED_FROM, lease, visible_gpus
from dmlbench.settings import Evaluation

IMAGES, PER_CLASS = 2000, 20


def probe(spec: dict[str, Any], asked: float) -> dict[str, float]:
    """Seconds from the time `asked` to the first arithmetic, and of that on `images` images."""
    count = SCORED_FROM if spec["gpu"] else IMAGES
    random = np.random.default_rng(0)
    ids = np.arange(count)
    index = {"id": ids, "label": ids // PER_CLASS}
    whole = {"protocol": "zero_shot", "role": "both", "repetition": 0}
    protocols = {"id": ids, **{name: np.full(count, value) for name, value in whole.items()}}
    # not all alike: classes that can be told apart take k-means fewer rounds
    centres = random.standard_normal((count // PER_CLASS, spec["dim"]), dtype=np.float32)
    noise = random.standard_normal((count, spec["dim"]), dtype=np.float32)
    settings = {**Evaluation(threads=spec["threads"]).model_dump(), "recall_at": [1, 10, 100]}
    if spec["gpu"]:
        _wake()
    device = "cuda" if spec["gpu"] else "cpu"
    start, began = time.time() - asked, time.monotonic()
    evaluate(centres[index["label"]] + noise, ids, index, protocols, settings, device=device)
    return {"start": start, "score": time.monotonic() - began, "images": count}


def _wake() -> None:
    """Start the GPU."""
    import torch

    if not torch.cuda.is_available():
        raise SystemExit(f"{NOT_SEEN}: see its version, and the driver's")
    torch.cuda.init()


def main() -> None:
    spec, asked = json.loads(sys.argv[1]), float(sys.argv[2])
    with lease(visible_gpus() if spec["gpu"] else []) as gpu:
        if gpu:
            os.environ["CUDA_VISIBLE_DEVICES"] = gpu  # before torch looks
        print(json.dumps(probe(spec, asked)))


if __name__ == "__main__":
    main()
