"""Similarities on a CPU: exact ones, and as integers."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def exact_similarities(
    queries: NDArray[np.float32], images: NDArray[np.float32], out: NDArray[np.float32]
) -> None:
    """Write the inner products of `queries` (Q, D) and `images` (G, D) to the first Q rows of
    `out`: computed in float64, then rounded once."""
    exact = queries.astype(np.float64)[:, None]
    for start in range(0, len(images), 256):  # what fits the cache
        part = slice(start, start + 256)
        out[: len(queries), part] = np.vecdot(images[part].astype(np.float64), exact)


def ascending_integers(values: NDArray[np.float32]) -> NDArray[np.int64]:
    """Integers of 32 bits in the order of the floats: a float's bits are ordered as the float is.

    >>> ascending_integers(np.array([-1, -0.0, 0, 1], dtype=np.float32)).tolist()
    [-1065353216, 0, 0, 1065353216]
    """
    bits = values.view(np.int32).astype(np.int64)
    return np.where(bits < 0, -(bits & 0x7FFFFFFF), bits)
