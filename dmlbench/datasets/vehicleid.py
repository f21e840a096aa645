"""VehicleID: 221,567 photographs of 26,328 vehicles by surveillance cameras.

Hongye Liu, Yonghong Tian, Yaowei Wang, Lu Pang, Tiejun Huang: Deep Relative Distance Learning: Tell
the Difference Between Similar Vehicles. CVPR 2016. https://www.pkuml.org/resources/pku-vehicleid.html

Access: by hand, on request from the authors; for research that is not commercial. It is read from a
zip of the unpacked folder VehicleID_V1.0, not encrypted. No checksums are published.

Split: the authors', train_test_split/train_list.txt and test_list_{800,1600,2400}.txt, the small,
medium and large test. In each of 10 repetitions, one image of each vehicle, drawn by a fixed seed,
is the gallery, and all its others are queries.

Traps: the lists were corrected after the paper, so its numbers (13,134 vehicles train) are not
those of the archive's own description (13,164), which are asserted here. The numbers of images are
not confirmed, and not asserted; nor whether the small test is a part of the larger ones.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from dmlbench.datasets import Archive, DatasetError, Row
from dmlbench.datasets.annotations import (
    by_member,
    check_counts,
    listed_images,
    read_table,
    whole_number,
)
from dmlbench.datasets.archives import read_zip

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

_LISTS = {
    "train": "train_list",
    "small": "test_list_800",
    "medium": "test_list_1600",
    "large": "test_list_2400",
}


def images(archives: Mapping[str, Path]) -> Iterator[tuple[Row, bytes]]:
    """Every photograph of the training list and of any of the three test lists."""
    archive = archives["VehicleID_V1.0.zip"]
    lists = {name: _list(archive, name) for name in _LISTS}
    train, tests = (
        lists.pop("train"),
        {p: row for test in lists.values() for p, row in test.items()},
    )
    if both := train.keys() & tests.keys():
        member = min(both)
        raise DatasetError(f"{tests[member].origin}: {member} is in {train[member].origin} too")
    yield from listed_images(archive, read_zip(archive), train | tests)


def protocols(
    rows: Sequence[Row], archives: Mapping[str, Path]
) -> Iterator[tuple[str, int, str, int]]:
    """The three tests: of each vehicle, the image that the seed puts first is the gallery's."""
    ids = {row.path: number for number, row in enumerate(rows)}
    for test in ("small", "medium", "large"):
        vehicles = defaultdict(list)
        for path, row in _list(archives["VehicleID_V1.0.zip"], test).items():
            vehicles[row.class_name].append(path)
        for repetition in range(FACTS["repetitions"]):
            for paths in vehicles.values():
                # a digest is an order by chance that no version of a library can change
                drawn = min(paths, key=lambda p: sha256(f"{repetition} {p}".encode()).digest())
                for path in paths:
                    yield test, ids[path], "gallery" if path == drawn else "query", repetition


def _list(archive: Path, name: str) -> dict[str, Row]:
    """Rows of one list, by their path in the archive; each line is "<image> <vehicle>"."""
    member = f"VehicleID_V1.0/train_test_split/{_LISTS[name]}.txt"
    split = "train" if name == "train" else "test"
    rows = by_member(
        (path, Row(path, f"{whole_number(vehicle, where):05}", (), split, origin=where))
        for where, (image, vehicle) in read_table(archive, member, columns=2)
        for path in [f"VehicleID_V1.0/image/{image}.jpg"]
    )
    vehicles = len({row.class_name for row in rows.values()})
    check_counts("vehicleid", {f"{name}: vehicles": (vehicles, FACTS["vehicles"][name])}, member)
    return rows
