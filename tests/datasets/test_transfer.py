"""Downloads from a server of this machine that does what servers do."""

import gzip
import hashlib
import json
import os
import random
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from dmlbench.datasets import DatasetError, bar, part
from dmlbench.datasets.transfer import Manner, Unavailable, download

CONTENT = random.Random(0).randbytes(200_000)
OTHER = random.Random(1).randbytes(200_000)
HTML = b"<!DOCTYPE html><html>please log in</html>"
MD5 = "md5:" + hashlib.md5(CONTENT).hexdigest()
OF_OTHER = "md5:" + hashlib.md5(OTHER).hexdigest()
QUICK = Manner(
    connections=3,
    piece=20_000,
    silence=5.0,
    slowest=20_000,
    attempts=3,
    enough=1000,
    wait=0.001,
    longest_wait=0.05,
    save=0.01,
)


HASTY = QUICK._replace(silence=0.25, attempts=4)


class Handler(BaseHTTPRequestHandler):
    """Calls the server's behaviour of this path; by default an obedient one."""

    protocol_version = "HTTP/1.1"
    server: "Server"

    def do_GET(self) -> None:
        self.close_connection = True
        with self.server.lock:
            number = len([path for path, _ in self.server.asked if path == self.path])
            self.server.asked.append((self.path, self.headers.get("Range")))
        self.server.pages.get(self.path, missing)(self, number)

    def give(
        self,
        content: bytes,
        *,
        ranges: bool = True,
        etag: str | None = '"1"',
        only: int | None = None,
        body: Callable[[bytes], None] | None = None,
        **headers: str,
    ) -> None:
        """Answer as a good server does, but with `only` so many bytes, or as `body` writes them."""
        wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        fresh = self.headers.get("If-Range") in (None, etag, headers.get("Last_Modified"))
        start, stop = 0, len(content)
        if ranges and wanted and fresh:
            start, stop = int(wanted[1]), min(int(wanted[2]) + 1, len(content))
            if start >= len(content):
                return self.answer(416)
            headers = {"Content_Range": f"bytes {start}-{stop - 1}/{len(content)}", **headers}
        said = {"Content_Length": str(stop - start), **({"ETag": etag} if etag else {}), **headers}
        self.answer(206 if "Content_Range" in said else 200, said)
        sent = content[start:stop][:only]
        if self.headers.get("Range") != "bytes=0-0":  # which is asked to know the server
            self.server.sent.append((start, start + len(sent)))
        (body or self.wfile.write)(sent)

    def answer(self, status: int, headers: dict[str, str] | None = None, body: bytes = b"") -> None:
        self.send_response(status)
        headers = headers or {"Content-Length": str(len(body))}
        for name, value in {"Connection": "close", **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def reset(self) -> None:
        """End the connection as a broken line does."""
        self.wfile.flush()
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()

    def log_message(self, *_: object) -> None:
        pass


Page = Callable[[Handler, int], Any]
"""What a path does when it is asked for the n-th time."""


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 50

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.lock = threading.Lock()
        self.pages: dict[str, Page] = {}
        self.asked: list[tuple[str, str | None]] = []
        self.sent: list[tuple[int, int]] = []
        """First and last byte + 1 of each answer with content."""
        self.url = f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, *_: object) -> None:
        pass  # clients leave early

    def serve(self, page: Page, path: str = "/a.zip") -> str:
        self.pages[path] = page
        return self.url + path

    @property
    def bytes_sent(self) -> int:
        return sum(stop - start for start, stop in self.sent)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with Server() as http:
        threading.Thread(target=http.serve_forever, args=(0.01,), daemon=True).start()
        yield http
        http.shutdown()


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda file: None)


def missing(handler: Handler, _: int) -> None:
    handler.answer(404, body=b"not here")


def good(handler: Handler, _: int) -> None:
    handler.give(CONTENT)


def without_ranges(handler: Handler, _: int) -> None:
    handler.give(CONTENT, ranges=False)


def status(code: int, times: int = 99, **headers: str) -> Page:
    def page(handler: Handler, number: int) -> None:
        if number < times:
            handler.answer(code, {"Content-Length": "4", **headers}, b"oops")
        else:
            handler.give(CONTENT)

    return page


