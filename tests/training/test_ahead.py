"""What is made ahead comes in order, and no thread outlives who asked for it."""

import threading
import time

import pytest

from dmlbench.training.ahead import AHEAD, ahead


def of_this(name="ThreadPoolExecutor"):
    return [thread for thread in threading.enumerate() if thread.name.startswith(name)]


def test_everything_comes_once_and_in_order():
    for keys in ([], [3], list(range(50))):
        assert list(ahead(lambda key: 2 * key, keys)) == [2 * key for key in keys]
    assert not of_this()


def test_the_next_are_made_while_one_is_used_and_no_more_than_those():
    begun = []
    made = ahead(begun.append, range(100))
    next(made)
    limit = time.monotonic() + 10
    while len(begun) <= AHEAD and time.monotonic() < limit:
        time.sleep(0.001)
    time.sleep(0.02)
    assert begun == list(range(AHEAD + 1))
    made.close()
    assert not of_this()


def test_an_error_comes_where_its_result_would_have_and_ends_the_thread():
    made = ahead(lambda key: 1 / (key - 2), range(10))
    assert [next(made), next(made)] == [-0.5, -1.0]
    with pytest.raises(ZeroDivisionError):
        next(made)
    assert not of_this()


def test_who_leaves_the_loop_by_an_exception_leaves_no_thread():
    def loop():
        for key in ahead(lambda key: key, range(100)):
            if key == 3:
                raise KeyError(key)

    with pytest.raises(KeyError) as caught:
        loop()
    assert caught.value.__traceback__ is not None
    assert not of_this()
