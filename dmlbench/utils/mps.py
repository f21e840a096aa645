"""MPS, NVIDIA's Multi-Process Service: with it, processes compute on a GPU at the same time.

Without it they take turns. A process uses MPS if a control daemon listens when it starts CUDA.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Mapping
from pathlib import Path

PIPES = "CUDA_MPS_PIPE_DIRECTORY"
"""The variable that names the folder of the daemon's sockets."""
DEFAULT_PIPES = "/tmp/nvidia-mps"
"""That folder by default, says NVIDIA's page "Multi-Process Service"."""
LISTENS = frozenset({0, errno.EAGAIN, errno.EPROTOTYPE})
"""Answers to a connection, where a daemon listens: it is made; too many wait; the kind of socket is
another one. A folder of a daemon that has ended has a socket too, and nobody listens there."""


def uses_mps(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether an MPS control daemon listens for the processes of `environ`.

    >>> uses_mps({"CUDA_MPS_PIPE_DIRECTORY": "/nonexistent"})
    False
    """
    control = Path(environ.get(PIPES) or DEFAULT_PIPES, "control")
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        try:
            return probe.connect_ex(str(control)) in LISTENS
        except OSError:  # the path is too long for a socket
            return False
