"""Mutated files of data are accepted, or refused with one message that a person can act on.

DMLBENCH_FUZZ_SEED chooses other mutations than those of the default suite.
"""

import copy
import io
import json
import os
import random
import re
import shutil
import time
from contextlib import closing
from functools import partial
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dmlbench.datasets import Row
from dmlbench.datasets.csv import Csv
from dmlbench.datasets.decoding import DecodedChunk, PackedImage
from dmlbench.datasets.store.checks import read_manifest
from dmlbench.datasets.store.inspection import describe, list_data, verify
from dmlbench.datasets.store.journal import Journal
from dmlbench.datasets.store.pack import pack
from dmlbench.datasets.store.part import Part
from dmlbench.datasets.store.reader import Store
from dmlbench.training.external_embeddings import read_embeddings
from dmlbench.utils.digests import describe_file, write_with_digest
from dmlbench.utils.errors import UserError

from .made_csv import HEADER, example_rows, options, write_csv

SEED = os.environ.get("DMLBENCH_FUZZ_SEED", "0")
SECONDS = 5
"""The longest time that a file may take, on a busy machine."""
WORDS = [
    *(b",", b";", b"\t", b'"', b"'", b"\n", b"\r", b"\r\n", b"\0", b"\xff", b"\xef\xbb\xbf", b"|"),
    *(
        b"\xff\xfe",
        b"\\",
        b"/",
        b"..",
        b"./",
        b"train",
        b"test",
        b"query",
        b"path",
        b"label",
        b"-1",
    ),
    *(
        "é".encode(),
        "e\u0301".encode(),
        "\u2028".encode(),
        b"99999999999999999999",
        b"1e400",
        b"PK",
    ),
    *(
        b"{",
        b"}",
        b"[",
        b"]",
        b":",
        b"null",
        b"true",
        b"NaN",
        b"Infinity",
        b"O",
        b"<U9999999",
        b"(",
    ),
]
"""What is written somewhere into a file."""
VALUES = [
    *(None, True, False, 0, -1, 1, 2, 3, 10**12, 10**30, 0.5, float("nan"), float("inf"), "", "x"),
    *("1", "pixels", "jpeg", "../x", "\0", "é" * 999, [], [[]], [1, 2], {}, {"x": 1}, {"train": 1}),
]
"""Values in a manifest."""
TYPES = [pa.int8(), pa.int64(), pa.float32(), pa.string(), pa.bool_(), pa.binary(), pa.null()]
UNKIND = re.compile(r"NoneType|<class|Traceback|object at|BytesIO")
"""What a message to a user never has."""


def mutate_bytes(draw, content):
    """The content of a file after a few changes of its bytes."""
    content = bytearray(content)
    for _ in range(draw.randint(1, 4)):
        start = draw.randrange(len(content) + 1)
        end = min(len(content), start + draw.choice((1, 1, 2, 8, 40, 400)))
        kind = draw.choice(("flip", "flip", "delete", "repeat", "word", "zero", "noise", "cut"))
        if kind == "flip" and start < len(content):
            content[start] ^= 1 << draw.randrange(8)
        elif kind == "delete":
            del content[start:end]
        elif kind == "repeat":
            content[start:start] = content[start:end]
        elif kind == "word":
            content[start : draw.choice((start, end))] = draw.choice(WORDS)
        elif kind == "zero":
            content[start:end] = bytes(end - start)
        elif kind == "noise":
            content[start:end] = draw.randbytes(end - start)
        elif kind == "cut" and draw.random() < 0.3:
            del content[start:]
    return bytes(content)


def mutate_csv(draw, content):
    """The content of a CSV after a few changes of its bytes, or of its cells."""
    if draw.random() < 0.5:
        return mutate_bytes(draw, content)
    rows = [line.split(",") for line in content.decode().splitlines()]
    for _ in range(draw.randint(1, 3)):
        row = draw.choice(rows)
        place = draw.randrange(len(row) + 1)
        word = draw.choice(WORDS).decode("latin-1")
        kind = draw.choice(("cell", "more", "less", "row", "column", "separator"))
        if kind == "cell":
            row[place - 1 : place] = [word]
        elif kind == "more":
            row.insert(place, word)
        elif kind == "less":
            del row[place - 1 : place]
        elif kind == "row":
            rows.insert(draw.randrange(len(rows) + 1), list(row))
        elif kind == "column":
            for other in rows:
                other.insert(place, word)
    separator = draw.choice((",", ",", ";", "\t", "|"))
    encoding = draw.choice(("utf-8", "utf-8", "utf-8-sig", "utf-16", "latin-1", "utf-32"))
    lines = [separator.join(row) for row in rows]
    return draw.choice(("\n", "\r\n", "\r")).join(lines).encode(encoding, "replace")


