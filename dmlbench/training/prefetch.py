"""Batches that are ready on the device before they are needed."""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from typing import Any, TypeVar

import torch
from torch import Tensor

from dmlbench.utils.cores import usable_cores

MAKES_NUMBERS = False
PREFETCHED = 2
"""Batches: one is copied to the device while the next is prepared."""
THREADS = 8
"""Most threads that prepare a batch."""

MapFunction = Callable[..., Iterable[Any]]
"""`map`, or the `map` of a pool of threads."""
Key = TypeVar("Key")
Result = TypeVar("Result")


def device_batches(
    prepare: Callable[[Key, MapFunction], dict[str, Tensor]],
    keys: Iterable[Key],
    device: torch.device,
) -> Iterator[dict[str, Tensor]]:
    """Yield `prepare(key, map_function)` for each of `keys`, on `device`.

    On a CPU a batch is prepared when it is needed: the recipe sets the threads of a run, and they
    are busy. For a GPU, threads prepare batches in advance, and the copies overlap with the
    computation.
    """
    if device.type != "cuda":
        for key in keys:
            yield prepare(key, map)
        return
    copying, computing = copy_stream(device), torch.cuda.current_stream(device)

    def copy(key: Key) -> tuple[dict[str, Tensor], torch.cuda.Event]:
        pinned = {name: tensor.pin_memory() for name, tensor in prepare(key, pool.map).items()}
        with torch.cuda.stream(copying):
            batch = {name: tensor.to(device, non_blocking=True) for name, tensor in pinned.items()}
            return batch, copying.record_event()

    with prepare_threads() as pool, closing(prefetch(copy, keys)) as copies:
        for batch, copied in copies:
            computing.wait_event(copied)
            for tensor in batch.values():
                tensor.record_stream(computing)  # its memory is not reused before that
            yield batch


def host_batches(
    prepare: Callable[[Key, MapFunction], list[dict[str, Tensor]]],
    keys: Iterable[Key],
    device: torch.device,
) -> Iterator[list[dict[str, Tensor]]]:
    """Yield `prepare(key, map_function)` for each of `keys`, in the memory of the host.

    For a GPU, threads prepare batches in advance, and a chunk of a batch is pinned: it can be
    copied to `device` without waiting for it, more than once.
    """
    if device.type != "cuda":
        for key in keys:
            yield prepare(key, map)
        return

    def pin(key: Key) -> list[dict[str, Tensor]]:
        prepared = prepare(key, pool.map)
        return [{name: part.pin_memory() for name, part in chunk.items()} for chunk in prepared]

    with prepare_threads() as pool, closing(prefetch(pin, keys)) as pinned:
        yield from pinned


def prepare_threads() -> ThreadPoolExecutor:
    """The threads that prepare a batch for a GPU. One core is left, which drives the GPU."""
    return ThreadPoolExecutor(max(1, min(THREADS, usable_cores() - 1)))


@functools.cache
def copy_stream(device: torch.device) -> torch.cuda.Stream:
    """The stream on which this process copies to `device`.

    It is always the same one, because torch keeps freed memory for the stream that used it. With a
    new stream for each epoch, up to 32 of them would each keep the memory of some batches.
    """
    return torch.cuda.Stream(device)


def prefetch(make: Callable[[Key], Result], keys: Iterable[Key]) -> Generator[Result, None, None]:
    """Yield `make(key)` for each of `keys`, in order.

    One thread computes up to PREFETCHED results before they are needed. Closing the generator
    waits for the one that has begun.
    """
    pending: deque[Future[Result]] = deque()
    thread = ThreadPoolExecutor(1)
    try:
        for key in keys:
            pending.append(thread.submit(make, key))
            if len(pending) > PREFETCHED:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        thread.shutdown(cancel_futures=True)
