"""A small data set of a user: a CSV with its images."""

import io
import random
import zipfile

from PIL import Image

from dmlbench.datasets.store.pack import pack
from dmlbench.datasets.store.reader import Store

HEADER = "path,label,coarse,split"


FRUIT = {"Gala": "Apple", "Fuji": "Apple", "Anjou": "Pear", "Conference": "Pear"}


def example_rows():
    """Four classes in two super-classes, with three images each; the first two classes train."""
    return [
        f"{coarse}/{label}_{k}.png,{label},{coarse},{'train' if i < 2 else 'test'}"
        for i, (label, coarse) in enumerate(FRUIT.items())
        for k in range(3)
    ]


def colour(path):
    """The one colour of the image `path`."""
    return tuple(random.Random(path).choices(range(256), k=3))


def encode(path, size=(8, 6), mode="RGB", kind="PNG", **extra):
    file = io.BytesIO()
    Image.new("RGB", size, colour(path)).convert(mode).save(file, kind, **extra)
    return file.getvalue()


def write_csv(folder, rows=None, header=HEADER, images=True):
    """Write the CSV, and its images into the same folder."""
    rows = example_rows() if rows is None else rows
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "my.csv").write_text("\n".join([header, *rows]) + "\n")
    for path in {row.partition(",")[0] for row in rows} if images else ():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(encode(path))
    return folder / "my.csv"


def write_zip(folder, inside=True, prefix=""):
    """Write the same as a zip, with the CSV in it or next to it."""
    file = write_csv(folder)
    with zipfile.ZipFile(folder / "my.zip", "w") as archive:
        for path in (row.partition(",")[0] for row in example_rows()):
            archive.writestr(prefix + path, encode(path))
        archive.writestr("LICENSE", "MIT")
        if inside:
            archive.write(file, f"{prefix}metadata.csv")
            archive.writestr("__MACOSX/._metadata.csv", "")
    return folder / "my.zip"


def options(file, **given):
    return {"file": str(file), "levels": ("coarse",), **given}


def pack_csv(out, file, side=6, **given):
    pack("csv", side, out, out / "no-archives", workers=1, options=options(file, **given))
    return Store(out)