def mutate_json(draw, content):
    """The content of a JSON file after a few changes of its bytes, or of its values."""
    if draw.random() < 0.3:
        return mutate_bytes(draw, content)
    data = json.loads(content)
    for _ in range(draw.randint(1, 3)):
        inner = data
        while isinstance(inner, dict) and inner:
            key = draw.choice([*inner])
            if isinstance(inner[key], dict) and draw.random() < 0.6:
                inner = inner[key]
                continue
            if draw.random() < 0.2:
                del inner[key]
            else:
                inner[key] = copy.deepcopy(draw.choice(VALUES))
            break
    return json.dumps(data).encode()


def mutate_table(draw, content):
    """The content of a Parquet file after a few changes of its bytes, or of its columns."""
    if draw.random() < 0.6:
        return mutate_bytes(draw, content)
    table = pq.read_table(io.BytesIO(content))
    for _ in range(draw.randint(1, 2)):
        at = draw.randrange(table.num_columns)
        name = table.column_names[at]
        values = table[name].to_pylist()
        kind = draw.choice(("drop", "rename", "value", "null", "type", "shuffle", "rows"))
        if kind == "drop" and table.num_columns > 1:
            table = table.drop_columns([name])
        elif kind == "rename":
            table = table.rename_columns({name: draw.choice(("x", "", *table.column_names))})
        elif kind == "rows":
            table = table.slice(draw.randrange(3), draw.randrange(len(table) + 1))
        elif kind == "type":
            column = pa.array([None] * len(table), draw.choice(TYPES))
            table = table.set_column(at, name, column)
        elif kind == "shuffle":
            draw.shuffle(values)
            table = table.set_column(at, name, pa.array(values, table[name].type))
        elif values:
            number = draw.choice((-1, 0, 1, 2**31 - 1))
            new = number if pa.types.is_integer(table[name].type) else draw.choice(("", "x", "é"))
            values[draw.randrange(len(values))] = None if kind == "null" else new
            try:
                table = table.set_column(at, name, pa.array(values, table[name].type))
            except (pa.ArrowException, TypeError):
                continue
        if len({*table.column_names}) < table.num_columns:
            break  # a column twice cannot be changed by its name
    file = io.BytesIO()
    pq.write_table(table, file)
    return file.getvalue()


def mutate_npz(draw, content):
    """The content of an .npz after a few changes of its bytes, or of its arrays."""
    if draw.random() < 0.5:
        return mutate_bytes(draw, content)
    with np.load(io.BytesIO(content)) as file:
        arrays = dict(file)
    name = draw.choice([*arrays])
    array = arrays[name]
    kind = draw.choice(("drop", "rename", "cast", "shape", "value", "rows", "zip"))
    if kind == "drop":
        del arrays[name]
    elif kind == "rename":
        arrays[draw.choice(("path", "id", "x", "embeddings"))] = arrays.pop(name)
    elif kind == "cast":
        dtype = draw.choice(("O", "S", "U", "f2", "f8", "i8", "u1", "c8", "?", "M8[s]"))
        try:
            arrays[name] = array.astype(dtype)
        except (ValueError, TypeError):
            arrays[name] = np.zeros(array.shape, dtype)
    elif kind == "shape":
        arrays[name] = draw.choice(
            (array[..., None], array.reshape(-1), array[:0], array.T, array[0])
        )
    elif kind == "value" and array.dtype.kind == "f":
        arrays[name][0, 0] = draw.choice((np.nan, np.inf, 1e30, -0.0))
    elif kind == "rows":
        arrays[name] = array[draw.choices(range(len(array)), k=draw.randint(1, 2 * len(array)))]
    file = io.BytesIO()
    draw.choice((np.savez, np.savez_compressed))(file, **arrays)
    content = file.getvalue()
    return mutate_bytes(draw, content) if kind == "zip" else content


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """A table with its images, a store in both forms, and embeddings."""
    folder = tmp_path_factory.mktemp("original")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("DMLBENCH_CACHE", str(folder / "cache"))
        rows = [f"{row},{'both' if row.endswith('test') else ''}" for row in example_rows()]
        file = write_csv(folder / "csv", rows, f"{HEADER},role")
        for form in ("pixels", "jpeg"):
            out = folder / "data/stores" / form
            pack("csv", 6, out, folder, workers=1, options=options(file), form=form)
    index = pq.read_table(folder / "data/stores/pixels/index.parquet")
    paths = np.array(index["path"].to_pylist())
    vectors = np.random.default_rng(0).normal(size=(len(paths), 4))
    np.savez(folder / "own.npz", embeddings=vectors, path=paths)
    store = SimpleNamespace(index={"path": paths, "id": np.arange(len(paths))})
    return SimpleNamespace(folder=folder, store=store)


def use_csv(original, draw, folder):
    file = folder / "csv/my.csv"
    if not file.exists():
        shutil.copytree(original.folder / "csv", folder / "csv")
    file.write_bytes(mutate_csv(draw, (original.folder / "csv/my.csv").read_bytes()))
    dataset = Csv(**options(file))
    assert dataset.FACTS["splits"]["train"][1] > 0
    dataset.check()