def breaks(at: int, times: int, *, reset: bool = False, **how: Any) -> Page:
    """The n-th answers with content break off after `at` bytes."""

    def page(handler: Handler, number: int) -> None:
        wanted = handler.headers.get("Range") != "bytes=0-0"
        if wanted and number <= times:
            handler.give(CONTENT, only=at, **how)
            if reset:
                handler.reset()
        else:
            handler.give(CONTENT, **how)

    return page


def slowly(chunk: int, pause: float, times: int = 99) -> Page:
    """Bytes that drip."""

    def page(handler: Handler, number: int) -> None:
        def body(content: bytes) -> None:
            for i in range(0, len(content), chunk):
                handler.wfile.write(content[i : i + chunk])
                time.sleep(pause)

        handler.give(CONTENT, body=body if number < times else None)

    return page


def stalls(times: int) -> Page:
    """Silence after some bytes."""

    def page(handler: Handler, number: int) -> None:
        if handler.headers.get("Range") == "bytes=0-0" or number > times:
            return handler.give(CONTENT)
        handler.give(CONTENT, only=5000)
        handler.wfile.flush()
        time.sleep(0.6)

    return page


def silent(handler: Handler, _: int) -> None:
    time.sleep(0.6)


def packs(handler: Handler, _: int) -> None:
    """Compresses on the way though nobody asked it to."""
    handler.give(gzip.compress(CONTENT), ranges=False, Content_Encoding="gzip")


def chunked(cut: bool) -> Page:
    def page(handler: Handler, _: int) -> None:
        handler.answer(200, {"Transfer-Encoding": "chunked"})
        for i in range(0, len(CONTENT), 50_000):
            handler.wfile.write(b"%x\r\n%b\r\n" % (50_000, CONTENT[i : i + 50_000]))
            if cut and i:
                return
        handler.wfile.write(b"0\r\n\r\n")

    return page


def until_it_closes(only: int | None = None) -> Page:
    def page(handler: Handler, _: int) -> None:
        handler.answer(200, {"Connection": "close"}, CONTENT[:only])

    return page


def renewed(at: int, ranges: bool = True) -> Page:
    """Has other content, and says so, from the n-th time on."""

    def page(handler: Handler, number: int) -> None:
        content, etag = (OTHER, '"0"') if number < at else (CONTENT, '"1"')
        handler.give(content, etag=etag, ranges=ranges)

    return page


def deaf_to_if_range(handler: Handler, number: int) -> None:
    """Another version in every other answer, as of servers that are not in step."""
    del handler.headers["If-Range"]
    if "Range" in handler.headers and number % 2:
        handler.give(OTHER, etag='"0"')
    else:
        handler.give(CONTENT)


def shifted(handler: Handler, _: int) -> None:
    """Answers with another range than that it was asked for."""
    if handler.headers.get("Range", "bytes=0-0") != "bytes=0-0":
        handler.headers.replace_header("Range", "bytes=0-9999")
        del handler.headers["If-Range"]
    handler.give(CONTENT)


def forgets_ranges(handler: Handler, number: int) -> None:
    handler.give(CONTENT, ranges=number == 0)


def too_long(handler: Handler, _: int) -> None:
    """Sends more than the range, and says that it does."""
    handler.give(CONTENT, body=lambda content: handler.wfile.write(content + b"x" * 500))


def redirect(to: str, code: int = 302) -> Page:
    return lambda handler, _: handler.answer(code, {"Location": to, "Content-Length": "0"})


def html(handler: Handler, _: int) -> None:
    handler.give(HTML, ranges=False, Content_Type="text/html; charset=utf-8")


def other(handler: Handler, _: int) -> None:
    handler.give(OTHER, etag='"other"')


def nonsense(handler: Handler, _: int) -> None:
    handler.wfile.write(b"SSH-2.0-OpenSSH_9.2\r\n")


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
    "gzip on the way": packs,
    "another version from the third request on": renewed(3),
    "another version from the first piece on": renewed(1),
    "versions that alternate": deaf_to_if_range,
    "ranges that are shifted": shifted,
    "200 to a range": forgets_ranges,
    "more bytes than asked for": too_long,
    "a redirect": lambda handler, _: redirect("/moved")(handler, 0),
    "a trickle, then speed": slowly(10, 0.01, times=3),
    "silence, then an answer": lambda handler, n: good(handler, n) if n else silent(handler, n),
    "416 to a range": lambda handler, n: status(416)(handler, n) if n < 1 else good(handler, n),
    "no sense, then an answer": lambda handler, n: (good if n else nonsense)(handler, n),
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
    "other bytes": (other, f"another file, of 200 kB and with checksum {OF_OTHER}"),
    "truncated, and it does not say so": (until_it_closes(500), "another file, of 500 bytes"),
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
    "gzip on the way of another file": (
        lambda h, _: h.give(gzip.compress(OTHER), ranges=False, Content_Encoding="gzip"),
        f"checksum {OF_OTHER}",
    ),
    "gzip on the way that is none": (
        lambda h, _: h.give(CONTENT, ranges=False, Content_Encoding="gzip"),
        "the connection broke off",
    ),
}


