import hashlib
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from dmlbench.datasets import DatasetError
from dmlbench.datasets.archives import fetch, read_zip

CONTENT = b"an archive" * 1000
MD5 = "md5:" + hashlib.md5(CONTENT).hexdigest()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, list[str]]]:
    """Address of a server on this machine, and the paths that it was asked for."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    pages = {"/right.zip": CONTENT, "/wrong.zip": b"<html>please log in</html>"}
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200 if self.path in pages else 404)
            body = pages.get(self.path, b"not here")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        threading.Thread(target=http.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{http.server_port}", asked
        http.shutdown()


def test_downloads_once_and_uses_the_file_after_that(
    server: tuple[str, list[str]], tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    url, asked = server
    sources = {"a.zip": (f"{url}/right.zip", MD5)}
    for _ in range(2):
        assert fetch(sources, tmp_path / "new", {}) == {"a.zip": tmp_path / "new" / "a.zip"}
    assert (tmp_path / "new" / "a.zip").read_bytes() == CONTENT
    assert asked == ["/right.zip"]
    assert "%" not in capfd.readouterr().err  # no progress bar in a log


def test_a_download_of_other_bytes_leaves_no_file_and_says_what_was_expected(
    server: tuple[str, list[str]], tmp_path: Path
):
    with pytest.raises(DatasetError) as error:
        fetch({"a.zip": (f"{server[0]}/wrong.zip", MD5)}, tmp_path, {})
    assert "not the expected file" in str(error.value)
    assert MD5 in str(error.value)
    assert str(tmp_path / "a.zip") in str(error.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("where", ["missing page", "no server"])
def test_without_the_file_on_the_internet_says_which_file_to_put_where(
    server: tuple[str, list[str]], tmp_path: Path, where: str
):
    url = f"{server[0]}/none.zip" if where == "missing page" else "http://127.0.0.1:9/none.zip"
    with pytest.raises(DatasetError) as error:
        fetch({"a.zip": (url, MD5)}, tmp_path, {})
    for part in (url, "cannot download", f"put it at {tmp_path / 'a.zip'}", MD5):
        assert part in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_archive_in_the_folder_is_named_and_left_alone(
    server: tuple[str, list[str]], tmp_path: Path
):
    (tmp_path / "a.zip").write_bytes(b"another")
    with pytest.raises(DatasetError) as error:
        fetch({"a.zip": (f"{server[0]}/right.zip", MD5)}, tmp_path, {})
    found = hashlib.md5(b"another").hexdigest()
    for part in (str(tmp_path / "a.zip"), found, MD5, "Delete the file", "`checksums`"):
        assert part in str(error.value)
    assert (tmp_path / "a.zip").read_bytes() == b"another"
    assert server[1] == []


def test_a_study_may_name_its_own_checksum_but_only_of_an_archive_that_there_is(tmp_path: Path):
    (tmp_path / "a.zip").write_bytes(b"another")
    sources = {"a.zip": ("http://127.0.0.1:9/a.zip", MD5)}
    own = "sha256:" + hashlib.sha256(b"another").hexdigest()
    assert fetch(sources, tmp_path, {"a.zip": own}) == {"a.zip": tmp_path / "a.zip"}
    with pytest.raises(DatasetError, match=r"unknown archive: b\.zip \(known: a\.zip\)"):
        fetch(sources, tmp_path, {"b.zip": own})


def test_reads_a_zip_by_name_and_without_what_macos_adds(tmp_path: Path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name in ("b/2", "b/", "__MACOSX/b/._2", "b/._1", "b/.DS_Store", "a/3", "b/1"):
            archive.writestr(name, name)
    assert list(read_zip(tmp_path / "a.zip")) == [("a/3", b"a/3"), ("b/1", b"b/1"), ("b/2", b"b/2")]


def test_a_damaged_member_and_a_file_that_is_no_zip_are_named(tmp_path: Path):
    path = tmp_path / "a.zip"
    path.write_bytes(b"no zip")
    with pytest.raises(DatasetError, match=r"a\.zip"):
        list(read_zip(path))
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        with zipfile.ZipFile(path, "w", method) as archive:
            archive.writestr("good", CONTENT)
            archive.writestr("harmed", CONTENT)
            start = archive.getinfo("harmed").header_offset + 30 + len("harmed")
        content = bytearray(path.read_bytes())
        content[start : start + 8] = b"\xff" * 8
        path.write_bytes(content)
        with pytest.raises(DatasetError, match="cannot read harmed"):
            list(read_zip(path))