def use_npz(original, draw, folder):
    file = folder / "own.npz"
    file.write_bytes(mutate_npz(draw, (original.folder / "own.npz").read_bytes()))
    embeddings = read_embeddings(file, original.store, np.arange(6, 12))
    assert np.isfinite(embeddings).all()
    assert len(embeddings) == 6


def use_store(original, draw, folder, name, mutate):
    """Open, read and inspect a store whose file `name` is mutated."""
    form = draw.choice(("pixels", "jpeg"))
    stores = folder / "data/stores"
    shutil.rmtree(stores, ignore_errors=True)
    shutil.copytree(original.folder / "data/stores" / form, stores / "own")
    file, manifest = stores / "own" / name, stores / "own/manifest.json"
    file.write_bytes(mutate(draw, file.read_bytes()))
    if file != manifest:  # size and digest are right, so that the content counts
        content = json.loads(manifest.read_bytes())
        record = describe_file(file)
        content["files"][name] = record["bytes"]
        if name in content["digests"]:
            content["digests"][name] = record["sha256"]
        del content["digest"]
        write_with_digest(manifest, content)
    assert "own" in list_data(folder / "data")
    try:
        store = Store(stores / "own")
    except UserError:
        with pytest.raises(UserError):
            describe("own", None, folder / "sheet.png", folder / "data")
        raise
    assert read_manifest(stores / "own") == store.manifest
    for split in store.manifest["splits"]:
        assert len(store.split(split).rows) == len(store.split(split).labels)
        assert len(store.split(split, Part(0.5)).rows) <= len(store)
    for image, size in zip(store, store.sizes, strict=True):
        assert image.shape == (store.channels, *size)
    assert len({len(store.protocols[column]) for column in store.protocols}) == 1
    describe("own", None, folder / "sheet.png", folder / "data")
    list(verify("own", folder / "data"))


def use_journal(original, draw, folder):
    """Resume a packing whose journal is mutated: with its first images, or from the beginning."""
    shutil.rmtree(folder / "partial", ignore_errors=True)
    images = [
        PackedImage(Row(f"{k}.png", "é", ("x",), "train"), 1, 9 + k, 9 + k, "digest")
        for k in range(5)
    ]
    with closing(Journal(folder / "partial", {"format": 2}, "code")) as journal:
        for image in images:
            journal.add(DecodedChunk([image], bytes(image.bytes), []))
        journal.save()
    lines = folder / "partial/journal"
    lines.write_bytes(mutate_bytes(draw, lines.read_bytes()))
    with closing(Journal(folder / "partial", {"format": 2}, "code")) as journal:
        journal.save()
        resumed = [*journal.read()]
        assert resumed == images[: len(resumed)]
        size = sum(image.bytes for image in resumed)
        assert journal.bytes == size == (folder / "partial/images.bin").stat().st_size


KINDS = {
    "csv": use_csv,
    "npz": use_npz,
    "manifest": partial(use_store, name="manifest.json", mutate=mutate_json),
    "index": partial(use_store, name="index.parquet", mutate=mutate_table),
    "protocols": partial(use_store, name="protocols.parquet", mutate=mutate_table),
    "journal": use_journal,
}


def check_message(error, folder):
    text = str(error)
    lines = text.splitlines()
    assert str(folder) in text, "it names no file"
    assert len(lines) < 25
    assert max(map(len, lines)) < 1200
    assert not UNKIND.search(text), UNKIND.search(text)


def check_mutations(kind, numbers, original, folder, monkeypatch):
    monkeypatch.setenv("DMLBENCH_CACHE", str(folder / "cache"))
    print(f"DMLBENCH_FUZZ_SEED={SEED}")  # pytest shows it if the test fails
    refused = 0
    for number in numbers:
        draw, start = random.Random(f"{SEED}-{kind}-{number}"), time.monotonic()
        case = f"{kind} {number} of seed {SEED}"
        try:
            KINDS[kind](original, draw, folder)
        except UserError as error:
            refused += 1
            try:
                check_message(error, folder)
            except AssertionError as problem:
                pytest.fail(f"{case}: {problem}: {error}")
        except Exception as error:
            raise AssertionError(f"{case}: no message") from error
        assert time.monotonic() - start < SECONDS, f"{case} takes long"
    assert refused > len(numbers) // 10 or kind == "journal"  # mutations are no harmless ones


@pytest.mark.parametrize("kind", KINDS)
def test_mutated_files_are_accepted_or_refused_in_words(kind, original, tmp_path, monkeypatch):
    check_mutations(kind, range(25), original, tmp_path, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_500_mutated_files_of_each_kind_are_accepted_or_refused_in_words(
    kind, original, tmp_path, monkeypatch
):
    check_mutations(kind, range(500), original, tmp_path, monkeypatch)
