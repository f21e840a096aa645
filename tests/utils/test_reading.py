"""Files that users name are read only if they are files, and only as much as fits the memory."""

import os
import re
from pathlib import Path

import pytest

from dmlbench.utils.reading import is_system_folder, open_file, read_bytes


@pytest.fixture
def pipe(tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    return path


def test_a_file_is_read_up_to_its_limit(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"four")
    assert read_bytes(path, 4) == b"four"
    with pytest.raises(OSError, match="it has 4 bytes, and 3 bytes are the most that is read"):
        read_bytes(path, 3)


def test_a_large_file_is_refused_without_being_read(tmp_path):
    path = tmp_path / "large"
    path.touch()
    os.truncate(path, 10**13)  # no memory holds it
    with pytest.raises(OSError, match=r"it has 10,000 GB, and 1 MB are the most"):
        read_bytes(path, 1_000_000)


@pytest.mark.parametrize("read", [open_file, lambda path: read_bytes(path, 10)])
def test_a_pipe_and_a_device_are_refused_at_once(read, pipe):
    with pytest.raises(OSError, match="it is a pipe, and not a file"):
        read(pipe)
    with pytest.raises(OSError, match="it is a device, and not a file"):
        read(Path("/dev/zero"))


def test_a_link_to_a_device_is_a_device(tmp_path):
    (tmp_path / "link").symlink_to("/dev/zero")
    with pytest.raises(OSError, match="it is a device"):
        open_file(tmp_path / "link")


def test_a_folder_and_a_loop_of_links_are_refused_with_the_words_of_the_system(tmp_path):
    with pytest.raises(IsADirectoryError):
        open_file(tmp_path)
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    with pytest.raises(OSError, match=re.escape(os.strerror(40))):
        open_file(tmp_path / "a")


def test_a_file_of_the_system_without_a_size_is_read():
    assert read_bytes(Path("/proc/self/stat"), 10_000).startswith(str(os.getpid()).encode())


def test_no_descriptor_is_left_open(pipe):
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    for _ in range(5):
        with pytest.raises(OSError, match="pipe"):
            open_file(pipe)
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


@pytest.mark.parametrize(
    ("folder", "is_system"), [("/", True), ("/proc/1", True), ("/dev", True), ("/home", False)]
)
def test_folders_of_the_system_are_known(folder, is_system):
    assert is_system_folder(Path(folder)) is is_system
