"""Download one file: afterwards it is complete and correct, or it is not there.

A download that breaks off resumes, in this call or in a later one. Until the file is complete,
NAME.part holds the bytes so far, and NAME.part.json says what is missing and where the rest came
from. If the server allows it, a few connections fetch pieces of the file at once.
"""

from __future__ import annotations

import email.utils
import functools
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import requests
import urllib3

from dmlbench import __version__
from dmlbench.datasets.archives.checksums import compute
from dmlbench.datasets.archives.partial_file import PartialFile, RemoteFile
from dmlbench.datasets.archives.spec import checksum_algorithm
from dmlbench.utils.progress_bar import ProgressBar
from dmlbench.utils.text import format_bytes

CHUNK = 2**20
"""Bytes that are read from a connection at a time."""


class DownloadOptions(NamedTuple):
    """How many connections a download opens, and when it gives up."""

    connections: int = 4
    piece_bytes: int = 64 * 2**20
    """Bytes of one request."""
    timeout: float = 60.0
    """Seconds without a byte after which a connection is given up."""
    min_rate: float = 1024.0
    """Slowest allowed connection in bytes per second, measured over `timeout`."""
    attempts: int = 6
    """An address is given up after this many attempts in a row that bring less than `min_progress`
    bytes."""
    min_progress: int = 2**20
    first_wait: float = 1.0
    """Seconds before the second attempt; each later wait is twice as long."""
    max_wait: float = 120.0
    """Longest wait in seconds, even if the server asks for more."""
    save_interval: float = 5.0
    """Seconds between two notes of what is missing; a process that is killed loses the rest."""
    headers: Mapping[str, str] = MappingProxyType({})
    """Sent with every request, as the token of a user. Another host, to which a server redirects,
    does not get a token."""


class Unavailable(Exception):
    """No address gave the file. The text has a line for each address, with its answer."""


class _TemporaryFailure(Exception):
    """The next attempt may succeed."""

    def __init__(self, text: str, wait: float = 0.0, ranges: bool = True) -> None:
        super().__init__(text)
        self.wait = wait
        """Seconds that the server asks to wait."""
        self.ranges = ranges
        """False if the next attempt should ask for the file in one piece."""


class _PermanentFailure(Exception):
    """This address does not give the file."""


def download(
    urls: Sequence[str], path: Path, expected: str | None, options: DownloadOptions | None = None
) -> str:
    """Download `path` from the first of `urls` that gives it, and return its checksum.

    Args:
        urls: addresses of the same file.
        path: where the file goes.
        expected: "md5:..." or "sha256:..."; None if the checksum is unknown.
        options: connections, timeouts and attempts.

    Raises:
        Unavailable: no address gave the file. `path` does not exist then; the bytes so far are
            kept if a later call can resume with them.
        DatasetError: the disk is too small, or cannot be written.
    """
    partial = PartialFile(path, has_checksum=expected is not None)
    answers = []
    try:
        for url in urls:
            try:
                return _download_from(url, partial, path, expected, options or DownloadOptions())
            except _PermanentFailure as failure:
                answers.append(f"{url}: {failure}")
    finally:
        partial.discard_if_useless()
    raise Unavailable("\n".join(answers))


def _download_from(
    url: str, partial: PartialFile, path: Path, expected: str | None, options: DownloadOptions
) -> str:
    while True:
        _fetch_missing(url, partial, options)
        checksum = compute(partial.path, checksum_algorithm(expected))
        if expected in (None, checksum):
            partial.rename_to(path)
            return checksum
        count, mixed = partial.bytes_done, partial.mixed
        partial.discard()
        if not mixed:  # mixed bytes deserve another try: all of them from this address
            raise _PermanentFailure(
                f"gives another file, of {format_bytes(count)} and with checksum {checksum}"
            )


