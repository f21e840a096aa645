"""Packed stores: memory-mapped, read-only, opened by every job. Needs numpy and pyarrow only."""

from __future__ import annotations

import json
import math
from collections.abc import Hashable, Sequence
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from dmlbench.datasets import DatasetError

FORMAT = 1
"""Of the files that `pack` writes; a store of another format must be packed anew."""


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


class Store:
    """The images of a data set at one size, with their index.

    Images lie on disk as (channels, height, width), so a batch is gathered as a network reads it.
    Raises DatasetError when `path` holds no complete store.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        try:
            self.manifest: dict[str, Any] = json.loads((self.path / "manifest.json").read_bytes())
            if self.manifest["format"] != FORMAT:
                raise ValueError(f"its format is {self.manifest['format']}, not {FORMAT}")
            self._table = _read(self.path / "index.parquet")
            columns = [self._table[name].to_numpy() for name in ("height", "width")]
            self._sizes = np.stack(columns, axis=1).astype(np.int64)
            self.channels: int = self.manifest["channels"]
            self._ends = np.cumsum(self.channels * self._sizes.prod(axis=1))
            pixels = np.memmap(self.path / "images.bin", np.uint8, mode="r")
            if len(self._sizes) != self.manifest["images"] or len(pixels) != self._ends[-1]:
                raise ValueError("its files are not whole")
        except (OSError, ValueError, KeyError, pa.ArrowException) as error:
            raise DatasetError(
                f"{self.path}: no complete store of a data set: {error}. "
                f"Make it anew with `dmlbench data`, or delete the folder and ask again."
            ) from error
        self.uniform = bool((self._sizes == self._sizes[0]).all())
        """Whether all images have the same height and width."""
        # a plain array, as indexing a memmap costs more
        self._pixels = np.asarray(pixels)
        if self.uniform:
            self._pixels = self._pixels.reshape(-1, self.channels, *self._sizes[0])

    def __reduce__(self) -> tuple[type[Store], tuple[Path]]:
        return Store, (self.path,)  # another process maps the file and gets no copy

    def __len__(self) -> int:
        return len(self._sizes)

    @cached_property
    def index(self) -> dict[str, NDArray[Any]]:
        """Columns of index.parquet, in the order of the ids."""
        return _columns(self._table)

    @cached_property
    def protocols(self) -> dict[str, NDArray[Any]]:
        """Columns of protocols.parquet."""
        return _columns(_read(self.path / "protocols.parquet"))

    @cached_property
    def pairs(self) -> dict[str, NDArray[Any]] | None:
        """Columns of pairs.parquet; None where there are no pairs to verify."""
        path = self.path / "pairs.parquet"
        return _columns(_read(path)) if path.is_file() else None

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

    def protocol(
        self, name: str = "zero_shot", repetition: int = 0
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Ids of the queries and ids of the gallery, ascending. A plain zero-shot test has every
        image in both: the one who searches leaves each query itself out."""
        table = self.protocols
        of_it = (table["protocol"] == name) & (table["repetition"] == repetition)
        if not of_it.any():
            known = sorted(set(zip(table["protocol"], table["repetition"].tolist(), strict=True)))
            raise DatasetError(f"{self.path}: no protocol {(name, repetition)}; there are: {known}")
        ids, role = table["id"][of_it].astype(np.int64), table["role"][of_it]
        return np.sort(ids[role != "gallery"]), np.sort(ids[role != "query"])

    def read(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """Images of `rows`: (B, C, H, W) uint8, with zeros below and right of those that are
        smaller than the batch's largest, and the height and width of each, (B, 2)."""
        sizes = self._sizes[rows]
        if self.uniform:
            return self._pixels[rows], sizes
        batch = np.zeros((len(rows), self.channels, *sizes.max(axis=0)), np.uint8)
        for image, end, (height, width) in zip(batch, self._ends[rows], sizes, strict=True):
            pixels = self._pixels[end - self.channels * height * width : end]
            image[:, :height, :width] = pixels.reshape(self.channels, height, width)
        return batch, sizes


def _read(path: Path) -> pa.Table:
    # pq.read_table would import pyarrow.dataset
    return pq.ParquetFile(path).read()


def _columns(table: pa.Table) -> dict[str, NDArray[Any]]:
    return {name: table[name].to_numpy() for name in table.column_names}


def _share(names: Sequence[str], groups: Sequence[Hashable], fraction: float) -> NDArray[np.int64]:
    """Positions of the classes kept: of each group the first by the digest of their names, which
    is an order by chance that no version of a library can change."""
    members: dict[Hashable, list[int]] = {}
    for position in sorted(range(len(names)), key=lambda i: sha256(names[i].encode()).digest()):
        members.setdefault(groups[position], []).append(position)
    kept = [m[: max(1, math.floor(fraction * len(m) + 0.5))] for m in members.values()]
    return np.sort(np.concatenate(kept))
