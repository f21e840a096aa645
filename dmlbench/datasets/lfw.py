"""Labeled Faces in the Wild: 13,233 photographs of 5,749 people, and 6,000 pairs to verify.

Gary B. Huang, Manu Ramesh, Tamara Berg, Erik Learned-Miller: Labeled Faces in the Wild: A Database
for Studying Face Recognition in Unconstrained Environments. Technical report 07-49, University of
Massachusetts, Amherst, 2007. http://vis-www.cs.umass.edu/lfw/

Access: free download, 180 MB. The authors' server is often down; the mirror is scikit-learn's copy
at figshare. For research.

Split: only a test set ("view 2"): 10 folds, each with 300 pairs of one person and 300 pairs of two
persons. The threshold of each fold is chosen on the nine others. To train, name another data set
and give it `test_on: lfw`. The face images that HTL trained on are no longer distributed, so its
LFW numbers cannot be repeated as published.

Traps: 4,069 of the people have one image. Face training sets hold people of LFW; leave them out.
The images are the original ones, not the funneled ones: the faces are not aligned, and in papers
they often are.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from dmlbench.datasets import Row
from dmlbench.datasets.annotations import (
    by_member,
    check_counts,
    check_splits,
    read_table,
    whole_number,
)
from dmlbench.datasets.archives.spec import Archive
from dmlbench.datasets.members import Members
from dmlbench.utils.errors import DatasetError

FACTS: dict[str, Any] = {
    "version": 1,
    "channels": 3,
    "levels": [],
    "recall_at": [1],
    "splits": {"test": [5749, 13233]},
    "pairs": [10, 300],
}
_URL = "http://vis-www.cs.umass.edu/lfw"
_MIRROR = "https://ndownloader.figshare.com/files"
SOURCES = {
    "lfw.tgz": Archive(
        (f"{_URL}/lfw.tgz", f"{_MIRROR}/5976018"), "md5:a17d05bd522c52d84eca14327a23d494"
    ),
    "lfw_pairs.txt": Archive(
        (f"{_URL}/pairs.txt", f"{_MIRROR}/5976006"), "md5:9f1ba174e4e1c508ff7cdf10ac338a7d"
    ),
}

_LAYOUT = "lfw/<person>/<person>_<number>.jpg"
_IMAGE = re.compile(r"lfw/(?P<person>[^/]+)/(?P=person)_(?P<number>\d{4})\.jpg")


def images(archives: Mapping[str, Path]) -> Iterator[tuple[Row, bytes]]:
    """Yield every photograph: lfw/Aaron_Eckhart/Aaron_Eckhart_0001.jpg."""
    members = Members(archives["lfw.tgz"], _LAYOUT)
    rows = by_member(
        (match[0], Row(match[0], match["person"], (), "test")) for match in members.match(_IMAGE)
    )
    check_splits("lfw", rows.values(), FACTS["splits"], members.archive, _gaps(rows))
    for _ in pairs(sorted(rows.values()), archives):  # an image of a pair may be missing
        pass
    yield from members.images(rows)


def _gaps(paths: Collection[str]) -> list[str]:
    """A line for each image that is missing among the numbers of its person."""
    last = {path.rpartition("_")[0]: int(path[-8:-4]) for path in sorted(paths)}
    images = (f"{person}_{n:04}.jpg" for person, most in last.items() for n in range(1, most + 1))
    return [f"{path} is missing" for path in images if path not in paths]


def protocols(
    rows: Sequence[Row], archives: Mapping[str, Path]
) -> Iterator[tuple[str, int, str, int]]:
    """No protocol: pairs of these images are verified, and nobody searches them."""
    return iter(())


def pairs(
    rows: Sequence[Row], archives: Mapping[str, Path]
) -> Iterator[tuple[int, int, bool, int]]:
    """Yield the pairs of pairs.txt.

    Its first line has the numbers of folds and pairs. Then each fold has its pairs of one person
    ("name 1 4") and its pairs of two ("name 1 other 2").
    """
    file, ids = archives["lfw_pairs.txt"], {row.path: number for number, row in enumerate(rows)}
    folds, half = FACTS["pairs"]

    def image_id(person: str, number: str, where: str) -> int:
        path = f"lfw/{person}/{person}_{whole_number(number, where, 1):04}.jpg"
        if path not in ids:
            raise DatasetError(f"{where}: there is no image {path}")
        return ids[path]

    (head, numbers), *lines = read_table(file)
    if numbers != [str(folds), str(half)]:
        raise DatasetError(f"{head}: found {' '.join(numbers)!r}, expected '{folds} {half}'")
    check_counts("lfw", {"pairs": (len(lines), 2 * folds * half)}, file)
    for place, (where, fields) in enumerate(lines):
        same = place % (2 * half) < half
        if len(fields) != (3 if same else 4):
            kind = "<person> <number> <number>" if same else "two of <person> <number>"
            raise DatasetError(f"{where}: {' '.join(fields)!r} is not {kind}")
        second = (fields[0], fields[2]) if same else (fields[2], fields[3])
        yield (
            image_id(fields[0], fields[1], where),
            image_id(*second, where),
            same,
            place // (2 * half),
        )