def _fetch_missing(url: str, partial: PartialFile, options: DownloadOptions) -> None:
    """Fetch what is missing, in as many attempts as make progress."""
    failures, ranges = 0, True
    while True:
        before = partial.bytes_done
        try:
            return _attempt(url, partial, options, ranges)
        except _TemporaryFailure as failure:
            ranges = ranges and failure.ranges
            progress = partial.bytes_done - before >= options.min_progress
            failures = 0 if progress else failures + 1
            if failures >= options.attempts:
                raise _PermanentFailure(f"{failure} ({failures} times)") from None
            wait = max(options.first_wait * 2 ** max(failures - 1, 0), failure.wait)
            wait = min(wait, options.max_wait)
            print(f"{url}: {failure}; again in {wait:.0f} s", file=sys.stderr, flush=True)
            time.sleep(wait)


def _attempt(url: str, partial: PartialFile, options: DownloadOptions, ranges: bool) -> None:
    # one byte tells the size, the version, and whether the server gives parts of the file
    with _request(url, {"Range": "bytes=0-0"} if ranges else {}, options) as response:
        whole_file = response.status_code == 200
        unpack = whole_file and _compressed_for_transfer(response, partial.name)
        source = _remote_file(url, response, partial.name)
        partial.open(source, options.piece_bytes)
        if whole_file:
            (piece,) = partial.missing
            write = functools.partial(_write_body, response, partial, piece, options, unpack)
            _run_in_threads(partial, options, [write])
            return
    workers = min(options.connections, len(partial.missing))
    fetch = functools.partial(_fetch_pieces, source, partial, options)
    _run_in_threads(partial, options, [fetch] * workers)


def _run_in_threads(
    partial: PartialFile, options: DownloadOptions, jobs: Sequence[Callable[[], None]]
) -> None:
    """Run `jobs` at once; show and note their progress. If one fails, the others go on."""
    errors: list[BaseException] = []

    def guarded(job: Callable[[], None]) -> None:
        try:
            job()
        except BaseException as error:
            errors.append(error)

    # daemons: a thread that waits for a silent server must not delay the end of the process
    threads = [threading.Thread(target=guarded, args=(job,), daemon=True) for job in jobs]
    try:
        with ProgressBar(partial.name, partial.size) as bar:
            for thread in threads:
                thread.start()
            next_save = time.monotonic() + options.save_interval
            for thread in threads:
                while thread.is_alive():
                    thread.join(0.2)
                    bar.show(partial.bytes_done)
                    if time.monotonic() >= next_save:
                        partial.save()
                        next_save = time.monotonic() + options.save_interval
    finally:
        partial.close()
    if errors and not partial.complete:  # a complete file: only a surplus connection was refused
        raise min(errors, key=lambda error: isinstance(error, _TemporaryFailure))


def _fetch_pieces(source: RemoteFile, partial: PartialFile, options: DownloadOptions) -> None:
    """Fetch pieces until none is left. A piece that fails is left to the other connections."""
    while piece := partial.take_piece():
        start, stop = piece
        headers = {"Range": f"bytes={start}-{stop - 1}"}
        if source.validator:
            headers["If-Range"] = source.validator
        try:
            with _request(source.url, headers, options) as response:
                same_version = _validator(response) in (source.validator, None)
                part = _content_range(response, partial.name)
                if not same_version or part != (start, source.size):
                    raise _TemporaryFailure(
                        "the file changes, or the server mixes up its parts", ranges=False
                    )
                _write_body(response, partial, piece, options)
        except Exception:
            partial.put_back(piece)
            raise


def _write_body(
    response: requests.Response,
    partial: PartialFile,
    piece: list[int],
    options: DownloadOptions,
    unpack: bool = False,
) -> None:
    """Write the body of an answer to `piece`, and drop what goes beyond it."""
    first, since, count = piece[0], time.monotonic(), 0
    while data := response.raw.read1(CHUNK, decode_content=unpack):
        if not partial.write(piece, data):
            return
        count += len(data)
        if (seconds := time.monotonic() - since) > options.timeout:
            if count < options.min_rate * seconds:
                raise _TemporaryFailure(f"sends only {count / seconds:.0f} bytes a second")
            since, count = time.monotonic(), 0
    if partial.size is not None and piece[0] < piece[1]:
        raise _TemporaryFailure(
            f"broke off after {format_bytes(piece[0] - first)} of {format_bytes(piece[1] - first)}"
        )


