import hashlib
import io
import itertools
import os
import random
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from dmlbench.datasets import Row, decoding, load
from dmlbench.datasets.archives.spec import archive_groups
from dmlbench.datasets.store import pack as pack_module
from dmlbench.datasets.store.pack import pack
from dmlbench.datasets.store.reader import Store


@pytest.fixture(scope="session")
def png() -> Callable[[np.ndarray], bytes]:
    """Encode pixels as a PNG file."""

    def encode(pixels: np.ndarray) -> bytes:
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "PNG")
        return file.getvalue()

    return encode


@pytest.fixture
def decode_in_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads start faster than processes."""
    monkeypatch.setattr(decoding, "ProcessPoolExecutor", lambda *_, **__: ThreadPoolExecutor(2))


@pytest.fixture
def decode_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The test fails if packing comes to the first image."""

    def fail(images: Iterator[tuple[Row, object]], *_: object) -> Iterator[None]:
        for row, _source in images:
            pytest.fail(f"{row.path} is decoded")
        yield

    monkeypatch.setattr(pack_module, "decode", fail)


@pytest.fixture
def pack_images(decode_in_threads: None, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Store]:
    """Pack a made data set of (Row, source) pairs."""
    monkeypatch.setattr(pack_module, "code_digest", lambda *_: "code")

    def pack_them(
        images: list[tuple[Row, object]],
        side: int,
        out: Path,
        channels: int = 1,
        form: str = "pixels",
        hooks: dict[str, object] | None = None,
        **facts: object,
    ) -> Store:
        levels = [f"level {i}" for i in range(len(images[0][0].levels))] if images else []
        dataset = SimpleNamespace(
            FACTS={"version": 1, "channels": channels, "levels": levels, "recall_at": [1], **facts},
            SOURCES={},
            images=lambda archives: iter(images),
            **(hooks or {}),
        )
        monkeypatch.setattr(pack_module, "load", lambda name, options: dataset)
        pack("made", side, out, out / "no-archives", form=form)
        return Store(out)

    return pack_them


def _odd_images() -> list[bytes]:
    """What real archives hold under names that end in .jpg."""
    pixels = np.random.default_rng(0).integers(0, 256, (12, 20, 3), dtype=np.uint8)
    colour = Image.fromarray(pixels)
    rotated = Image.Exif()
    rotated[0x0112] = 6  # to be rotated by 90 degrees
    images: list[tuple[Image.Image, str, dict[str, object]]] = [
        (colour, "JPEG", {}),
        (colour.convert("L"), "JPEG", {}),
        (colour.convert("CMYK"), "JPEG", {}),
        (colour.quantize(16), "PNG", {}),
        (colour.quantize(16), "GIF", {}),
        (colour.convert("RGBA"), "PNG", {}),
        (colour, "JPEG", {"exif": rotated}),
        (colour.crop((0, 0, 20, 1)), "JPEG", {}),
        (colour.crop((0, 0, 1, 12)), "JPEG", {}),
    ]
    files = []
    for image, kind, options in images:
        file = io.BytesIO()
        image.save(file, kind, **options)
        files.append(file.getvalue())
    return files


@pytest.fixture
def cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder."""
    monkeypatch.setenv("DMLBENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="session")
def picture() -> Callable[[int], bytes]:
    """Encoded image number n: colour, gray, CMYK, palette, transparent, rotated, one pixel high."""
    files = _odd_images()
    return lambda number: files[number % len(files)]


def _write_archive(path: Path, members: dict[str, bytes] | bytes, seed: int) -> None:
    """Write a zip or tar.gz by its name, shuffled by `seed`, with the extra files of macOS."""
    if isinstance(members, bytes):
        path.write_bytes(members)
        return
    names = list(members)
    random.Random(seed).shuffle(names)
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            for folder in {name.rpartition("/")[0] for name in names} - {""}:
                archive.writestr(f"{folder}/", b"")
            for name in names:
                archive.writestr(name, members[name])
                folder, _, leaf = name.rpartition("/")
                archive.writestr(f"__MACOSX/{folder}/._{leaf}", b"resource fork")
        return
    with tarfile.open(path, "w:gz") as tar:
        for name in names:
            folder, slash, leaf = name.rpartition("/")
            fork = f"{folder}{slash}._{leaf}"
            for member, content in ((name, members[name]), (fork, b"resource fork")):
                entry = tarfile.TarInfo(member)
                entry.size = len(content)
                tar.addfile(entry, io.BytesIO(content))


@pytest.fixture(scope="session")
def query_and_gallery_ids() -> Callable[..., tuple[list[int], list[int]]]:
    """Ids of the queries and of the gallery in a protocol of a store."""

    def select(
        store: Store, protocol: str = "zero_shot", repetition: int = 0
    ) -> tuple[list[int], list[int]]:
        table = store.protocols
        rows = (table["protocol"] == protocol) & (table["repetition"] == repetition)
        ids, role = table["id"][rows], table["role"][rows]
        return ids[role != "gallery"].tolist(), ids[role != "query"].tolist()

    return select


@pytest.fixture
def file_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    """A server on this machine: the folder that it serves, and its address."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(os, "fsync", lambda file: None)  # nobody waits for the disk
    folder = tmp_path / "web"
    folder.mkdir()

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=folder)) as http:
        threading.Thread(target=http.serve_forever, args=(0.01,), daemon=True).start()
        yield SimpleNamespace(folder=folder, url=f"http://127.0.0.1:{http.server_port}")
        http.shutdown()


@pytest.fixture
def pack_archives(
    file_server: SimpleNamespace,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    decode_in_threads: None,
) -> Callable[..., Store]:
    """Write the archives of a data set, {file name: members or content}, download and pack them.

    Archives that people must get themselves are put in place. An archive that is not given is
    missing.
    """
    counter = itertools.count()

    def pack_them(
        name: str, archives: dict[str, dict[str, bytes] | bytes], side: int = 8, seed: int = 0
    ) -> Store:
        subfolder = f"data{next(counter)}"
        served, folder = file_server.folder / subfolder, tmp_path / subfolder
        served.mkdir()
        folder.mkdir()
        module = load(name)
        url = f"{file_server.url}/{subfolder}"
        groups = [
            {
                file: archive._replace(urls=(f"{url}/{file}",) if archive.urls else ())
                for file, archive in group.items()
            }
            for group in archive_groups(module.SOURCES)
        ]
        monkeypatch.setattr(module, "SOURCES", tuple(groups))
        checksums = {}
        for file, members in archives.items():
            _write_archive(served / file, members, seed)
            checksums[file] = f"md5:{hashlib.md5((served / file).read_bytes()).hexdigest()}"
            if any(file in group and not group[file].urls for group in groups):
                (served / file).rename(folder / file)
        pack(name, side, folder / "store", folder, checksums)
        store = Store(folder / "store")
        assert set(store.sizes.min(axis=1).tolist()) == {side}
        return store

    return pack_them
