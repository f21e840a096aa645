"""Downloads that broke off: a later attempt fetches only what is missing."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from dmlbench.datasets.archives import partial_file
from dmlbench.datasets.archives.download import Unavailable, download
from dmlbench.utils.errors import DatasetError

from .server import (
    CONTENT,
    MD5,
    ONE_ATTEMPT,
    OTHER,
    QUICK,
    Server,
    assert_sent_once,
    breaks,
    breaks_together,
    good,
    only_the_file,
    slowly,
)


def interrupted(
    server: Server, folder: Path, at: int = 7000, connections: int = 3
) -> list[tuple[int, int]]:
    """Begin a download that breaks off in each connection after `at` bytes; what was sent."""
    url = server.serve(breaks_together(at, connections))
    options = ONE_ATTEMPT._replace(connections=connections)
    with pytest.raises(Unavailable, match="broke off"):
        download([url], folder / "a.zip", MD5, options)
    assert {path.name for path in folder.iterdir()} == {"a.zip.part", "a.zip.part.json"}
    return [*server.sent]


@pytest.mark.parametrize("connections", [1, 3])
@pytest.mark.parametrize("etag", ['"1"', 'W/"1"', None])
def test_no_byte_is_fetched_twice_in_one_call(
    server: Server, tmp_path: Path, connections: int, etag: str | None
):
    url = server.serve(breaks(7000, 6, etag=etag))
    download([url], tmp_path / "a.zip", MD5, QUICK._replace(connections=connections))
    assert (tmp_path / "a.zip").read_bytes() == CONTENT
    assert_sent_once(server)


@pytest.mark.parametrize("connections", [1, 3])
def test_a_second_call_fetches_only_the_missing_bytes(
    server: Server, tmp_path: Path, connections: int
):
    first = interrupted(server, tmp_path, connections=connections)
    assert len(first) == connections
    for at in (11, 1000, 19_999):
        interrupted(server, tmp_path, at, connections=connections)
    download([server.serve(good)], tmp_path / "a.zip", MD5, QUICK)
    assert (tmp_path / "a.zip").read_bytes() == CONTENT
    assert_sent_once(server)
    assert only_the_file(tmp_path)


def test_a_mirror_resumes_the_download_of_another_address_only_if_there_is_a_checksum(
    server: Server, tmp_path: Path
):
    mirror = server.serve(lambda h, _: h.give(CONTENT, etag='"of the mirror"'), "/mirror")
    download([server.serve(breaks_together(7000, 3)), mirror], tmp_path / "a.zip", MD5, ONE_ATTEMPT)
    assert_sent_once(server)
    server.sent.clear()
    download(
        [server.serve(breaks_together(7000, 3)), mirror], tmp_path / "b.zip", None, ONE_ATTEMPT
    )
    assert server.bytes_sent == len(CONTENT) + 3 * 7000


@pytest.mark.parametrize("change", ["ETag", "size", "date"])
def test_a_file_that_changed_between_two_calls_is_fetched_from_the_start(
    server: Server, tmp_path: Path, change: str
):
    headers: dict[str, Any] = {"etag": None, "Last_Modified": "Fri, 01 Jan 2021 00:00:00 GMT"}
    url = server.serve(breaks(7000, 99, **headers) if change == "date" else breaks(7000, 99))
    with pytest.raises(Unavailable):
        download([url], tmp_path / "a.zip", None, ONE_ATTEMPT)
    new = OTHER[:-1] if change == "size" else OTHER
    headers = {
        "ETag": {"etag": '"2"'},
        "size": {},
        "date": {**headers, "Last_Modified": "Sat, 02 Jan 2021 00:00:00 GMT"},
    }[change]
    server.sent.clear()
    download([server.serve(lambda h, _: h.give(new, **headers))], tmp_path / "a.zip", None, QUICK)
    assert (tmp_path / "a.zip").read_bytes() == new
    assert server.bytes_sent == len(new)


@pytest.mark.parametrize("damage", ["bytes", "size", "note", "no note", "no part"])
def test_a_damaged_partial_file_leads_to_the_right_file(
    server: Server, tmp_path: Path, damage: str
):
    interrupted(server, tmp_path)
    partial, note = tmp_path / "a.zip.part", tmp_path / "a.zip.part.json"
    content = bytearray(partial.read_bytes())
    if damage == "bytes":
        content[100] ^= 1
        partial.write_bytes(content)
    elif damage == "size":
        partial.write_bytes(content[:-1])
    elif damage == "note":
        note.write_text('{"missing": [[0, 1')
    elif damage == "no note":
        note.unlink()
    else:
        partial.unlink()
    download([server.serve(good)], tmp_path / "a.zip", MD5, QUICK)
    assert (tmp_path / "a.zip").read_bytes() == CONTENT
    assert only_the_file(tmp_path)


def test_a_tgz_with_a_content_encoding_stays_compressed_and_is_resumed(
    server: Server, tmp_path: Path
):
    url = server.serve(breaks(7000, 4, Content_Encoding="x-gzip"), "/a.tgz")
    download([url], tmp_path / "a.tgz", MD5, QUICK)
    assert (tmp_path / "a.tgz").read_bytes() == CONTENT
    assert_sent_once(server)


def test_a_disk_that_is_too_small_is_an_error_before_anything_is_fetched(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    interrupted(server, tmp_path)
    server.sent.clear()
    left = len(CONTENT) - 3 * 7000
    free = [left - 1]
    usage = type("Usage", (), {"free": property(lambda self: free[0])})
    monkeypatch.setattr(partial_file.shutil, "disk_usage", lambda folder: usage())
    with pytest.raises(DatasetError, match=r"a\.zip needs 179 kB more, and 179 kB are free"):
        download([server.serve(good)], tmp_path / "a.zip", MD5, QUICK)
    assert server.sent == []
    free[0] += 1
    download([server.serve(good)], tmp_path / "a.zip", MD5, QUICK)
    assert server.bytes_sent == left


def test_a_full_disk_is_an_error_and_a_later_call_resumes(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    write, written = os.pwrite, [0]

    def full(file: int, data: bytes, offset: int) -> int:
        if written[0] > 50_000:
            raise OSError(28, "No space left on device")
        count = write(file, data[:100], offset)  # in small parts, as the system may
        written[0] += count
        return count

    monkeypatch.setattr(partial_file.os, "pwrite", full)
    with pytest.raises(DatasetError, match=r"a\.zip\.part: cannot be written: .*No space left"):
        download([server.serve(good)], tmp_path / "a.zip", MD5, QUICK)
    monkeypatch.setattr(partial_file.os, "pwrite", write)
    server.sent.clear()
    download([server.serve(good)], tmp_path / "a.zip", MD5, QUICK)
    assert server.bytes_sent == len(CONTENT) - written[0]


@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGKILL])
def test_after_a_kill_a_later_call_resumes(
    server: Server, tmp_path: Path, signal_number: signal.Signals
):
    url = server.serve(slowly(2000, 0.05, times=4))
    code = (
        "import sys; from pathlib import Path\n"
        "from dmlbench.datasets.archives.download import DownloadOptions, download\n"
        "options = DownloadOptions(connections=3, piece_bytes=60_000, save_interval=0.01)\n"
        "download([sys.argv[1]], Path(sys.argv[2]), sys.argv[3], options)"
    )
    command = [sys.executable, "-c", code, url, str(tmp_path / "a.zip"), MD5]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        note = tmp_path / "a.zip.part.json"
        while not note.is_file() or json.loads(note.read_text())["missing"][0][0] == 0:
            time.sleep(0.01)
            assert process.poll() is None
        process.send_signal(signal_number)
    assert process.returncode != 0
    server.sent.clear()
    download([url], tmp_path / "a.zip", MD5, QUICK)
    assert (tmp_path / "a.zip").read_bytes() == CONTENT
    assert 0 < server.bytes_sent < len(CONTENT)