def manner_for(what: str) -> Manner:
    return HASTY if re.search("stalls|trickle|silence", what) else QUICK


def nothing_else(folder: Path) -> bool:
    return [path.name for path in folder.iterdir()] == ["a.zip"]


@pytest.mark.parametrize("what", GOOD_IN_THE_END)
def test_ends_with_the_right_file(server: Server, tmp_path: Path, what: str):
    server.serve(good, "/moved")
    url = server.serve(GOOD_IN_THE_END[what])
    assert download([url], tmp_path / "a.zip", MD5, manner_for(what)) == MD5
    assert (tmp_path / "a.zip").read_bytes() == CONTENT
    assert nothing_else(tmp_path)


@pytest.mark.parametrize("what", BAD)
def test_ends_with_what_is_wrong_and_no_file_or_with_the_mirror_s(
    server: Server, tmp_path: Path, what: str
):
    page, text = BAD[what]
    bad, mirror = server.serve(page), server.serve(good, "/mirror")
    with pytest.raises(Unavailable, match=f"^{bad}: .*({text})"):
        download([bad], tmp_path / "a.zip", MD5, manner_for(what))
    assert not (tmp_path / "a.zip").exists()
    assert download([bad, mirror], tmp_path / "a.zip", MD5, manner_for(what)) == MD5
    assert (tmp_path / "a.zip").read_bytes() == CONTENT
    assert nothing_else(tmp_path)


def interrupted(server: Server, folder: Path, at: int = 7000, **how: Any) -> list[tuple[int, int]]:
    """Begin a download that breaks off in each connection; what was sent."""
    manner = QUICK._replace(attempts=1, enough=10**9, **how)
    with pytest.raises(Unavailable, match="broke off"):
        download([server.serve(breaks(at, 99))], folder / "a.zip", MD5, manner)
    assert {path.name for path in folder.iterdir()} == {"a.zip.part", "a.zip.part.json"}
    return [*server.sent]


def assert_sent_once(server: Server) -> None:
    """Every byte, and none of them twice."""
    assert server.bytes_sent == len(CONTENT)
    end = 0
    for start, stop in sorted(server.sent):
        assert start == end
        end = stop


@pytest.mark.parametrize("connections", [1, 3])
@pytest.mark.parametrize("etag", ['"1"', 'W/"1"', None])
def test_nothing_is_fetched_twice_in_one_call(
    server: Server, tmp_path: Path, connections: int, etag: str | None
):
    url = server.serve(breaks(7000, 6, etag=etag))
    download([url], tmp_path / "a.zip", MD5, QUICK._replace(connections=connections))
    assert (tmp_path / "a.zip").read_bytes() == CONTENT
    assert_sent_once(server)


@pytest.mark.parametrize("connections", [1, 3])
def test_a_second_call_fetches_what_the_first_one_lacks(
    server: Server, tmp_path: Path, connections: int
):
    first = interrupted(server, tmp_path, connections=connections)
    assert len(first) == connections
    for at in (11, 1000, 19_999):
        interrupted(server, tmp_path, at, connections=connections)
    download([server.serve(good)], tmp_path / "a.zip", MD5, QUICK)
    assert (tmp_path / "a.zip").read_bytes() == CONTENT
    assert_sent_once(server)
    assert nothing_else(tmp_path)


def test_a_mirror_goes_on_where_the_first_address_ended_if_a_checksum_will_tell(
    server: Server, tmp_path: Path
):
    mirror = server.serve(lambda h, _: h.give(CONTENT, etag='"of the mirror"'), "/mirror")
    one = QUICK._replace(attempts=1, enough=10**9)
    download([server.serve(breaks(7000, 99)), mirror], tmp_path / "a.zip", MD5, one)
    assert_sent_once(server)
    server.sent.clear()
    download([server.serve(breaks(7000, 99)), mirror], tmp_path / "b.zip", None, one)
    assert server.bytes_sent == len(CONTENT) + 3 * 7000


