"""One file from the internet: whole and right, or not there.

A download that breaks off goes on from there, in this call or a later one. Until the file is whole,
NAME.part holds what has come, and NAME.part.json says what is missing and where the rest came from.
Where the server allows it, a few connections fetch pieces of the file at once.
"""

from __future__ import annotations

import email.utils
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import requests
import urllib3

from dmlbench import __version__
from dmlbench.datasets.bar import Bar, size
from dmlbench.datasets.checksums import compute
from dmlbench.datasets.part import Part, Source

CHUNK = 2**20


class Manner(NamedTuple):
    """How greedy a download is, and how patient."""

    connections: int = 4
    piece: int = 64 * 2**20
    """Bytes that a connection asks for at a time."""
    silence: float = 60.0
    """Seconds without a byte after which a connection is given up."""
    slowest: float = 1024.0
    """Bytes a second, over `silence`, below which it is given up as well."""
    attempts: int = 6
    """An address is given up after so many in a row that brought less than `enough` bytes."""
    enough: int = 2**20
    wait: float = 1.0
    """Seconds before the second attempt, doubled for each after it."""
    longest_wait: float = 120.0
    """However long a server asks to wait."""
    save: float = 5.0
    """Seconds between the notes of what is missing, for one who is killed."""


class Unavailable(Exception):
    """No address gave the file; what each of them answered."""


class _Fault(Exception):
    """It may go better next time."""

    def __init__(self, text: str, wait: float = 0.0, ranges: bool = True) -> None:
        super().__init__(text)
        self.wait = wait
        """Seconds that the server asks for."""
        self.ranges = ranges
        """False where the file is to be asked for in one piece."""


class _NotHere(Exception):
    """This address does not give the file."""


def download(
    urls: Sequence[str], path: Path, expected: str | None, manner: Manner | None = None
) -> str:
    """Fetch `path` from the first of `urls` that gives it, and return its checksum.

    Args:
        expected: "md5:..." or "sha256:..."; None where nobody knows.

    Raises:
        Unavailable: there is no `path` then, and what has come is kept if it is of use.
        DatasetError: the disk is too small.
    """
    part = Part(path, sure=expected is not None)
    answers = []
    try:
        for url in urls:
            try:
                return _from(url, part, path, expected, manner or Manner())
            except _NotHere as answer:
                answers.append(f"{url}: {answer}")
    finally:
        part.leave()
    raise Unavailable("\n".join(answers))


def _from(url: str, part: Part, path: Path, expected: str | None, manner: Manner) -> str:
    algorithm = expected.partition(":")[0] if expected else "sha256"
    while True:
        _fill(url, part, manner)
        found = compute(part.path, algorithm)
        if expected in (None, found):
            part.become(path)
            return found
        count, mixed = part.done, part.mixed
        part.discard()
        if not mixed:  # else it began elsewhere, or before: once more, all of it from here
            raise _NotHere(f"gives another file, of {size(count)} and with checksum {found}")


def _fill(url: str, part: Part, manner: Manner) -> None:
    """Fetch what is missing, in as many attempts as bring it nearer."""
    idle, ranges = 0, True
    while True:
        before = part.done
        try:
            return _attempt(url, part, manner, ranges)
        except _Fault as fault:
            ranges = ranges and fault.ranges
            idle = 0 if part.done - before >= manner.enough else idle + 1
            if idle >= manner.attempts:
                raise _NotHere(f"{fault} ({idle} times)") from None
            pause = max(manner.wait * 2 ** max(idle - 1, 0), fault.wait)
            pause = min(pause, manner.longest_wait)
            print(f"{url}: {fault}; again in {pause:.0f} s", file=sys.stderr, flush=True)
            time.sleep(pause)


def _attempt(url: str, part: Part, manner: Manner, ranges: bool) -> None:
    # one byte tells the size, the version and whether the server gives parts of the file
    with _ask(url, {"Range": "bytes=0-0"} if ranges else {}, manner) as response:
        whole = response.status_code == 200
        unpack = whole and _packed_on_the_way(response, part.name)
        source = _source(url, response, part.name)
        part.open(source, manner.piece)
        if whole:
            (all_of_it,) = part.missing
            _together(part, manner, [lambda: _pour(response, part, all_of_it, manner, unpack)])
            return
    workers = min(manner.connections, len(part.missing))
    _together(part, manner, [lambda: _pieces(source, part, manner)] * workers)


def _together(part: Part, manner: Manner, jobs: Sequence[Callable[[], None]]) -> None:
    """Run `jobs` at once, and show and note how far they are. One that fails leaves the others
    their work."""
    failed: list[BaseException] = []

    def guarded(job: Callable[[], None]) -> None:
        try:
            job()
        except BaseException as error:
            failed.append(error)

    # daemons: none of them, waiting for a silent server, delays the end of the process
    threads = [threading.Thread(target=guarded, args=(job,), daemon=True) for job in jobs]
    try:
        with Bar(part.name, part.size) as bar:
            for thread in threads:
                thread.start()
            due = time.monotonic() + manner.save
            for thread in threads:
                while thread.is_alive():
                    thread.join(0.2)
                    bar.show(part.done)
                    if time.monotonic() >= due:
                        part.save()
                        due = time.monotonic() + manner.save
    finally:
        part.close()
    if failed and not part.whole:  # else a connection too many was refused
        raise min(failed, key=lambda error: isinstance(error, _Fault))


