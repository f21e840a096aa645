"""A worker ends with the process that started it, and gets no caches."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from functools import cached_property

from dmlbench.utils.workers import SentWithoutCache

PARENT = """
import multiprocessing, os, signal, time
from concurrent.futures import ProcessPoolExecutor
from dmlbench.utils.workers import exit_with_parent

if __name__ == "__main__":
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, context, initializer=exit_with_parent) as pool:
        worker, handler = pool.submit(os.getpid), pool.submit(signal.getsignal, 2)
        print(worker.result(), int(handler.result()), flush=True)
        time.sleep(600)
"""


def is_alive(process):
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_worker_ignores_ctrl_c_and_ends_after_its_parent_was_killed(tmp_path):
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    with subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True) as parent:
        worker, handler = parent.stdout.readline().split()
        assert int(handler) == signal.SIG_IGN
        assert is_alive(int(worker))
        parent.kill()
    deadline = time.monotonic() + 30
    while is_alive(int(worker)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not is_alive(int(worker))


@dataclass(frozen=True)
class Number(SentWithoutCache):
    value: int

    @cached_property
    def double(self):
        return 2 * self.value


def test_a_cache_is_not_sent_and_is_made_anew():
    number = Number(3)
    assert (number.double, vars(number)) == (6, {"value": 3, "double": 6})
    # what pickle does on both sides, which cannot import this test
    sent = object.__new__(Number)
    vars(sent).update(number.__getstate__())
    assert vars(sent) == {"value": 3}
    assert (sent, sent.double) == (number, 6)
