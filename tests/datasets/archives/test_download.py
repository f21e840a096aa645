"""Downloads from servers that behave well or badly."""

import gzip
import hashlib
import re
import socket
import threading
import time
from pathlib import Path

import pytest

from dmlbench.datasets.archives.download import DownloadOptions, Unavailable, download
from dmlbench.utils import progress_bar

from .server import (
    CONTENT,
    MD5,
    MD5_OF_OTHER,
    OTHER,
    QUICK,
    Handler,
    Page,
    Server,
    assert_sent_once,
    breaks,
    chunked,
    compresses,
    forgets_ranges,
    good,
    html,
    ignores_if_range,
    nonsense,
    only_the_file,
    other,
    redirect,
    renewed,
    shifted,
    silent,
    slowly,
    stalls,
    status,
    too_long,
    until_it_closes,
    without_ranges,
)

HASTY = QUICK._replace(timeout=0.25, attempts=4)


GOOD_IN_THE_END: dict[str, Page] = {
    "a good server": good,
    "a server without ranges": without_ranges,
    "a body that breaks off": breaks(7000, 4),
    "a connection that is reset": breaks(7000, 4, reset=True),
    "a body that breaks off, without ranges": breaks(7000, 1, ranges=False),
    "a body that breaks off, without an ETag": breaks(7000, 4, etag=None),
    "a body that breaks off, with a weak ETag": breaks(7000, 4, etag='W/"1"'),
    "a body that stalls": stalls(3),
    "500 once": status(500, 1),
    "503 with Retry-After": status(503, 2, Retry_After="1"),
    "503 with a date": status(503, 1, Retry_After="Fri, 31 Dec 2100 23:59:59 GMT"),
    "429": status(429, 2),
    "408": status(408, 1),
    "too large a Content-Length, without ranges, once": lambda handler, number: handler.give(
        CONTENT, ranges=False, **({"Content_Length": "200100"} if number < 2 else {})
    ),
    "no Content-Length": until_it_closes(),
    "chunks": chunked(cut=False),
    "a compressed body": compresses,
    "another version from the third request on": renewed(3),
    "another version from the first piece on": renewed(1),
    "alternating versions": ignores_if_range,
    "shifted ranges": shifted,
    "200 to a range": forgets_ranges,
    "more bytes than asked for": too_long,
    "a redirect": lambda handler, _: redirect("/moved")(handler, 0),
    "a trickle, then speed": slowly(10, 0.01, times=3),
    "silence, then an answer": lambda handler, n: good(handler, n) if n else silent(handler, n),
    "416 to a range": lambda handler, n: status(416)(handler, n) if n < 1 else good(handler, n),
    "no HTTP, then an answer": lambda handler, n: (good if n else nonsense)(handler, n),
}


BAD: dict[str, tuple[Page, str]] = {
    "404": (status(404), "HTTP 404"),
    "403": (status(403), "HTTP 403"),
    "401": (status(401), "HTTP 401"),
    "410": (status(410), "HTTP 410"),
    "204": (status(204), "HTTP 204"),
    "500 for ever": (status(500), r"HTTP 500 .*\(3 times\)"),
    "503 for ever": (status(503), r"HTTP 503 .*\(3 times\)"),
    "a web page": (html, "web page"),
    "other bytes": (other, f"another file, of 200 kB and with checksum {MD5_OF_OTHER}"),
    "truncated, without a Content-Length": (until_it_closes(500), "another file, of 500 bytes"),
    "truncated content, served as whole": (lambda h, _: h.give(CONTENT[:-1]), "another file"),
    "too small a Content-Length": (
        lambda h, _: h.give(CONTENT, ranges=False, Content_Length="1000"),
        "another file, of 1 kB",
    ),
    "too large a Content-Length": (
        lambda h, _: h.give(CONTENT, ranges=False, Content_Length="200100"),
        "the connection broke off",
    ),
    "chunks that break off": (chunked(cut=True), "the connection broke off"),
    "a body that always breaks off": (breaks(10, 99), "the connection broke off"),
    "a body that always stalls": (slowly(100, 9), "no answer for 0.25 s|bytes a second"),
    "a trickle": (slowly(10, 0.02), "sends only .* bytes a second"),
    "silence": (silent, "no answer"),
    "a redirect to nowhere": (redirect("/nowhere"), "HTTP 404"),
    "a loop of redirects": (redirect("/a.zip"), "redirects"),
    "a redirect to another protocol": (redirect("ftp://127.0.0.1/a.zip"), "No connection adapters"),
    "no HTTP": (nonsense, "no connection"),
    "a file that is empty": (lambda h, _: h.give(b"", ranges=False), "another file, of 0 bytes"),
    "a compressed body of another file": (
        lambda h, _: h.give(gzip.compress(OTHER), ranges=False, Content_Encoding="gzip"),
        f"checksum {MD5_OF_OTHER}",
    ),
    "a Content-Encoding without compression": (
        lambda h, _: h.give(CONTENT, ranges=False, Content_Encoding="gzip"),
        "the connection broke off",
    ),
}


def options_for(name: str) -> DownloadOptions:
    return HASTY if re.search("stalls|trickle|silence", name) else QUICK


@pytest.mark.parametrize("name", GOOD_IN_THE_END)
def test_the_download_ends_with_the_right_file(server: Server, tmp_path: Path, name: str):
    server.serve(good, "/moved")
    url = server.serve(GOOD_IN_THE_END[name])
    assert download([url], tmp_path / "a.zip", MD5, options_for(name)) == MD5
    assert (tmp_path / "a.zip").read_bytes() == CONTENT
    assert only_the_file(tmp_path)