def _pieces(source: Source, part: Part, manner: Manner) -> None:
    """Fetch pieces until none is left; one that fails is left to the other connections."""
    while piece := part.take():
        start, stop = piece
        wanted = {"Range": f"bytes={start}-{stop - 1}"}
        if source.validator:
            wanted["If-Range"] = source.validator
        try:
            with _ask(source.url, wanted, manner) as response:
                same = _validator(response) in (source.validator, None)
                if not same or _range(response, part.name) != (start, source.size):
                    raise _Fault("the file changes, or the server mixes up its parts", ranges=False)
                _pour(response, part, piece, manner)
        except Exception:
            part.put_back(piece)
            raise


def _pour(
    response: requests.Response,
    part: Part,
    piece: list[int],
    manner: Manner,
    unpack: bool = False,
) -> None:
    """Write the body to its place; more of it than belongs there is left out."""
    first, began, count = piece[0], time.monotonic(), 0
    while data := response.raw.read1(CHUNK, decode_content=unpack):
        if not part.write(piece, data):
            return
        count += len(data)
        if (seconds := time.monotonic() - began) > manner.silence:
            if count < manner.slowest * seconds:
                raise _Fault(f"sends only {count / seconds:.0f} bytes a second")
            began, count = time.monotonic(), 0
    if part.size is not None and piece[0] < piece[1]:
        raise _Fault(f"broke off after {size(piece[0] - first)} of {size(piece[1] - first)}")


@contextmanager
def _ask(url: str, headers: dict[str, str], manner: Manner) -> Iterator[requests.Response]:
    """An answer that may be the file, or a part of it."""
    headers = {"User-Agent": f"dmlbench/{__version__}", "Accept-Encoding": "identity", **headers}
    try:
        with requests.get(url, headers=headers, stream=True, timeout=manner.silence) as response:
            _check(response)
            yield response
    except (requests.Timeout, urllib3.exceptions.TimeoutError):
        raise _Fault(f"no answer for {manner.silence:.3g} s") from None
    except requests.ConnectionError as error:
        raise _Fault(f"no connection: {_reason(error)}") from None
    except urllib3.exceptions.HTTPError as error:
        raise _Fault(f"the connection broke off: {_reason(error)}") from None
    except requests.RequestException as error:  # no such protocol, redirects without an end
        raise _NotHere(str(error)) from None


def _check(response: requests.Response) -> None:
    status = f"HTTP {response.status_code} {response.reason or ''}".rstrip()
    if response.status_code == 416:
        raise _Fault(status, ranges=False)
    if response.status_code in (408, 425, 429) or response.status_code >= 500:
        raise _Fault(status, wait=_retry_after(response))
    if response.status_code not in (200, 206):
        raise _NotHere(status)
    if response.headers.get("Content-Type", "").startswith("text/html"):
        raise _NotHere("answers with a web page (a log-in, a notice, a quota), not with the file")


def _retry_after(response: requests.Response) -> float:
    value = response.headers.get("Retry-After", "")
    if value.isdigit():
        return float(value)
    with suppress(ValueError):
        return max(email.utils.parsedate_to_datetime(value).timestamp() - time.time(), 0.0)
    return 0.0


def _source(url: str, response: requests.Response, name: str) -> Source:
    if response.status_code == 200:
        length = response.headers.get("Content-Length", "")
        known = length.isdigit() and not _packed_on_the_way(response, name)
        return Source(url, int(length) if known else None, None, False)
    start, total = _range(response, name)
    if start != 0 or total is None:
        raise _Fault("the server mixes up parts of the file", ranges=False)
    return Source(url, total, _validator(response), True)


def _range(response: requests.Response, name: str) -> tuple[int, int | None]:
    """Where the part in this answer begins, and the size of the whole; of an answer that is none
    that can be used, (-1, None)."""
    found = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", response.headers.get("Content-Range", ""))
    if response.status_code != 206 or not found or _packed_on_the_way(response, name):
        return -1, None
    return int(found[1]), int(found[2])


def _validator(response: requests.Response) -> str | None:
    """What changes with the file, and may stand in If-Range."""
    etag = response.headers.get("ETag", "")
    return etag if etag.startswith('"') else response.headers.get("Last-Modified")


def _packed_on_the_way(response: requests.Response, name: str) -> bool:
    """Whether the server compressed the body for the journey. It says so of .tgz files too, which
    are meant to be compressed."""
    encoding = response.headers.get("Content-Encoding", "identity")
    return encoding != "identity" and not name.endswith("gz")


def _reason(error: BaseException) -> str:
    """The cause, out of the sentences that the libraries wrap it in."""
    for inner in (getattr(error, "reason", None), *reversed(error.args)):
        if isinstance(inner, BaseException):
            return _reason(inner)
    return str(error).rpartition(": ")[2]
