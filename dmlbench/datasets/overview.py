"""What is there of the data sets: `dmlbench data list | show | verify`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from dmlbench import source
from dmlbench.datasets import DatasetError, archive_groups, list_datasets, listed, load, tables
from dmlbench.datasets.bar import size
from dmlbench.datasets.store import UNREADABLE, Store
from dmlbench.files import replacing
from dmlbench.problems import did_you_mean


def listing(data: Path) -> str:
    """A line for each data set, and below it one for each of its stores: what is there, what is
    missing, sizes."""
    packed = _stores(data)
    lines = []
    for name in list_datasets():
        lines.append(_line(name, data))
        lines += [_store_line(folder) for folder, kind in packed.items() if kind == name]
    lines += [_store_line(folder) for folder, kind in packed.items() if kind not in list_datasets()]
    return "\n".join(lines)


def describe(name: str, side: int | None, sheet: Path | None, data: Path) -> str:
    """Facts of a data set or of one store; of each of its stores (of the short side `side`, where
    one is given) size, content and fingerprints, and a contact sheet: contact_sheet.png in the
    store's folder, or the file `sheet`. A damaged store's error stands in its place; raises
    DatasetError where `name` is that store."""
    folders = _named(name, data)
    lines = [] if name not in list_datasets() else _facts(name, data)
    found = False
    for folder in folders:
        try:
            with _reading(folder):
                store = Store(folder)
                if side in (None, store.manifest["side"]):
                    lines += ["", *_packed(store), f"  contact sheet  {_drawn(store, sheet)}"]
                    found = True
        except DatasetError as error:
            if name not in list_datasets():
                raise
            lines += ["", str(error)]
    if not found:
        such = f" with a short side of {side}" if side else ""
        lines += ["", f"not packed{such}: a study that names it packs it (`snakemake data`)"]
    return "\n".join(lines)


def verify(name: str, data: Path) -> Iterator[str]:
    """A line for each store of the data set `name`, or for the one store of this name, after its
    whole content was read. Raises DatasetError with what is damaged, at the end."""
    folders = _named(name, data)
    if not folders:
        raise DatasetError(f"{name}: there is no store of it in {data / 'stores'}")
    problems = []
    for folder in folders:
        try:
            with _reading(folder):
                manifest = Store(folder).manifest
                wrong = damage(folder)
        except DatasetError as error:
            problems.append(str(error))
            continue
        if wrong:
            title = f"{folder}: {len(wrong)} things are not as packed. Delete it and ask again"
            problems.append(listed(title, wrong))
        else:
            yield (
                f"{folder}: {manifest['images']:,} images, {size(_bytes(manifest))}, as "
                f"packed: content {manifest['content']}"
            )
    if problems:
        raise DatasetError("\n".join(problems))


def damage(folder: Path) -> list[str]:
    """What of a store is not as it was packed, after reading all of it."""
    manifest = json.loads((folder / "manifest.json").read_bytes())
    names = [name for name in manifest["files"] if name.endswith(".parquet")]
    index, *others = (pq.ParquetFile(folder / name).read() for name in names)
    wrong = []
    if tables.content(index, *others) != manifest["content"]:
        wrong.append(f"the rows of {', '.join(names)} are others")
    columns = {name: index[name].to_numpy() for name in ("offset", "height", "width")}
    lengths = manifest["channels"] * columns["height"].astype(np.int64) * columns["width"]
    if manifest["store"] == "jpeg":
        lengths = index["bytes"].to_numpy()
    with (folder / "images.bin").open("rb") as file:
        for row in np.argsort(columns["offset"]):  # as they lie on the disk
            file.seek(columns["offset"][row])
            found = sha256(file.read(lengths[row])).hexdigest()[:32]
            if found != index["digest"][int(row)].as_py():
                wrong.append(f"image {row}: {index['path'][int(row)].as_py()}")
    return wrong


def fingerprints(store: Store) -> dict[str, str]:
    """Of each split, and of all of them: sha256 of the lines path, class and split, separated by
    tabs, each ended by a newline, in UTF-8, in the order of the paths."""
    paths, names, splits = (store.index[name] for name in ("path", "class_name", "split"))
    totals = {name: sha256() for name in (*sorted(set(splits)), "all")}
    for row in zip(paths, names, splits, strict=True):
        line = "\t".join(row).encode() + b"\n"
        totals[row[2]].update(line)
        totals["all"].update(line)
    return {name: total.hexdigest() for name, total in totals.items()}


@contextmanager
def _reading(folder: Path) -> Iterator[None]:
    """What a damaged store raises becomes a DatasetError that names its folder."""
    try:
        yield
    except UNREADABLE as error:
        what = " ".join(str(error).split()).rstrip(".")  # pyarrow's has several lines
        message = f"{folder}: it is damaged: {what}. Delete the folder and ask again."
        raise DatasetError(message) from error


def _stores(data: Path) -> dict[Path, str | None]:
    """Folders of packed images, with the type of each; None where there is no manifest."""
    found: dict[Path, str | None] = {}
    for folder in sorted((data / "stores").glob("*/")):
        try:
            found[folder] = json.loads((folder / "manifest.json").read_bytes())["type"]
        except UNREADABLE:
            found[folder] = None
    return found


def _named(name: str, data: Path) -> list[Path]:
    """The stores of the data set `name`, or the store of this name."""
    packed = _stores(data)
    if name in list_datasets():
        return [folder for folder, kind in packed.items() if kind == name]
    by_name = {folder.name: folder for folder in packed}
    path = Path(name)
    if name not in by_name and not (path / "manifest.json").is_file():
        hint = did_you_mean(name, [*list_datasets(), *by_name])
        raise DatasetError(f"no data set and no store '{name}'. {hint}")
    return [by_name.get(name, path)]


def _line(name: str, data: Path) -> str:
    facts = source.declarations(f"dmlbench.datasets.{name}").constants.get("FACTS", {})
    splits = facts.get("splits", {})
    classes, images = (sum(counts[k] for counts in splits.values()) for k in (0, 1))
    what = f"{classes:,} classes, {images:,} images" if splits else "as many images as it finds"
    return f"{name:12} {what}; {_archives(name, data)}"


def _archives(name: str, data: Path) -> str:
    """Which archives of a data set are there, or what is missing."""
    groups = archive_groups(load(name).SOURCES)
    if not groups:
        return "needs no archive"
    missing = [
        [file for file in group if not (data / "archives" / file).is_file()] for group in groups
    ]
    if [] in missing:
        files = [data / "archives" / file for file in groups[missing.index([])]]
        return f"archives there: {size(sum(file.stat().st_size for file in files))}"
    return f"missing: {' or '.join(', '.join(files) for files in missing)}"


def _store_line(folder: Path) -> str:
    try:
        manifest = Store(folder).manifest
    except DatasetError as error:
        return f"  {folder.name}: {str(error).removeprefix(f'{folder}: ').splitlines()[0]}"
    return f"  {folder.name}: {manifest['images']:,} images, {size(_bytes(manifest))}"


def _facts(name: str, data: Path) -> list[str]:
    module = f"dmlbench.datasets.{name}"
    facts = source.declarations(module).constants.get("FACTS", {})
    lines = [f"{name}: {source.docstring(module)}", ""]
    for split, (classes, images) in facts.get("splits", {}).items():
        lines.append(f"  {split:14} {classes:,} classes, {images:,} images")
    lines.append(f"  levels         {', '.join(facts.get('levels', [])) or 'none'}")
    lines.append(f"  archives       {_archives(name, data)}")
    for group in archive_groups(load(name).SOURCES):
        for file, archive in group.items():
            there = "there" if (data / "archives" / file).is_file() else "missing"
            lines.append(f"    {file}: {there}, {archive.checksum or 'no checksum is published'}")
            lines += [f"      {text}" for text in (*archive.urls, archive.by_hand) if text]
    return lines


def _packed(store: Store) -> Iterable[str]:
    manifest = store.manifest
    yield f"{store.path}"
    yield f"  images         {manifest['images']:,}, short side {manifest['side']}"
    kept = "JPEG files" if manifest["store"] == "jpeg" else "decoded"
    yield f"  size           {size(_bytes(manifest))}, {kept}"
    for split, (classes, images) in manifest["splits"].items():
        yield f"  {split:14} {classes:,} classes, {images:,} images"
    for split, digest in fingerprints(store).items():
        yield f"  fingerprint    {split}: {digest}"
    yield f"  content        {manifest['content']}"
    for name, checksum in manifest["settings"]["archives"].items():
        yield f"  made from      {name} {checksum}"


def _drawn(store: Store, sheet: Path | None) -> str:
    from dmlbench.datasets.contact_sheet import contact_sheet

    path, image = sheet or store.path / "contact_sheet.png", contact_sheet(store)
    try:
        with replacing(path) as temporary:
            image.save(temporary, "PNG")
    except OSError as error:  # stores are often read-only
        return f"cannot be written to {path} ({error.strerror}): name a file with --sheet"
    return str(path)


def _bytes(manifest: Mapping[str, Any]) -> int:
    return sum(manifest["files"].values())
