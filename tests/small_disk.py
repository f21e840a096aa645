"""A small disk that fills up, to test what happens then."""

import contextlib
import os
import subprocess

import pytest

KB = 1024


class SmallDisk:
    """A file system of its own in memory."""

    def __init__(self, folder):
        self.folder = folder
        self.ballast = folder / "ballast"

    def fill(self, free=0):
        """Take all space but `free` bytes."""
        self.make_room()
        disk = os.statvfs(self.folder)
        with self.ballast.open("wb") as file:
            file.write(bytes(max(0, disk.f_bavail * disk.f_frsize - free)))

    def make_room(self):
        """Give all space back."""
        self.ballast.unlink(missing_ok=True)

    def files(self):
        """All files on it, hidden ones too, but the ballast."""
        paths = (path for path in self.folder.rglob("*") if path.is_file())
        return {str(path.relative_to(self.folder)) for path in paths if path != self.ballast}


@contextlib.contextmanager
def small_disk(folder, size):
    """Mount a file system of `size` bytes at `folder`; a test is skipped if that is forbidden."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("only root can mount a small file system")
    try:
        yield SmallDisk(folder)
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
