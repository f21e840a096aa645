"""Prefetched results come in order, and no thread outlives the loop that uses them."""

import threading
import time

import pytest

from dmlbench.training.prefetch import PREFETCHED, prefetch


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