@pytest.mark.parametrize("name", BAD)
def test_a_bad_server_gives_its_reason_and_no_file_and_the_mirror_gives_the_file(
    server: Server, tmp_path: Path, name: str
):
    page, text = BAD[name]
    bad, mirror = server.serve(page), server.serve(good, "/mirror")
    with pytest.raises(Unavailable, match=f"^{bad}: .*({text})"):
        download([bad], tmp_path / "a.zip", MD5, options_for(name))
    assert not (tmp_path / "a.zip").exists()
    assert download([bad, mirror], tmp_path / "a.zip", MD5, options_for(name)) == MD5
    assert (tmp_path / "a.zip").read_bytes() == CONTENT
    assert only_the_file(tmp_path)


def test_no_more_connections_are_open_than_allowed(server: Server, tmp_path: Path):
    open_now, most = [0], [0]

    def page(handler: Handler, _: int) -> None:
        with server.lock:
            open_now[0] += 1
            most[0] = max(most[0], open_now[0])
        time.sleep(0.02)
        with server.lock:  # the client may open the next one as soon as it has the content
            open_now[0] -= 1
        handler.give(CONTENT)

    download([server.serve(page)], tmp_path / "a.zip", MD5, QUICK)
    assert most[0] == 3
    ranges = sorted(int(range.split("=")[1].split("-")[0]) for _, range in server.requests if range)
    assert ranges == [0, *range(0, 200_000, 20_000)]


def test_the_piece_of_a_refused_connection_is_fetched_by_another(server: Server, tmp_path: Path):
    refused = threading.Event()

    def page(handler: Handler, number: int) -> None:
        if number == 2:
            handler.answer(403)
            refused.set()
        else:
            assert number == 0 or refused.wait(5)
            handler.give(CONTENT)

    options = QUICK._replace(connections=2, piece_bytes=60_000)
    download([server.serve(page)], tmp_path / "a.zip", MD5, options)
    assert_sent_once(server)


def test_each_wait_is_longer_and_at_least_as_long_as_the_server_asks(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    waits: list[float] = []
    sleep, here = time.sleep, threading.get_ident()

    def wait(seconds: float) -> None:
        if threading.get_ident() == here:
            waits.append(seconds)
        else:  # a thread that another test left
            sleep(seconds)

    monkeypatch.setattr("dmlbench.datasets.archives.download.time.sleep", wait)
    patient = DownloadOptions(attempts=5, max_wait=30.0)
    with pytest.raises(Unavailable):
        download([server.serve(status(500))], tmp_path / "a.zip", MD5, patient)
    assert waits == [1, 2, 4, 8]
    waits.clear()
    page = status(503, 1, Retry_After="7")
    download([server.serve(page, "/b")], tmp_path / "b.zip", MD5, patient)
    page = status(503, 1, Retry_After="Fri, 31 Dec 2100 23:59:59 GMT")
    download([server.serve(page, "/c")], tmp_path / "c.zip", MD5, patient)
    assert waits == [7, 30]


def test_after_a_refused_connection_the_mirror_is_used(server: Server, tmp_path: Path):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{closed.getsockname()[1]}/a.zip"
        with pytest.raises(Unavailable, match=r"no connection: .*refused"):
            download([nobody], tmp_path / "a.zip", MD5, QUICK)
        download([nobody, server.serve(good)], tmp_path / "a.zip", MD5, QUICK)
    assert (tmp_path / "a.zip").read_bytes() == CONTENT


@pytest.mark.parametrize("url", ["http://", "nonsense", "http://[::1", "file:///etc/passwd"])
def test_an_invalid_address_is_named(tmp_path: Path, url: str):
    with pytest.raises(Unavailable, match=re.escape(url)):
        download([url], tmp_path / "a.zip", MD5, QUICK)
    assert list(tmp_path.iterdir()) == []


def test_every_address_that_failed_is_named_with_its_reason(server: Server, tmp_path: Path):
    urls = [
        server.serve(page, path)
        for page, path in ((status(404), "/1"), (html, "/2"), (other, "/3"), (status(500), "/4"))
    ]
    with pytest.raises(Unavailable) as error:
        download(urls, tmp_path / "a.zip", MD5, QUICK)
    reasons = ("HTTP 404", "answers with a web page", "gives another file", "HTTP 500")
    for line, url, reason in zip(str(error.value).split("\n"), urls, reasons, strict=True):
        assert line.startswith(f"{url}: {reason}")
    assert list(tmp_path.iterdir()) == []


def test_without_a_checksum_the_file_is_accepted_and_its_sha256_returned(
    server: Server, tmp_path: Path
):
    checksum = download([server.serve(good)], tmp_path / "a.zip", None, QUICK)
    assert checksum == "sha256:" + hashlib.sha256(CONTENT).hexdigest()
    assert (tmp_path / "a.zip").read_bytes() == CONTENT


def test_a_log_gets_lines_and_no_progress_bar(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
):
    download([server.serve(good)], tmp_path / "a.zip", MD5, QUICK)
    assert capfd.readouterr().err == ""
    monkeypatch.setattr(progress_bar, "EVERY", 0.0)
    url = server.serve(slowly(20_000, 0.1), "/slow.zip")
    download([url], tmp_path / "b.zip", MD5, QUICK._replace(piece_bytes=10**6))
    lines = capfd.readouterr().err.splitlines()
    assert re.fullmatch(r"b\.zip: [\d.]+ kB of 200 kB \(\d+%\)", lines[0])
    assert lines[-1] == "verify b.zip.part: 200 kB of 200 kB (100%)"
