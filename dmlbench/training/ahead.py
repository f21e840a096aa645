"""Batches ready before they are needed."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from typing import Any, TypeVar

import torch
from torch import Tensor

from dmlbench.datasets import usable_cores

AHEAD = 2  # batches: one is copied to the device while the next is prepared
THREADS = 8  # at most, that prepare a batch

Each = Callable[..., Iterable[Any]]
"""`map`, or that of a pool of threads."""
Key = TypeVar("Key")
Made = TypeVar("Made")


def inputs(
    prepare: Callable[[Key, Each], dict[str, Tensor]], keys: Iterable[Key], device: torch.device
) -> Iterator[dict[str, Tensor]]:
    """`prepare(key, each)` for each of `keys`, on `device`.

    On CPU a batch is made when it is asked for: the recipe says how many threads a run has, and
    they have work. For a GPU threads make it ahead, and it is copied beside the computation.
    """
    if device.type != "cuda":
        for key in keys:
            yield prepare(key, map)
        return
    pool = ThreadPoolExecutor(max(1, min(THREADS, usable_cores() - 1)))  # one drives the GPU
    copying, computing = torch.cuda.Stream(device), torch.cuda.current_stream(device)

    def copy(key: Key) -> tuple[dict[str, Tensor], torch.cuda.Event]:
        pinned = {name: part.pin_memory() for name, part in prepare(key, pool.map).items()}
        with torch.cuda.stream(copying):
            parts = {name: part.to(device, non_blocking=True) for name, part in pinned.items()}
            return parts, copying.record_event()

    with pool, closing(ahead(copy, keys)) as made:
        for parts, copied in made:
            computing.wait_event(copied)
            for part in parts.values():
                part.record_stream(computing)  # until then its memory is not given away
            yield parts


def ahead(make: Callable[[Key], Made], keys: Iterable[Key]) -> Generator[Made, None, None]:
    """`make(key)` for each of `keys`, in order, made by one thread up to AHEAD before they are
    asked for. Whoever stops asking waits for those that were begun."""
    waiting: deque[Future[Made]] = deque()
    with ThreadPoolExecutor(1) as thread:
        for key in keys:
            waiting.append(thread.submit(make, key))
            if len(waiting) > AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
