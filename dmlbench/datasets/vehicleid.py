"""VehicleID: 221,567 photographs of 26,328 vehicles by surveillance cameras.

Hongye Liu, Yonghong Tian, Yaowei Wang, Lu Pang, Tiejun Huang: Deep Relative Distance Learning: Tell
the Difference Between Similar Vehicles. CVPR 2016. https://www.pkuml.org/resources/pku-vehicleid.html

Access: by hand, on request from the authors; for non-commercial research. It is read from a zip of
the unpacked folder VehicleID_V1.0, not encrypted. No checksums are published.

Split: the authors' train_test_split/train_list.txt and test_list_{800,1600,2400}.txt, the small,
medium and large test. There are 10 repetitions. In each, one image of each vehicle, drawn by a
fixed seed, is in the gallery, and its other images are queries.

Traps: the lists were corrected after the paper. So the numbers of the paper (13,134 vehicles train)
are not those of the description in the archive (13,164), which are asserted here. Two things are
not confirmed and not asserted: the numbers of images, and whether the small test is a part of the
larger ones.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from dmlbench.datasets import Row
from dmlbench.datasets.annotations import (
    by_member,
    check_counts,
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
    "recall_at": [1, 5],
    "vehicles": {"train": 13164, "small": 800, "medium": 1600, "large": 2400},
    "repetitions": 10,
}
SOURCES = {
    "VehicleID_V1.0.zip": Archive(
        (),
        None,
        "ask for it at https://www.pkuml.org/resources/pku-vehicleid.html, unpack it, and zip the "
        "folder VehicleID_V1.0 with image/ and train_test_split/ in it.",
    )
}

_FOLDER = "VehicleID_V1.0"
_LAYOUT = f"{_FOLDER}/ with train_test_split/train_list.txt and image/<number>.jpg"
_LISTS = {
    "train": "train_list",
    "small": "test_list_800",
    "medium": "test_list_1600",
    "large": "test_list_2400",
}


def images(archives: Mapping[str, Path]) -> Iterator[tuple[Row, bytes]]:
    """Yield every photograph of the training list and of the three test lists."""
    members = Members(archives["VehicleID_V1.0.zip"], _LAYOUT)
    lists = {name: _read_list(members, name) for name in _LISTS}
    train = lists.pop("train")
    tests = {path: row for test in lists.values() for path, row in test.items()}
    if in_both := train.keys() & tests.keys():
        member = min(in_both)
        raise DatasetError(f"{tests[member].origin}: {member} is in {train[member].origin} too")
    yield from members.images(train | tests)


def protocols(
    rows: Sequence[Row], archives: Mapping[str, Path]
) -> Iterator[tuple[str, int, str, int]]:
    """Yield the three tests. The first image of each vehicle, by digest, is in the gallery."""
    members = Members(archives["VehicleID_V1.0.zip"], _LAYOUT)
    ids = {row.path: number for number, row in enumerate(rows)}
    for test in ("small", "medium", "large"):
        vehicles = defaultdict(list)
        for row in _read_list(members, test).values():
            vehicles[row.class_name].append(row.path)
        for repetition in range(FACTS["repetitions"]):
            for paths in vehicles.values():
                # digests give an arbitrary order that no version of a library can change
                drawn = min(paths, key=lambda p: sha256(f"{repetition} {p}".encode()).digest())
                for path in paths:
                    yield test, ids[path], "gallery" if path == drawn else "query", repetition


def _read_list(members: Members, name: str) -> dict[str, Row]:
    """The rows of one list by path in the archive. Each line is "<image> <vehicle>"."""
    file = members.find(f"train_test_split/{_LISTS[name]}.txt")
    split = "train" if name == "train" else "test"
    lines = read_table(members.archive, file, columns=2)
    rows = by_member(
        (path, Row(f"{_FOLDER}/{path}", class_name, (), split, origin=where))
        for where, (image, vehicle) in lines
        for path, class_name in [
            (normalize_path(f"image/{image}.jpg"), f"{whole_number(vehicle, where):05}")
        ]
    )
    vehicles = len({row.class_name for row in rows.values()})
    check_counts("vehicleid", {f"{name}: vehicles": (vehicles, FACTS["vehicles"][name])}, file)
    return rows
