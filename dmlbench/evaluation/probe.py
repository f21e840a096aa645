"""How long this machine takes to score embeddings: random ones, by the real evaluation. Runs in a
process of its own: `python -m dmlbench.evaluation.probe SPEC TIME`."""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import numpy as np

from dmlbench.evaluation import evaluate
from dmlbench.settings import Evaluation

IMAGES, PER_CLASS = 2000, 20


def probe(spec: dict[str, Any], asked: float) -> dict[str, float]:
    """Seconds from the time `asked` to the first arithmetic, and of that on `images` images."""
    random = np.random.default_rng(0)
    ids = np.arange(IMAGES)
    index = {"id": ids, "label": ids // PER_CLASS}
    whole = {"protocol": "zero_shot", "role": "both", "repetition": 0}
    protocols = {"id": ids, **{name: np.full(IMAGES, value) for name, value in whole.items()}}
    # not all alike: classes that can be told apart take k-means fewer rounds
    centres = random.standard_normal((IMAGES // PER_CLASS, spec["dim"]), dtype=np.float32)
    noise = random.standard_normal((IMAGES, spec["dim"]), dtype=np.float32)
    settings = {**Evaluation(threads=spec["threads"]).model_dump(), "recall_at": [1, 10, 100]}
    start, began = time.time() - asked, time.monotonic()
    evaluate(centres[index["label"]] + noise, ids, index, protocols, settings)
    return {"start": start, "score": time.monotonic() - began, "images": IMAGES}


if __name__ == "__main__":
    print(json.dumps(probe(json.loads(sys.argv[1]), float(sys.argv[2]))))