@pytest.mark.parametrize("what", ["its ETag", "its size", "its date"])
def test_a_file_that_changed_between_two_calls_is_fetched_anew(
    server: Server, tmp_path: Path, what: str
):
    how: dict[str, Any] = {"etag": None, "Last_Modified": "Fri, 01 Jan 2021 00:00:00 GMT"}
    url = server.serve(breaks(7000, 99, **how) if what == "its date" else breaks(7000, 99))
    with pytest.raises(Unavailable):
        download([url], tmp_path / "a.zip", None, QUICK._replace(attempts=1, enough=10**9))
    new = OTHER[:-1] if what == "its size" else OTHER
    how = {
        "its ETag": {"etag": '"2"'},
        "its size": {},
        "its date": {**how, "Last_Modified": "Sat, 02 Jan 2021 00:00:00 GMT"},
    }[what]
    server.sent.clear()
    download([server.serve(lambda h, _: h.give(new, **how))], tmp_path / "a.zip", None, QUICK)
    assert (tmp_path / "a.zip").read_bytes() == new
    assert server.bytes_sent == len(new)


@pytest.mark.parametrize("harm", ["bytes", "size", "note", "no note", "no part"])
def test_a_part_that_was_harmed_does_no_harm(server: Server, tmp_path: Path, harm: str):
    interrupted(server, tmp_path)
    kept, note = tmp_path / "a.zip.part", tmp_path / "a.zip.part.json"
    content = bytearray(kept.read_bytes())
    if harm == "bytes":
        content[100] ^= 1
        kept.write_bytes(content)
    elif harm == "size":
        kept.write_bytes(content[:-1])
    elif harm == "note":
        note.write_text('{"missing": [[0, 1')
    elif harm == "no note":
        note.unlink()
    else:
        kept.unlink()
    download([server.serve(good)], tmp_path / "a.zip", MD5, QUICK)
    assert (tmp_path / "a.zip").read_bytes() == CONTENT
    assert nothing_else(tmp_path)


def test_a_few_connections_at_once_and_never_more(server: Server, tmp_path: Path):
    now, most = [0], [0]

    def page(handler: Handler, _: int) -> None:
        with server.lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        time.sleep(0.02)
        handler.give(CONTENT)
        with server.lock:
            now[0] -= 1

    download([server.serve(page)], tmp_path / "a.zip", MD5, QUICK)
    assert most[0] == 3
    ranges = sorted(int(range.split("=")[1].split("-")[0]) for _, range in server.asked if range)
    assert ranges == [0, *range(0, 200_000, 20_000)]


def test_what_a_refused_connection_was_to_fetch_is_fetched_by_the_other(
    server: Server, tmp_path: Path
):
    refused = threading.Event()

    def page(handler: Handler, number: int) -> None:
        if number == 2:
            handler.answer(403)
            refused.set()
        else:
            assert number == 0 or refused.wait(5)
            handler.give(CONTENT)

    two = QUICK._replace(connections=2, piece=60_000)
    download([server.serve(page)], tmp_path / "a.zip", MD5, two)
    assert_sent_once(server)


def test_a_tgz_that_the_server_calls_packed_is_left_packed_and_gone_on_with(
    server: Server, tmp_path: Path
):
    url = server.serve(breaks(7000, 4, Content_Encoding="x-gzip"), "/a.tgz")
    download([url], tmp_path / "a.tgz", MD5, QUICK)
    assert (tmp_path / "a.tgz").read_bytes() == CONTENT
    assert_sent_once(server)


