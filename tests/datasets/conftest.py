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

from dmlbench.datasets import Row, decoding, load, omniglot
from dmlbench.datasets import pack as pack_module
from dmlbench.datasets.pack import pack
from dmlbench.datasets.store import Store


@pytest.fixture(scope="session")
def glyphs(tmp_path_factory: pytest.TempPathFactory) -> Store:
    out = tmp_path_factory.mktemp("stores") / "glyphs-32"
    pack("glyphs", 32, out, out / "no-archives")
    return Store(out)


@pytest.fixture(scope="session")
def png() -> Callable[[np.ndarray], bytes]:
    def encode(pixels: np.ndarray) -> bytes:
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "PNG")
        return file.getvalue()

    return encode


@pytest.fixture
def pack_images(
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[..., Store]:
    """Pack a made data set of (Row, source) pairs, in threads, which start faster."""
    monkeypatch.setattr(decoding, "ProcessPoolExecutor", lambda *_, **__: ThreadPoolExecutor(2))

    monkeypatch.setattr(pack_module.source, "digest", lambda *_: "code")

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
        made = SimpleNamespace(
            FACTS={"version": 1, "channels": channels, "levels": levels, "recall_at": [1], **facts},
            SOURCES={},
            images=lambda archives: iter(images),
            **(hooks or {}),
        )
        monkeypatch.setattr(pack_module, "load", lambda name, options: made)
        pack("made", side, out, out / "no-archives", form=form)
        return Store(out)

    return pack_them


@pytest.fixture
def twin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A small Omniglot in the true layout: 2 alphabets train, 1 tests, 3 characters, 4 drawings."""
    monkeypatch.setitem(omniglot.FACTS, "splits", {"train": [6, 24], "test": [3, 12]})
    rng = np.random.default_rng(0)
    alphabets = {"background": ["Greek", "Angelic_(old)"], "evaluation": ["Tibetan"]}
    members: dict[str, dict[str, bytes]] = {}
    for half, names in alphabets.items():
        files = members[f"images_{half}.zip"] = {}
        for alphabet in names:
            for character in range(1, 4):
                for drawing in range(1, 5):
                    pixels = rng.integers(0, 2, (105, 105)).astype(bool)
                    file = io.BytesIO()
                    Image.fromarray(pixels).save(file, "PNG")
                    path = f"images_{half}/{alphabet}/character{character:02}/00{character}"
                    files[f"{path}_{drawing:02}.png"] = file.getvalue()
    folder = tmp_path / "archives"
    folder.mkdir()

    def write(seed: int = 0) -> dict[str, str]:
        """Write the archives, the members in an order by `seed`; their checksums."""
        checksums = {}
        for name, files in members.items():
            with zipfile.ZipFile(folder / name, "w") as archive:
                shuffled = list(files)
                random.Random(seed).shuffle(shuffled)
                for path in shuffled:
                    archive.writestr(path, files[path])
                    macos, _, leaf = path.rpartition("/")
                    archive.writestr(f"__MACOSX/{macos}/._{leaf}", b"resource fork")
                archive.writestr("images/._odd.png", b"resource fork")
            digest = hashlib.md5((folder / name).read_bytes()).hexdigest()
            checksums[name] = f"md5:{digest}"
        return checksums

    return SimpleNamespace(members=members, folder=folder, write=write)


def _odd_pictures() -> list[bytes]:
    """What the archives really hold under names that end in .jpg."""
    pixels = np.random.default_rng(0).integers(0, 256, (12, 20, 3), dtype=np.uint8)
    colour = Image.fromarray(pixels)
    turned = Image.Exif()
    turned[0x0112] = 6  # held upright: to be turned by 90 degrees
    made: list[tuple[Image.Image, str, dict[str, object]]] = [
        (colour, "JPEG", {}),
        (colour.convert("L"), "JPEG", {}),
        (colour.convert("CMYK"), "JPEG", {}),
        (colour.quantize(16), "PNG", {}),
        (colour.quantize(16), "GIF", {}),
        (colour.convert("RGBA"), "PNG", {}),
        (colour, "JPEG", {"exif": turned}),
        (colour.crop((0, 0, 20, 1)), "JPEG", {}),
        (colour.crop((0, 0, 1, 12)), "JPEG", {}),
    ]
    encoded = []
    for image, kind, options in made:
        file = io.BytesIO()
        image.save(file, kind, **options)
        encoded.append(file.getvalue())
    return encoded


@pytest.fixture(scope="session")
def picture() -> Callable[[int], bytes]:
    """Encoded image number n: colour, gray, CMYK, palette, transparent, turned, one pixel high."""
    odd = _odd_pictures()
    return lambda number: odd[number % len(odd)]


def _write(path: Path, members: dict[str, bytes] | bytes, seed: int) -> None:
    """An archive by its name: the members in an order by `seed`, and what macOS adds to them."""
    if isinstance(members, bytes):
        path.write_bytes(members)
        return
    names = list(members)
    random.Random(seed).shuffle(names)
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as made:
            for folder in {name.rpartition("/")[0] for name in names} - {""}:
                made.writestr(f"{folder}/", b"")
            for name in names:
                made.writestr(name, members[name])
                folder, _, leaf = name.rpartition("/")
                made.writestr(f"__MACOSX/{folder}/._{leaf}", b"resource fork")
        return
    with tarfile.open(path, "w:gz") as tar:
        for name in names:
            folder, slash, leaf = name.rpartition("/")
            fork = f"{folder}{slash}._{leaf}"
            for path_, content in ((name, members[name]), (fork, b"resource fork")):
                entry = tarfile.TarInfo(path_)
                entry.size = len(content)
                tar.addfile(entry, io.BytesIO(content))


@pytest.fixture(scope="session")
def searched() -> Callable[..., tuple[list[int], list[int]]]:
    """Ids of the queries and of the gallery of a store's protocol."""

    def find(
        store: Store, protocol: str = "zero_shot", repetition: int = 0
    ) -> tuple[list[int], list[int]]:
        table = store.protocols
        of_it = (table["protocol"] == protocol) & (table["repetition"] == repetition)
        ids, role = table["id"][of_it], table["role"][of_it]
        return ids[role != "gallery"].tolist(), ids[role != "query"].tolist()

    return find


@pytest.fixture
def web(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    """A folder that a server on this machine shows, and its address."""
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
def pack_made(
    web: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Store]:
    """Write the archives of a data set, {file name: members or content}, download them, and pack
    them. Those that are had by hand are put in place; others that are not given are not found."""
    monkeypatch.setattr(decoding, "ProcessPoolExecutor", lambda *_, **__: ThreadPoolExecutor(2))
    counter = itertools.count()

    def pack_them(
        name: str, archives: dict[str, dict[str, bytes] | bytes], side: int = 8, seed: int = 0
    ) -> Store:
        place = f"data{next(counter)}"
        shown, folder = web.folder / place, tmp_path / place
        shown.mkdir()
        folder.mkdir()
        module = load(name)
        groups = module.SOURCES if isinstance(module.SOURCES, tuple) else (module.SOURCES,)
        here = [
            {
                file: archive._replace(urls=(f"{web.url}/{place}/{file}",) if archive.urls else ())
                for file, archive in group.items()
            }
            for group in groups
        ]
        monkeypatch.setattr(module, "SOURCES", tuple(here))
        checksums = {}
        for file, members in archives.items():
            _write(shown / file, members, seed)
            checksums[file] = f"md5:{hashlib.md5((shown / file).read_bytes()).hexdigest()}"
            if any(file in group and not group[file].urls for group in here):
                (shown / file).rename(folder / file)
        pack(name, side, folder / "store", folder, checksums)
        store = Store(folder / "store")
        assert set(store.sizes.min(axis=1).tolist()) == {side}
        return store

    return pack_them
