"""Packed stores: images and their index, opened by every job."""

from __future__ import annotations

import json
import math
from collections.abc import Hashable, Iterator, Mapping, Sequence
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from dmlbench.datasets import FORMAT, DatasetError
from dmlbench.datasets.images import Images

UNREADABLE = (OSError, ValueError, LookupError, TypeError, AttributeError, pa.ArrowException)
"""What reading a damaged store raises, by where the damage is."""


class Split(NamedTuple):
    """Images and classes of a split."""

    rows: NDArray[np.int64]
    """(N,) ids of the images, ascending."""
    labels: NDArray[np.int64]
    """(N,) class of each, dense: 0 .. C-1, in the order of the class names."""
    class_names: list[str]
    """C names."""
    parents: NDArray[np.int64] | None
    """(levels, C) super-class of each class, dense in each level, the nearest level first; None
    where the data set has no super-classes."""


class Columns(Mapping[str, NDArray[Any]]):
    """Columns of a Parquet file by name, each read when it is asked for the first time."""

    def __init__(self, path: Path) -> None:
        # open from now on, so it is the same table whatever happens in the folder
        self._file = pq.ParquetFile(path)  # pq.read_table would import pyarrow.dataset
        self._read: dict[str, NDArray[Any]] = {}

    def __getitem__(self, name: str) -> NDArray[Any]:
        if name not in self._read:
            if name not in self._file.schema_arrow.names:
                raise KeyError(name)
            self._read[name] = _numpy(self._file.read([name])[name])
        return self._read[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._file.schema_arrow.names)

    def __len__(self) -> int:
        return len(self._file.schema_arrow.names)


def _numpy(column: pa.ChunkedArray) -> NDArray[Any]:
    """The values of `column`; its own `to_numpy` imports pandas."""
    values = column.combine_chunks()
    if pa.types.is_integer(values.type):
        return np.from_dlpack(values)
    coded = values.dictionary_encode()
    kind = bool if pa.types.is_boolean(values.type) else object
    return np.array(coded.dictionary.to_pylist(), dtype=kind)[np.from_dlpack(coded.indices)]


class Store(Images):
    """The images of a data set at one size, with their index; the ids are the rows of both.

    Raises DatasetError when `path` holds no complete store.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        try:
            self.manifest: dict[str, Any] = json.loads((self.path / "manifest.json").read_bytes())
            if self.manifest["format"] != FORMAT:
                raise ValueError(f"its format is {self.manifest['format']}, not {FORMAT}")
            for name, size in self.manifest["files"].items():
                if (found := (self.path / name).stat().st_size) != size:
                    raise ValueError(f"{name} has {found:,} bytes and not {size:,}")
            self.index = Columns(self.path / "index.parquet")
            """index.parquet, in the order of the ids."""
            sizes = np.stack([self.index["height"], self.index["width"]], axis=1).astype(np.int64)
            if self.manifest["images"] != len(sizes):
                raise ValueError("its files do not belong together")
            super().__init__(
                self.path / "images.bin",
                self.manifest["store"],
                self.manifest["channels"],
                sizes,
                self.index["offset"],
                self.index["bytes"] if self.manifest["store"] == "jpeg" else None,
            )
        except UNREADABLE as error:
            raise DatasetError(
                f"{self.path}: no complete store of a data set: {error}. "
                f"Delete the folder and ask again."
            ) from error

    def __reduce__(self) -> tuple[type[Store], tuple[Path]]:
        return Store, (self.path,)  # another process maps the file and gets no copy

    @cached_property
    def protocols(self) -> Columns:
        """protocols.parquet."""
        return Columns(self.path / "protocols.parquet")

    @cached_property
    def pairs(self) -> Columns | None:
        """pairs.parquet; None where there are none to verify."""
        there = "pairs.parquet" in self.manifest["files"]
        return Columns(self.path / "pairs.parquet") if there else None

    def split(self, name: str, class_fraction: float = 1.0) -> Split:
        """Images of the split "train" or "test", or of a fixed share of its classes.

        The share is taken within each super-class of the nearest level, and none of those is left
        out; the classes of a smaller share are among those of a larger one.
        """
        if not 0 < class_fraction <= 1:
            raise ValueError(f"class_fraction is {class_fraction}, not in (0, 1]")
        label, of_split = self.index["label"], np.flatnonzero(self.index["split"] == name)
        if not len(of_split):
            raise DatasetError(f"{self.path}: no images in the split '{name}'")
        classes, first = np.unique(label[of_split], return_index=True)
        example = of_split[first]  # an image of each class
        levels = [self.index[name] for name in self.index if name.startswith("level_")]
        names = self.index["class_name"]
        groups = levels[0][example] if levels else np.zeros(len(example))
        kept = _share(names[example].tolist(), groups.tolist(), class_fraction)
        classes, example = classes[kept], example[kept]
        rows = of_split[np.isin(label[of_split], classes)]
        parents = [np.unique(level[example], return_inverse=True)[1] for level in levels]
        return Split(
            rows,
            np.searchsorted(classes, label[rows]),
            names[example].tolist(),
            np.stack(parents) if parents else None,
        )


def _share(names: Sequence[str], groups: Sequence[Hashable], fraction: float) -> NDArray[np.int64]:
    """Positions of the classes kept: of each group the first by the digest of their names, which
    is an order by chance that no version of a library can change."""
    members: dict[Hashable, list[int]] = {}
    for position in sorted(range(len(names)), key=lambda i: sha256(names[i].encode()).digest()):
        members.setdefault(groups[position], []).append(position)
    kept = [m[: max(1, math.floor(fraction * len(m) + 0.5))] for m in members.values()]
    return np.sort(np.concatenate(kept))