def test_waits_longer_each_time_and_as_long_as_the_server_asks(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    waits: list[float] = []
    monkeypatch.setattr("dmlbench.datasets.transfer.time.sleep", waits.append)
    patient = Manner(attempts=5, longest_wait=30.0)
    with pytest.raises(Unavailable):
        download([server.serve(status(500))], tmp_path / "a.zip", MD5, patient)
    assert waits == [1, 2, 4, 8]
    waits.clear()
    page = status(503, 1, Retry_After="7")
    download([server.serve(page, "/b")], tmp_path / "b.zip", MD5, patient)
    page = status(503, 1, Retry_After="Fri, 31 Dec 2100 23:59:59 GMT")
    download([server.serve(page, "/c")], tmp_path / "c.zip", MD5, patient)
    assert waits == [7, 30]


def test_a_server_that_refuses_connections_is_left_for_the_mirror(server: Server, tmp_path: Path):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{closed.getsockname()[1]}/a.zip"
        with pytest.raises(Unavailable, match=r"no connection: .*refused"):
            download([nobody], tmp_path / "a.zip", MD5, QUICK)
        download([nobody, server.serve(good)], tmp_path / "a.zip", MD5, QUICK)
    assert (tmp_path / "a.zip").read_bytes() == CONTENT


@pytest.mark.parametrize("url", ["http://", "nonsense", "http://[::1", "file:///etc/passwd"])
def test_an_address_that_is_none_is_said(tmp_path: Path, url: str):
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


def test_without_a_checksum_what_comes_is_taken_and_its_sha256_told(server: Server, tmp_path: Path):
    found = download([server.serve(good)], tmp_path / "a.zip", None, QUICK)
    assert found == "sha256:" + hashlib.sha256(CONTENT).hexdigest()
    assert (tmp_path / "a.zip").read_bytes() == CONTENT


def test_a_disk_that_is_too_small_is_said_before_anything_comes(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    interrupted(server, tmp_path)
    server.sent.clear()
    left = len(CONTENT) - 3 * 7000
    free = [left - 1]
    usage = type("Usage", (), {"free": property(lambda self: free[0])})
    monkeypatch.setattr(part.shutil, "disk_usage", lambda folder: usage())
    with pytest.raises(DatasetError, match=r"a\.zip needs 179 kB more, and 179 kB are free"):
        download([server.serve(good)], tmp_path / "a.zip", MD5, QUICK)
    assert server.sent == []
    free[0] += 1
    download([server.serve(good)], tmp_path / "a.zip", MD5, QUICK)
    assert server.bytes_sent == left


def test_a_disk_that_is_full_ends_it_and_what_was_written_is_gone_on_from(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    write, written = os.pwrite, [0]

    def full(file: int, data: bytes, offset: int) -> int:
        if written[0] > 50_000:
            raise OSError(28, "No space left on device")
        count = write(file, data[:100], offset)  # in small bites, as it may
        written[0] += count
        return count

    monkeypatch.setattr(part.os, "pwrite", full)
    with pytest.raises(DatasetError, match=r"a\.zip\.part: cannot be written: .*No space left"):
        download([server.serve(good)], tmp_path / "a.zip", MD5, QUICK)
    monkeypatch.setattr(part.os, "pwrite", write)
    server.sent.clear()
    download([server.serve(good)], tmp_path / "a.zip", MD5, QUICK)
    assert server.bytes_sent == len(CONTENT) - written[0]


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_one_who_is_killed_leaves_a_part_to_go_on_from(
    server: Server, tmp_path: Path, how: signal.Signals
):
    url = server.serve(slowly(2000, 0.05, times=4))
    code = (
        "import sys; from pathlib import Path; from dmlbench.datasets import transfer\n"
        "manner = transfer.Manner(connections=3, piece=60_000, save=0.01)\n"
        "transfer.download([sys.argv[1]], Path(sys.argv[2]), sys.argv[3], manner)"
    )
    command = [sys.executable, "-c", code, url, str(tmp_path / "a.zip"), MD5]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        note = tmp_path / "a.zip.part.json"
        while not note.is_file() or json.loads(note.read_text())["missing"][0][0] == 0:
            time.sleep(0.01)
            assert process.poll() is None
        process.send_signal(how)
    assert process.returncode != 0
    server.sent.clear()
    download([url], tmp_path / "a.zip", MD5, QUICK)
    assert (tmp_path / "a.zip").read_bytes() == CONTENT
    assert 0 < server.bytes_sent < len(CONTENT)


def test_a_log_gets_a_line_now_and_then_and_no_bar(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
):
    download([server.serve(good)], tmp_path / "a.zip", MD5, QUICK)
    assert capfd.readouterr().err == ""
    monkeypatch.setattr(bar, "EVERY", 0.0)
    url = server.serve(slowly(20_000, 0.1), "/slow.zip")
    download([url], tmp_path / "b.zip", MD5, QUICK._replace(piece=10**6))
    lines = capfd.readouterr().err.splitlines()
    assert re.fullmatch(r"b\.zip: [\d.]+ kB of 200 kB \(\d+%\)", lines[0])
    assert lines[-1] == "verify b.zip.part: 200 kB of 200 kB (100%)"
