"""A server on this machine that does what good and bad servers do."""

import gzip
import hashlib
import itertools
import random
import re
import socket
import struct
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from dmlbench.datasets.archives.download import DownloadOptions

CONTENT = random.Random(0).randbytes(200_000)
OTHER = random.Random(1).randbytes(200_000)
HTML = b"<!DOCTYPE html><html>please log in</html>"
MD5 = "md5:" + hashlib.md5(CONTENT).hexdigest()
MD5_OF_OTHER = "md5:" + hashlib.md5(OTHER).hexdigest()
QUICK = DownloadOptions(
    connections=3,
    piece_bytes=20_000,
    timeout=5.0,
    min_rate=20_000,
    attempts=3,
    min_progress=1000,
    first_wait=0.001,
    max_wait=0.05,
    save_interval=0.01,
)
"""For files of 200 kB on this machine."""
PROBE = "bytes=0-0"
"""The Range of the first request, which finds out what the server can do."""
ONE_ATTEMPT = QUICK._replace(attempts=1, min_progress=10**9)


class Handler(BaseHTTPRequestHandler):
    """Does what the page of the path does; by default the path is missing."""

    protocol_version = "HTTP/1.1"
    server: "Server"

    def do_GET(self) -> None:
        self.close_connection = True
        with self.server.lock:
            number = len([path for path, _ in self.server.requests if path == self.path])
            self.server.requests.append((self.path, self.headers.get("Range")))
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
        """Answer as a good server, but send `only` so many bytes, or let `body` send them."""
        wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        fresh = self.headers.get("If-Range") in (None, etag, headers.get("Last_Modified"))
        start, stop = 0, len(content)
        if ranges and wanted and fresh:
            start, stop = int(wanted[1]), min(int(wanted[2]) + 1, len(content))
            if start >= len(content):
                return self.answer(416)
            headers = {"Content_Range": f"bytes {start}-{stop - 1}/{len(content)}", **headers}
        headers = {
            "Content_Length": str(stop - start),
            **({"ETag": etag} if etag else {}),
            **headers,
        }
        self.answer(206 if "Content_Range" in headers else 200, headers)
        sent = content[start:stop][:only]
        if self.headers.get("Range") != PROBE:
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
"""What a path does when it is requested for the n-th time."""


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 50

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.lock = threading.Lock()
        self.pages: dict[str, Page] = {}
        self.requests: list[tuple[str, str | None]] = []
        """Path and Range of each request."""
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


def breaks(at: int, times: int, *, reset: bool = False, **headers: Any) -> Page:
    """The first `times` answers with content break off after `at` bytes."""

    def page(handler: Handler, number: int) -> None:
        content = handler.headers.get("Range") != PROBE
        if content and number <= times:
            handler.give(CONTENT, only=at, **headers)
            if reset:
                handler.reset()
        else:
            handler.give(CONTENT, **headers)

    return page


def breaks_together(at: int, connections: int) -> Page:
    """All answers break off after `at` bytes, the first ones at the same time.

    So no connection fetches what another one left.
    """
    page, barrier, arrived = breaks(at, 99), threading.Barrier(connections), itertools.count()

    def together(handler: Handler, number: int) -> None:
        if handler.headers.get("Range") != PROBE and next(arrived) < connections:
            barrier.wait(5)
        page(handler, number)

    return together


def slowly(chunk: int, pause: float, times: int = 99) -> Page:
    """Sends `chunk` bytes at a time, with pauses; from request number `times` on, all at once."""

    def page(handler: Handler, number: int) -> None:
        def body(content: bytes) -> None:
            for i in range(0, len(content), chunk):
                handler.wfile.write(content[i : i + chunk])
                time.sleep(pause)

        handler.give(CONTENT, body=body if number < times else None)

    return page


def stalls(times: int) -> Page:
    """Sends nothing more after some bytes."""

    def page(handler: Handler, number: int) -> None:
        if handler.headers.get("Range") == PROBE or number > times:
            return handler.give(CONTENT)
        handler.give(CONTENT, only=5000)
        handler.wfile.flush()
        time.sleep(0.6)

    return page


def silent(handler: Handler, _: int) -> None:
    time.sleep(0.6)


def compresses(handler: Handler, _: int) -> None:
    """Compresses the body although nobody asked for it."""
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


def renewed(at: int) -> Page:
    """Has another version, with another ETag, from request number `at` on."""

    def page(handler: Handler, number: int) -> None:
        content, etag = (OTHER, '"0"') if number < at else (CONTENT, '"1"')
        handler.give(content, etag=etag)

    return page


def ignores_if_range(handler: Handler, number: int) -> None:
    """Gives another version in every second answer, like servers that are not synchronised."""
    del handler.headers["If-Range"]
    if "Range" in handler.headers and number % 2:
        handler.give(OTHER, etag='"0"')
    else:
        handler.give(CONTENT)


def shifted(handler: Handler, _: int) -> None:
    """Answers with a range other than the requested one."""
    if handler.headers.get("Range", PROBE) != PROBE:
        handler.headers.replace_header("Range", "bytes=0-9999")
        del handler.headers["If-Range"]
    handler.give(CONTENT)


def forgets_ranges(handler: Handler, number: int) -> None:
    handler.give(CONTENT, ranges=number == 0)


def too_long(handler: Handler, _: int) -> None:
    """Sends more bytes than the range has."""
    handler.give(CONTENT, body=lambda content: handler.wfile.write(content + b"x" * 500))


def redirect(to: str) -> Page:
    return lambda handler, _: handler.answer(302, {"Location": to, "Content-Length": "0"})


def html(handler: Handler, _: int) -> None:
    handler.give(HTML, ranges=False, Content_Type="text/html; charset=utf-8")


def other(handler: Handler, _: int) -> None:
    handler.give(OTHER, etag='"other"')


def nonsense(handler: Handler, _: int) -> None:
    handler.wfile.write(b"SSH-2.0-OpenSSH_9.2\r\n")


def only_the_file(folder: Path) -> bool:
    """Whether nothing but a.zip is in `folder`."""
    return [path.name for path in folder.iterdir()] == ["a.zip"]


def assert_sent_once(server: Server) -> None:
    """Every byte was sent, and none of them twice."""
    assert server.bytes_sent == len(CONTENT)
    end = 0
    for start, stop in sorted(server.sent):
        assert start == end
        end = stop
