"""MPS is used if its daemon listens, and not if it only left its folder."""

import shutil
import socket
import tempfile
from pathlib import Path

import pytest

from dmlbench.utils import mps
from dmlbench.utils.mps import uses_mps


@pytest.fixture
def pipes():
    """A folder whose path is short enough for a socket."""
    folder = Path(tempfile.mkdtemp(dir="/tmp"))
    yield folder
    shutil.rmtree(folder)


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_SEQPACKET])
def test_a_daemon_that_listens_is_seen_and_one_that_ended_is_not(pipes, monkeypatch, kind):
    variables = {"CUDA_MPS_PIPE_DIRECTORY": str(pipes)}
    assert not uses_mps(variables)
    with socket.socket(socket.AF_UNIX, kind) as daemon:
        daemon.bind(str(pipes / "control"))
        daemon.listen(1)
        assert [uses_mps(variables) for _ in range(4)] == [True] * 4  # also if too many wait
        monkeypatch.setattr(mps, "DEFAULT_PIPES", str(pipes))
        assert uses_mps({})
        assert uses_mps({"CUDA_MPS_PIPE_DIRECTORY": ""})
    assert (pipes / "control").is_socket()
    assert not uses_mps(variables)


def test_whatever_is_in_its_place_is_no_daemon(pipes):
    (pipes / "control").write_text("")
    assert not uses_mps({"CUDA_MPS_PIPE_DIRECTORY": str(pipes)})
    assert not uses_mps({"CUDA_MPS_PIPE_DIRECTORY": "x" * 300})