@contextmanager
def _request(
    url: str, headers: dict[str, str], options: DownloadOptions
) -> Iterator[requests.Response]:
    """An answer that can be the file or a part of it."""
    headers = {
        "User-Agent": f"dmlbench/{__version__}",
        "Accept-Encoding": "identity",
        **options.headers,
        **headers,
    }
    try:
        with requests.get(url, headers=headers, stream=True, timeout=options.timeout) as response:
            _check_answer(response)
            yield response
    except (requests.Timeout, urllib3.exceptions.TimeoutError):
        raise _TemporaryFailure(f"no answer for {options.timeout:.3g} s") from None
    except requests.ConnectionError as error:
        raise _TemporaryFailure(f"no connection: {_root_cause(error)}") from None
    except urllib3.exceptions.HTTPError as error:
        raise _TemporaryFailure(f"the connection broke off: {_root_cause(error)}") from None
    except requests.RequestException as error:  # unknown protocol, endless redirects
        raise _PermanentFailure(str(error)) from None


def _check_answer(response: requests.Response) -> None:
    status = f"HTTP {response.status_code} {response.reason or ''}".rstrip()
    if response.status_code == 416:
        raise _TemporaryFailure(status, ranges=False)
    if response.status_code in (408, 425, 429) or response.status_code >= 500:
        raise _TemporaryFailure(status, wait=_retry_after(response))
    if response.status_code not in (200, 206):
        raise _PermanentFailure(status)
    if response.headers.get("Content-Type", "").startswith("text/html"):
        raise _PermanentFailure(
            "answers with a web page (a log-in, a notice, a quota), not with the file"
        )


def _retry_after(response: requests.Response) -> float:
    """Seconds that the server asks to wait; it gives a number or a date."""
    value = response.headers.get("Retry-After", "")
    if value.isdigit():
        return float(value)
    with suppress(ValueError):
        return max(email.utils.parsedate_to_datetime(value).timestamp() - time.time(), 0.0)
    return 0.0


def _remote_file(url: str, response: requests.Response, name: str) -> RemoteFile:
    if response.status_code == 200:
        length = response.headers.get("Content-Length", "")
        known = length.isdigit() and not _compressed_for_transfer(response, name)
        return RemoteFile(url, int(length) if known else None, None, False)
    start, total = _content_range(response, name)
    if start != 0 or total is None:
        raise _TemporaryFailure("the server mixes up parts of the file", ranges=False)
    return RemoteFile(url, total, _validator(response), True)


def _content_range(response: requests.Response, name: str) -> tuple[int, int | None]:
    """(first byte of this part, size of the file); (-1, None) if the answer is no usable part."""
    match = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", response.headers.get("Content-Range", ""))
    if response.status_code != 206 or not match or _compressed_for_transfer(response, name):
        return -1, None
    return int(match[1]), int(match[2])


def _validator(response: requests.Response) -> str | None:
    """A header that changes with the file and is allowed in If-Range: strong ETag, or date."""
    etag = response.headers.get("ETag", "")
    return etag if etag.startswith('"') else response.headers.get("Last-Modified")


def _compressed_for_transfer(response: requests.Response, name: str) -> bool:
    """Whether the server compressed the body for the transfer.

    Servers also claim this for .tgz files, which should stay compressed.
    """
    encoding = response.headers.get("Content-Encoding", "identity")
    return encoding != "identity" and not name.endswith("gz")


def _root_cause(error: BaseException) -> str:
    """The text of the innermost error, without the sentences that libraries wrap around it."""
    for inner in (getattr(error, "reason", None), *reversed(error.args)):
        if isinstance(inner, BaseException):
            return _root_cause(inner)
    return str(error).rpartition(": ")[2]
