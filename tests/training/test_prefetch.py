"""Prefetched results come in order, and no thread outlives the loop that uses them."""

import contextlib
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from dmlbench.training.prefetch import (
    PREFETCHED,
    copy_stream,
    device_batches,
    host_batches,
    prefetch,
)


def pool_threads():
    return [t for t in threading.enumerate() if t.name.startswith("ThreadPoolExecutor")]


def test_every_result_comes_once_and_in_order():
    for keys in ([], [3], list(range(50))):
        assert list(prefetch(lambda key: 2 * key, keys)) == [2 * key for key in keys]
    assert not pool_threads()


def test_no_more_than_the_next_results_are_made_while_one_is_used():
    begun = []
    results = prefetch(begun.append, range(100))
    next(results)
    deadline = time.monotonic() + 10
    while len(begun) <= PREFETCHED and time.monotonic() < deadline:
        time.sleep(0.001)
    time.sleep(0.02)
    assert begun == list(range(PREFETCHED + 1))
    results.close()
    assert not pool_threads()


def test_an_error_comes_in_place_of_its_result_and_ends_the_thread():
    results = prefetch(lambda key: 1 / (key - 2), range(10))
    assert [next(results), next(results)] == [-0.5, -1.0]
    with pytest.raises(ZeroDivisionError):
        next(results)
    assert not pool_threads()


def test_a_loop_that_ends_by_an_exception_leaves_no_thread():
    def loop():
        for key in prefetch(lambda key: key, range(100)):
            if key == 3:
                raise KeyError(key)

    with pytest.raises(KeyError) as caught:
        loop()
    assert caught.value.__traceback__ is not None
    assert not pool_threads()


def test_what_has_not_begun_is_not_made_after_a_close(monkeypatch):
    begun, closing = [], threading.Event()
    shutdown = ThreadPoolExecutor.shutdown

    def begin_shutdown(pool, **options):
        shutdown(pool, **options | {"wait": False})
        closing.set()
        shutdown(pool)

    def make(key):
        begun.append(key)
        if key:
            closing.wait(10)

    monkeypatch.setattr(ThreadPoolExecutor, "shutdown", begin_shutdown)
    results = prefetch(make, range(10))
    next(results)
    results.close()
    assert begun in ([0], [0, 1])


class FakeStream:
    """A stream of a GPU that this machine does not have."""

    opened = 0

    def __init__(self, device):
        FakeStream.opened += 1

    def record_event(self):
        return "copied"

    def wait_event(self, event):
        assert event == "copied"


@pytest.fixture
def fake_gpu(monkeypatch):
    """A GPU whose memory is that of the CPU."""
    FakeStream.opened = 0
    computing = FakeStream(None)
    monkeypatch.setattr(torch.cuda, "Stream", FakeStream)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: computing)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: contextlib.nullcontext())
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor)
    monkeypatch.setattr(torch.Tensor, "to", lambda tensor, device, non_blocking: tensor)
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda tensor, stream: None)
    FakeStream.opened = 0
    copy_stream.cache_clear()
    yield torch.device("cuda")
    copy_stream.cache_clear()


def number(key, map_function):
    (square,) = map_function(lambda value: value * value, [key])
    return {"square": torch.tensor(square)}


def test_all_epochs_copy_on_one_stream(fake_gpu):
    """A new stream each would keep memory of its own for the rest of the process."""
    for _ in range(40):
        batches = list(device_batches(number, range(4), fake_gpu))
        assert [batch["square"].item() for batch in batches] == [0, 1, 4, 9]
    assert FakeStream.opened == 1


def test_an_epoch_that_ends_half_way_leaves_no_thread_and_no_further_stream(fake_gpu):
    for _ in range(5):
        batches = device_batches(number, range(100), fake_gpu)
        next(batches)
        batches.close()
        assert not pool_threads()
    assert FakeStream.opened == 1


def numbers(key, map_function):
    return [number(value, map_function) for value in (key, key + 10)]


def test_batches_of_the_host_are_prepared_ahead_in_pinned_memory_and_stay_there(
    fake_gpu, monkeypatch
):
    pinned = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda t: pinned.append(t.item()) or t)
    monkeypatch.setattr(torch.Tensor, "to", None)
    batches = host_batches(numbers, range(9), fake_gpu)
    assert [chunk["square"].item() for chunk in next(batches)] == [0, 100]
    assert [[chunk["square"].item() for chunk in batch] for batch in batches] == [
        [key**2, (key + 10) ** 2] for key in range(1, 9)
    ]
    assert pinned == [square for key in range(9) for square in (key**2, (key + 10) ** 2)]
    assert FakeStream.opened == 0
    batches = host_batches(numbers, range(100), fake_gpu)
    next(batches)
    batches.close()
    assert not pool_threads()


def test_batches_of_the_host_are_those_of_a_cpu_without_pinning():
    batches = [*host_batches(numbers, range(2), torch.device("cpu"))]
    assert [[chunk["square"].item() for chunk in batch] for batch in batches] == [
        [0, 100],
        [1, 121],
    ]
