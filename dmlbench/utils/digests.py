"""Digests of files: is a file still what was written?

A result in JSON ends with the digest of all its bytes before. A file of another kind is described
by its size and its digest in such a result.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from hashlib import file_digest, sha256
from pathlib import Path
from typing import Any, TypedDict

from dmlbench.utils.files import MAX_JSON_BYTES, replacing
from dmlbench.utils.reading import read_bytes

SMALL = 2**20
"""A quick look reads files of at most this many bytes. Of a larger file it takes the size alone."""
BEFORE_DIGEST = ',\n "digest": "'
END = re.compile(rb'"digest": "([0-9a-f]{64})"\n}\n\Z')
TEXT_END = re.compile(r"^digest ([0-9a-f]{64})\n\Z", re.MULTILINE)


class FileRecord(TypedDict):
    """What a file was when it was written."""

    bytes: int
    sha256: str


def describe_file(path: Path) -> FileRecord:
    """The size and the digest of the file `path`.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        digest = file_digest(file, "sha256").hexdigest()
        return {"bytes": file.tell(), "sha256": digest}


def is_unchanged(path: Path, record: FileRecord, quick: bool = False) -> bool:
    """Whether the file `path` is the one that `record` describes.

    Args:
        quick: of a file of more than SMALL bytes, compare the size alone.

    Raises:
        OSError: it cannot be read.
    """
    if path.stat().st_size != record["bytes"]:
        return False
    return (quick and record["bytes"] > SMALL) or describe_file(path) == record


def write_with_digest(path: Path, content: Mapping[str, Any]) -> None:
    """Write `content` as JSON to the file `path`, with a digest as its last line.

    The file is replaced at once. `content` has at least one key.
    """
    text = json.dumps(content, indent=1, ensure_ascii=False).removesuffix("\n}") + BEFORE_DIGEST
    start = text.encode(errors="surrogatepass")  # names of files may hold what is no UTF-8
    digest = sha256(start).hexdigest()
    with replacing(path) as temporary:
        temporary.write_bytes(start + f'{digest}"\n}}\n'.encode())


def read_with_digest(path: Path) -> dict[str, Any]:
    """The content of the file `path` that `write_with_digest` wrote, with its "digest".

    Raises:
        OSError: it cannot be read.
        ValueError: one of its bytes is not what was written.
    """
    data = read_bytes(path, MAX_JSON_BYTES)
    end = END.search(data)
    if not end:
        raise ValueError("it does not end with a digest")
    if sha256(data[: end.start(1)]).hexdigest().encode() != end[1]:
        raise ValueError("its digest is that of another content")
    content: dict[str, Any] = json.loads(data)
    return content


def add_digest(text: str) -> str:
    """`text`, which ends with a line break, and its digest as one more line.

    >>> print(add_digest("done\\n"))
    done
    digest d117fa006ba9208500b2930ce69cbde436c647afa917cb7396a9bc9111a46dd2
    <BLANKLINE>
    """
    return f"{text}digest {sha256(text.encode()).hexdigest()}\n"


def read_text_with_digest(path: Path) -> str | None:
    """The text of a file that `add_digest` made; None if it is missing or damaged."""
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError):
        return None
    end = TEXT_END.search(text)
    start = text[: end.start()] if end else ""
    return start if end and add_digest(start) == text else None
