"""Locks are waited for with a word, and a file system without locks is named."""

import errno
import fcntl
import threading

import pytest

from dmlbench.training.run_state import hold_state, inspect_training
from dmlbench.utils.errors import WrongEnvironment
from dmlbench.utils.gpu_lease import lease
from dmlbench.utils.locks import locked, try_lock


def test_a_lock_is_waited_for_with_one_line(tmp_path, capsys):
    path = tmp_path / "folder/lock"
    with locked(path, "waits"):
        pass
    assert capsys.readouterr().err == ""
    with path.open() as holder:
        assert try_lock(holder, path)
        threading.Timer(0.1, fcntl.flock, (holder, fcntl.LOCK_UN)).start()
        with locked(path, "waits"):
            assert not try_lock(holder, path)
    assert capsys.readouterr().err == "waits\n"


def test_shared_locks_exclude_only_exclusive_ones(tmp_path):
    path = tmp_path / "lock"
    with path.open("w") as first, path.open() as second, path.open() as third:
        assert try_lock(first, path, shared=True)
        assert try_lock(second, path, shared=True)
        assert not try_lock(third, path)


@pytest.fixture(params=[errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def no_locks(request, monkeypatch):
    """A file system that has no locks, as Lustre without the option `flock`."""

    def refuse(file, kind):
        raise OSError(request.param, "Function not implemented")

    monkeypatch.setattr("fcntl.flock", refuse)


def test_a_file_system_without_locks_is_named_with_what_to_do(tmp_path, no_locks):
    message = rf"^{tmp_path}/lock: this file system has no file locks .*mount option `flock`"
    with pytest.raises(WrongEnvironment, match=message), locked(tmp_path / "lock", "waits"):
        pass
    with pytest.raises(WrongEnvironment, match="has no file locks"), hold_state(tmp_path):
        pass
    with pytest.raises(WrongEnvironment, match="no file locks"), lease(["a"], folder=tmp_path):
        pass
    assert inspect_training(tmp_path, "k") is None  # `status` only looks


def test_other_errors_of_a_lock_are_not_hidden(tmp_path, monkeypatch):
    def fail(file, kind):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("fcntl.flock", fail)
    with pytest.raises(OSError, match="Input/output error"), locked(tmp_path / "lock", "waits"):
        pass
