"""A full or broken disk is recognised, whatever library wrote."""

import errno
import os

import pytest

from dmlbench.utils.disk import disk_error
from dmlbench.utils.errors import DiskError, UserError
from dmlbench.utils.files import replacing, write_json


def chained(error, cause):
    try:
        try:
            raise cause
        except Exception:
            raise error  # noqa: B904  (as torch does it)
    except Exception as raised:
        return raised


@pytest.mark.parametrize(
    ("error", "status", "reason"),
    [
        (OSError(errno.ENOSPC, "x"), "disk_full", "the disk is full (No space left on device"),
        (OSError(errno.EDQUOT, "x"), "disk_full", "the disk is full (Disk quota exceeded"),
        (OSError(errno.EROFS, "x"), "disk_error", "does not work (Read-only file system)"),
        (OSError(errno.EIO, "x"), "disk_error", "does not work (Input/output error)"),
        (OSError(errno.ESTALE, "x"), "disk_error", "does not work (Stale file handle)"),
        # safetensors
        (RuntimeError("I/O error: No space left on device (os error 28)"), "disk_full", "full"),
        (RuntimeError("database or disk is full"), "disk_full", "No space left"),
        (chained(RuntimeError("unexpected pos 64"), OSError(errno.ENOSPC, "x")), "disk_full", ""),
    ],
)
def test_an_error_of_the_disk_is_recognised(error, status, reason, tmp_path):
    problem = disk_error(error, tmp_path)
    assert problem.status == status
    assert str(problem).startswith(f"{tmp_path}: the disk ")
    assert reason in str(problem)
    assert isinstance(problem, UserError)


def test_a_full_disk_says_how_much_is_free(tmp_path):
    message = str(disk_error(OSError(errno.ENOSPC, "x"), tmp_path))
    assert " GB" in message.partition("; free: ")[2]
    assert message.endswith("Make room there, and ask again: the work goes on.")
    missing = str(disk_error(OSError(errno.ENOSPC, "x"), tmp_path / "missing/folder"))
    assert missing.partition("; free")[2] == message.partition("; free")[2]


@pytest.mark.parametrize(
    "error",
    [
        ValueError("no number"),
        FileNotFoundError(errno.ENOENT, "No such file", "x"),
        PermissionError(errno.EACCES, "Permission denied", "x"),
        RuntimeError("unexpected pos 64 vs 0"),
    ],
)
def test_other_errors_are_none_of_the_disk(error, tmp_path):
    assert disk_error(error, tmp_path) is None


def test_the_folder_is_that_of_the_file_that_the_system_names(tmp_path):
    error = OSError(errno.ENOSPC, "No space left on device", "/data/stores/x/images.bin")
    assert str(disk_error(error, tmp_path)).startswith("/data/stores/x: the disk is full")


def test_every_writer_gets_the_error_of_the_disk_and_the_old_file_stays(tmp_path, monkeypatch):
    write_json(tmp_path / "a.json", {"old": 1})

    def fail(file):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(DiskError, match=rf"^{tmp_path}: the disk is full"):
        write_json(tmp_path / "a.json", {"new": 2})
    with pytest.raises(ZeroDivisionError), replacing(tmp_path / "a.json"):
        _ = 1 / 0
    assert [file.name for file in tmp_path.iterdir()] == ["a.json"]
    assert "old" in (tmp_path / "a.json").read_text()
