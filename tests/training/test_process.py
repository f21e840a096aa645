"""The process of a training keeps the memory that it frees."""

import ctypes
import subprocess
import sys

import pytest


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="glibc's malloc")
def test_freed_memory_is_used_again_without_the_system():
    """It counts the page faults when 64 MB are allocated, filled and freed a hundred times."""
    script = (
        "import resource, numpy as np\n"
        "{keep}\n"
        "np.ones(2**23)\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "for _ in range(100): np.ones(2**23)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)"
    )
    keep = "from dmlbench.training.process import keep_freed_memory; keep_freed_memory()"
    faults = [
        int(subprocess.check_output([sys.executable, "-c", script.format(keep=text)]))
        for text in ("", keep)
    ]
    assert faults[1] * 10 < faults[0]
