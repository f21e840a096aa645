from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from dmlbench.evaluation.evaluate import evaluate

Rows = Sequence[tuple[str, int, str, int]]
Evaluate = Callable[..., dict[str, float]]


@pytest.fixture
def metric_settings() -> dict[str, Any]:
    return {
        "recall_at": [1, 2, 4, 8],
        "kmeans_seed": 0,
        "kmeans_iterations": 20,
        "kmeans_restarts": 1,
        "threads": 1,
    }


@pytest.fixture
def scores(metric_settings: dict[str, Any]) -> Evaluate:
    """`evaluate` on labels by id, as {metric: value}; by default plain zero-shot on all images."""

    def run(
        embeddings: NDArray,
        labels: Sequence[int],
        rows: Rows | None = None,
        levels: dict[str, Sequence[Any]] | None = None,
        **settings: object,
    ) -> dict[str, float]:
        ids = np.arange(len(labels))
        rows = rows or [("zero_shot", i, "both", 0) for i in ids]
        columns = zip(
            ("protocol", "id", "role", "repetition"), zip(*rows, strict=True), strict=True
        )
        result = evaluate(
            embeddings,
            ids,
            {"id": ids, "label": np.asarray(labels), **(levels or {})},
            {name: np.asarray(column) for name, column in columns},
            metric_settings | settings,
            levels=[*(levels or {})],
        )
        assert len({row["protocol"] for row in result.rows}) == 1
        return {row["metric"]: row["value"] for row in result.rows}

    return run


@pytest.fixture
def clusters() -> Callable[..., tuple[NDArray, NDArray]]:
    """Overlapping Gaussian classes, cut to unequal sizes: float32 (N, D) and labels (N,)."""

    def make(n: int, classes: int, dim: int = 16, spread: float = 1.0) -> tuple[NDArray, NDArray]:
        rng = np.random.default_rng(7)
        labels = rng.choice(classes, size=n, p=rng.dirichlet(np.full(classes, 5.0)))
        centres = rng.normal(size=(classes, dim))
        return (centres[labels] + spread * rng.normal(size=(n, dim))).astype(np.float32), labels

    return make
