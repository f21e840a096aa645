"""Arrow tables from numpy's memory.

pyarrow imports pandas to take lists or arrays. That takes half a second, and each job would wait.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

MAKES_NUMBERS = False


def to_table(columns: Mapping[str, NDArray[Any] | pa.Array]) -> pa.Table:
    """A table with these columns, each (N,).

    >>> to_table({"epoch": np.arange(1, 3), "loss": np.array([0.5, 0.25])}).to_pydict()
    {'epoch': [1, 2], 'loss': [0.5, 0.25]}
    """
    arrays = [
        column if isinstance(column, pa.Array) else to_array(column) for column in columns.values()
    ]
    return pa.Table.from_arrays(arrays, names=[*columns])


def to_array(numbers: NDArray[Any]) -> pa.Array:
    """Numbers (N,) of one type, not copied. Booleans are none: Arrow packs them into bits."""
    assert numbers.dtype != np.bool_
    values = pa.py_buffer(np.ascontiguousarray(numbers))
    return pa.Array.from_buffers(pa.from_numpy_dtype(numbers.dtype), len(numbers), [None, values])


def repeat_text(text: str, count: int) -> pa.Array:
    """`count` times the same text, which is stored once.

    >>> repeat_text("zero_shot", 2).to_pylist()
    ['zero_shot', 'zero_shot']
    """
    content = text.encode()
    ends = pa.py_buffer(np.array([0, len(content)], np.int32))
    texts = pa.Array.from_buffers(pa.string(), 1, [None, ends, pa.py_buffer(content)])
    return pa.DictionaryArray.from_arrays(to_array(np.zeros(count, np.int32)), texts)
