"""What the server of processes of `gpu.py` imports once, for all its parts.

It needs no GPU and starts none: a process that has used CUDA cannot be copied. A part that misses a
module says so itself.
"""

import contextlib
import importlib
import sys

# Without bytecode, a process compiles the thousand files of torch again, which takes 20 s.
sys.dont_write_bytecode = False

for script in ("models", "smoke", "search", "resident", "training", "losses", "evaluation"):
    with contextlib.suppress(Exception):
        importlib.import_module(script)
