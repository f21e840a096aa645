"""Measure how long this machine takes to score embeddings: random ones, by the real evaluation.

It runs in a process of its own: `python -m dmlbench.planning.probe_scoring SPEC TIME`.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
from typing import Any

import numpy as np

from dmlbench.evaluation.evaluate import evaluate
from dmlbench.study.run import GPU_SCORING_IMAGES
from dmlbench.study.settings import Evaluation
from dmlbench.utils.device import choose_device
from dmlbench.utils.errors import UserError
from dmlbench.utils.gpu_lease import lease_gpu

IMAGES, IMAGES_PER_CLASS = 2000, 20


def probe(spec: dict[str, Any], asked: float) -> dict[str, float]:
    """Measure the scoring of random embeddings.

    Args:
        spec: dimension `dim`, number of `threads`, and whether to score on a `gpu`.
        asked: the time (seconds since 1970) at which the caller started this process.

    Returns:
        Seconds from `asked` to the first arithmetic as `start`, seconds of the arithmetic as
        `score`, without clustering, as in a validation, as `validate`; and the number of embeddings
        as `images`.

    Raises:
        UnusableGpu: torch cannot compute on the GPU.
    """
    count = GPU_SCORING_IMAGES if spec["gpu"] else IMAGES
    random = np.random.default_rng(0)
    ids = np.arange(count)
    index = {"id": ids, "label": ids // IMAGES_PER_CLASS}
    zero_shot = {"protocol": "zero_shot", "role": "both", "repetition": 0}
    protocols = {"id": ids, **{name: np.full(count, value) for name, value in zero_shot.items()}}
    # k-means takes fewer rounds if classes are apart, as those of a trained model are
    centres = random.standard_normal((count // IMAGES_PER_CLASS, spec["dim"]), dtype=np.float32)
    noise = random.standard_normal((count, spec["dim"]), dtype=np.float32)
    settings = {**Evaluation(threads=spec["threads"]).model_dump(), "recall_at": [1, 10, 100]}
    device = choose_device().type if spec["gpu"] else "cpu"
    embeddings = centres[index["label"]] + noise
    start, seconds = time.time() - asked, {}
    for name, clusters in {"score": True, "validate": False}.items():
        began = time.monotonic()
        evaluate(embeddings, ids, index, protocols, settings, device=device, clusters=clusters)
        seconds[name] = time.monotonic() - began
    return {"start": start, **seconds, "images": count}


def main() -> None:
    """Print the answer to the arguments as JSON."""
    spec, asked = json.loads(sys.argv[1]), float(sys.argv[2])
    try:
        with lease_gpu() if spec["gpu"] else contextlib.nullcontext():
            print(json.dumps(probe(spec, asked)))
    except UserError as error:
        raise SystemExit(str(error)) from None


if __name__ == "__main__":
    main()
