"""The state of the data sets and their stores: `dmlbench data list | show | verify`."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from dmlbench.datasets import list_datasets, load
from dmlbench.datasets.archives.spec import archive_groups
from dmlbench.datasets.store.checks import PACK_AGAIN
from dmlbench.datasets.store.format import IMAGES_FILE, MANIFEST_FILE
from dmlbench.datasets.store.images import image_digest
from dmlbench.datasets.store.reader import UNREADABLE, Store
from dmlbench.datasets.store.tables import content_digest
from dmlbench.utils.declarations import read_declarations, read_docstring
from dmlbench.utils.errors import DatasetError
from dmlbench.utils.files import replacing
from dmlbench.utils.text import count_of, did_you_mean, format_bytes, listed

_STORE_NAME = re.compile(r"-\d+(-jpeg)?-[0-9a-f]{8}$")
"""What follows the entry or the data set in the name of a store."""


def list_data(data: Path) -> str:
    """A line for each data set, and below it a line for each of its stores: sizes, and what is
    missing.

    Args:
        data: the data folder, with archives/ and stores/.
    """
    types = _store_types(data)
    lines = []
    for name in list_datasets():
        lines.append(_dataset_line(name, data))
        lines += [_store_line(folder) for folder, type in types.items() if type == name]
    lines += [_store_line(folder) for folder, type in types.items() if type not in list_datasets()]
    return "\n".join(lines)


def describe(
    name: str,
    side: int | None,
    sheet: Path | None,
    data: Path,
    stores: Sequence[str] | None = None,
) -> str:
    """The facts of a data set; size, content and fingerprints of each of its stores.

    A contact sheet of each store is drawn as well. If a store is damaged, the text has its error.

    Args:
        name: a data set, an entry of a study, or one store.
        side: only stores of this short side; None: all.
        sheet: file of the contact sheet; None: contact_sheet.png in the store's folder.
        data: the data folder.
        stores: names of the stores of `name`, if a study says which; None: look for them.

    Raises:
        DatasetError: there is no `name`, or it is a damaged store.
    """
    folders = find_stores(name, data, stores)
    is_dataset = stores is None and name in list_datasets()
    lines = _describe_dataset(name, data) if is_dataset else []
    described = False
    for folder in folders:
        try:
            with _reading(folder):
                store = Store(folder)
                if side in (None, store.manifest["side"]):
                    lines += ["", *_describe_store(store)]
                    lines.append(f"  contact sheet  {_save_sheet(store, sheet)}")
                    described = True
        except DatasetError as error:
            if not is_dataset:
                raise
            lines += ["", str(error)]
    if not described:
        size = f" with a short side of {side}" if side else ""
        lines += ["", f"not packed{size}: a study that names it packs it (`snakemake data`)"]
    return "\n".join(lines)


def verify(name: str, data: Path, stores: Sequence[str] | None = None) -> Iterator[str]:
    """Read the whole content of stores, and yield a line for each that is as it was packed.

    Args:
        name: a data set or an entry of a study, for all of its stores, or one store.
        data: the data folder.
        stores: names of the stores of `name`, if a study says which; None: look for them.

    Raises:
        DatasetError: there is no such store, or, at the end, stores are damaged.
    """
    folders = find_stores(name, data, stores)
    if not folders:
        raise DatasetError(f"{name}: there is no store of it in {data / 'stores'}")
    problems = []
    for folder in folders:
        try:
            with _reading(folder):
                manifest = Store(folder).manifest
                differences = find_damage(folder)
        except DatasetError as error:
            problems.append(str(error))
            continue
        if differences:
            title = (
                f"{folder}: {count_of(len(differences), 'difference')} from what was packed. "
                f"{PACK_AGAIN.rstrip('.')}"
            )
            problems.append(listed(title, differences))
        else:
            yield (
                f"{folder}: {_count_images(manifest)}, {format_bytes(_size(manifest))}, as "
                f"packed: content {manifest['content']}"
            )
    if problems:
        raise DatasetError("\n".join(problems))


def find_damage(folder: Path) -> list[str]:
    """Read all of the store in `folder`; a line for each thing that is not as it was packed."""
    manifest = json.loads((folder / MANIFEST_FILE).read_bytes())
    names = [name for name in manifest["files"] if name.endswith(".parquet")]
    index, *others = (pq.ParquetFile(folder / name).read() for name in names)
    differences = []
    if content_digest(index, *others) != manifest["content"]:
        differences.append(f"the rows of {', '.join(names)} have changed")
    columns = {name: index[name].to_numpy() for name in ("offset", "height", "width")}
    lengths = manifest["channels"] * columns["height"].astype(np.int64) * columns["width"]
    if manifest["store"] == "jpeg":
        lengths = index["bytes"].to_numpy()
    with (folder / IMAGES_FILE).open("rb") as file:
        for row in np.argsort(columns["offset"]):  # in the order of the file
            file.seek(columns["offset"][row])
            if image_digest(file.read(lengths[row])) != index["digest"][int(row)].as_py():
                differences.append(f"image {row}: {index['path'][int(row)].as_py()}")
    return differences


def fingerprints(store: Store) -> dict[str, str]:
    """A sha256 of each split, and of "all" images.

    It is the digest of one line for each image, in the order of the paths: path, class and split,
    separated by tabs, ended by a newline, in UTF-8.
    """
    paths, names, splits = (store.index[name] for name in ("path", "class_name", "split"))
    digests = {name: sha256() for name in (*sorted(set(splits)), "all")}
    for row in zip(paths, names, splits, strict=True):
        line = "\t".join(row).encode() + b"\n"
        digests[row[2]].update(line)
        digests["all"].update(line)
    return {name: digest.hexdigest() for name, digest in digests.items()}


@contextmanager
def _reading(folder: Path) -> Iterator[None]:
    """Turn what a damaged store raises into a DatasetError that names its folder."""
    try:
        yield
    except UNREADABLE as error:
        reason = " ".join(str(error).split()).rstrip(".")  # pyarrow's text has several lines
        message = f"{folder}: it is damaged: {reason}. {PACK_AGAIN}"
        raise DatasetError(message) from error


def _store_types(data: Path) -> dict[Path, str | None]:
    """{folder: data set} of all stores in `data`; None if a folder has no manifest."""
    types: dict[Path, str | None] = {}
    for folder in sorted((data / "stores").glob("*/")):
        try:
            types[folder] = json.loads((folder / MANIFEST_FILE).read_bytes())["type"]
        except UNREADABLE:
            types[folder] = None
    return types


def find_stores(name: str, data: Path, stores: Sequence[str] | None) -> list[Path]:
    """The folders of the stores of the data set or entry `name`, or of the one store of this name.

    Args:
        data: the data folder.
        stores: names of the stores of `name`, if a study says which; None: look for them.

    Raises:
        DatasetError: there is no `name`.
    """
    types = _store_types(data)
    by_name = {folder.name: folder for folder in types}
    if stores is not None:
        return [by_name[store] for store in stores if store in by_name]
    # the stores of a data set with options are named after its entry in the study
    entries = {store: _STORE_NAME.sub("", store) for store in by_name}
    matching = [
        folder
        for folder, type in types.items()
        if name in (type, folder.name, entries[folder.name])
    ]
    if matching or name in list_datasets():
        return matching
    if not (Path(name) / MANIFEST_FILE).is_file():
        hint = did_you_mean(name, {*list_datasets(), *entries.values(), *by_name})
        study = "`--study FILE` finds a data set by its name in a study."
        raise DatasetError(f"no data set and no packed images '{name}'. {hint} {study}")
    return [Path(name)]


def _dataset_line(name: str, data: Path) -> str:
    facts = read_declarations(f"dmlbench.datasets.{name}").constants.get("FACTS", {})
    splits = facts.get("splits", {})
    classes, images = (sum(counts[k] for counts in splits.values()) for k in (0, 1))
    size = _count(classes, images) if splits else "as many images as it finds"
    return f"{name:12} {size}; {_describe_archives(name, data)}"


def _describe_archives(name: str, data: Path) -> str:
    """Which archives of a data set are there, or which are missing."""
    groups = archive_groups(load(name).SOURCES)
    if not groups:
        return "needs no archive"
    missing = [
        [file for file in group if not (data / "archives" / file).is_file()] for group in groups
    ]
    if [] in missing:
        files = [data / "archives" / file for file in groups[missing.index([])]]
        return f"archives there: {format_bytes(sum(file.stat().st_size for file in files))}"
    return f"missing: {' or '.join(', '.join(files) for files in missing)}"


def _store_line(folder: Path) -> str:
    try:
        manifest = Store(folder).manifest
    except DatasetError as error:
        return f"  {folder.name}: {str(error).removeprefix(f'{folder}: ').splitlines()[0]}"
    return f"  {folder.name}: {_count_images(manifest)}, {format_bytes(_size(manifest))}"


def _describe_dataset(name: str, data: Path) -> list[str]:
    module = f"dmlbench.datasets.{name}"
    facts = read_declarations(module).constants.get("FACTS", {})
    lines = [f"{name}: {read_docstring(module)}", ""]
    for split, (classes, images) in facts.get("splits", {}).items():
        lines.append(f"  {split:14} {_count(classes, images)}")
    lines.append(f"  levels         {', '.join(facts.get('levels', [])) or 'none'}")
    lines.append(f"  archives       {_describe_archives(name, data)}")
    for group in archive_groups(load(name).SOURCES):
        for file, archive in group.items():
            state = "there" if (data / "archives" / file).is_file() else "missing"
            lines.append(f"    {file}: {state}, {archive.checksum or 'no checksum is published'}")
            lines += [f"      {text}" for text in (*archive.urls, archive.by_hand) if text]
    return lines


def _describe_store(store: Store) -> Iterable[str]:
    manifest = store.manifest
    yield f"{store.path}"
    yield f"  images         {manifest['images']:,}, short side {manifest['side']}"
    form = "JPEG files" if manifest["store"] == "jpeg" else "decoded"
    yield f"  size           {format_bytes(_size(manifest))}, {form}"
    for split, (classes, images) in manifest["splits"].items():
        yield f"  {split:14} {_count(classes, images)}"
    for split, digest in fingerprints(store).items():
        yield f"  fingerprint    {split}: {digest}"
    yield f"  content        {manifest['content']}"
    for name, checksum in manifest["settings"]["archives"].items():
        yield f"  made from      {name} {checksum}"


def _save_sheet(store: Store, sheet: Path | None) -> str:
    """Draw the contact sheet; its path, or why it cannot be written."""
    from dmlbench.datasets.store.contact_sheet import contact_sheet

    path, image = sheet or store.path / "contact_sheet.png", contact_sheet(store)
    try:
        with replacing(path) as temporary:
            image.save(temporary, "PNG")
    except OSError as error:  # stores are often read-only
        return f"cannot be written to {path} ({error.strerror}): name a file with --sheet"
    return str(path)


def _count(classes: int, images: int) -> str:
    return f"{count_of(classes, 'class')}, {count_of(images, 'image')}"


def _count_images(manifest: Mapping[str, Any]) -> str:
    return count_of(manifest["images"], "image")


def _size(manifest: Mapping[str, Any]) -> int:
    """Bytes of all files of a store."""
    return sum(manifest["files"].values())
