"""Cars196: 16,185 photographs of 196 models of cars, by make, model and year.

Jonathan Krause, Michael Stark, Jia Deng, Li Fei-Fei: 3D Object Representations for Fine-Grained
Categorization. 4th IEEE Workshop on 3D Representation and Recognition, ICCV 2013.
http://ai.stanford.edu/~jkrause/cars/car_dataset.html

Access: the authors' pages are gone. If you have car_ims.tgz (1.9 GB) and cars_annos.mat, put them
into the archives. Otherwise a mirror with a folder for each class is downloaded: the same images
under other names, without a published checksum. For non-commercial research.

Split: the first 98 classes train, the others test, over the images of both of the original splits.

Traps: train and test of the archives belong to a classification task and are not used. In the
mirror, train/ and test/ hold the same file names, and a "/" in the name of a model is a "-" in the
name of its folder. The two layouts number the images differently, so a training gives different
bits on them. ImageNet also holds cars.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from dmlbench.datasets import Row
from dmlbench.datasets.annotations import (
    by_member,
    check_splits,
    read_table,
    whole_number,
)
from dmlbench.datasets.archives.spec import Archive
from dmlbench.datasets.members import Members
from dmlbench.datasets.names import normalize_path
from dmlbench.utils.errors import DatasetError

FACTS: dict[str, Any] = {
    "version": 1,
    "channels": 3,
    "levels": [],
    "recall_at": [1, 2, 4, 8],
    "splits": {"train": [98, 8054], "test": [98, 8131]},
}
_GONE = "The authors' pages are gone: take a copy that you or colleagues have."
_MIRROR = "stanford-car-dataset-by-classes-folder"
SOURCES = (
    {
        "car_ims.tgz": Archive((), "md5:d5c8f0aa497503f355e17dc7886c3f14", _GONE),
        "cars_annos.mat": Archive((), "md5:b407c6086d669747186bd1d764ff9dbc", _GONE),
    },
    {
        f"{_MIRROR}.zip": Archive(
            (f"https://www.kaggle.com/api/v1/datasets/download/jutrera/{_MIRROR}",),
            None,
            by_hand=f"https://www.kaggle.com/datasets/jutrera/{_MIRROR}",
        )
    },
)

_LAYOUT = "car_ims/<image>.jpg"
_MIRROR_LAYOUT = "names.csv, anno_train.csv, anno_test.csv; train/<model>/<image>.jpg, test/..."


def images(archives: Mapping[str, Path]) -> Iterator[tuple[Row, bytes]]:
    """Yield every photograph, from whichever of the two layouts is there."""
    if "car_ims.tgz" in archives:
        members = Members(archives["car_ims.tgz"], _LAYOUT)
        folder, annotations = "", _read_original(archives["cars_annos.mat"])
    else:
        members = Members(archives[f"{_MIRROR}.zip"], _MIRROR_LAYOUT)
        folder, annotations = "car_data/car_data/", _read_mirror(members)
    rows = by_member(
        (path, Row(folder + path, name, (), "train" if number <= 98 else "test", origin=where))
        for path, number, name, where in annotations
    )
    check_splits("cars196", rows.values(), FACTS["splits"], members.archive)
    yield from members.images(rows)


def _read_original(file: Path) -> Iterator[tuple[str, int, str, str]]:
    """Yield (path, number of the class, name of the class, place) of each annotation."""
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    damage = (ValueError, KeyError, TypeError, IndexError, OSError, NotImplementedError)
    try:
        content = loadmat(file, squeeze_me=True)
        names = [str(name) for name in content["class_names"]]
        annotations = content["annotations"][["relative_im_path", "class"]].tolist()
        for place, (path, number) in enumerate(annotations, start=1):
            where = f"{file}, annotation {place}"
            number = whole_number(str(number), where, 1, len(names))
            yield normalize_path(str(path)), number, names[number - 1], where
    except (*damage, MatReadError, zlib.error) as error:
        raise DatasetError(f"{file}: these are not the annotations of Cars196: {error!r}") from None


def _read_mirror(members: Members) -> Iterator[tuple[str, int, str, str]]:
    """The same as `_read_original`, from the mirror."""
    table = read_table(members.archive, members.find("names.csv"), separator="\n")
    names = [name for _, (name,) in table]
    for split in ("train", "test"):
        file = members.find(f"anno_{split}.csv")
        lines = read_table(members.archive, file, columns=6, separator=",")
        for where, (image, *_box, text) in lines:
            number = whole_number(text, where, 1, len(names))
            name = names[number - 1]
            folder = name.replace("/", "-")
            yield normalize_path(f"{split}/{folder}/{image}"), number, name, where
