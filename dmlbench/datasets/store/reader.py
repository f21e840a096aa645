"""Reading a packed store: the images of a data set and their index."""

from __future__ import annotations

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

from dmlbench.datasets.store.checks import PACK_AGAIN, check_index, check_store, incomplete
from dmlbench.datasets.store.format import (
    IMAGES_FILE,
    INDEX_FILE,
    PAIRS_FILE,
    PROTOCOLS_FILE,
    VALIDATION,
)
from dmlbench.datasets.store.images import Images
from dmlbench.utils.errors import DatasetError
from dmlbench.utils.text import error_reason

UNREADABLE = (
    OSError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
    RecursionError,
    MemoryError,
    pa.ArrowException,
)
"""What reading a damaged store raises; it depends on where the damage is."""


class Split(NamedTuple):
    """The images and classes of one split of a store."""

    rows: NDArray[np.int64]
    """(N,) ids of the images, ascending: their rows in the store."""
    labels: NDArray[np.int64]
    """(N,) class of each image, dense in this split: 0 .. C-1, in the order of `class_names`."""
    class_names: list[str]
    """C names, sorted."""
    parents: NDArray[np.int64] | None
    """(levels, C) super-class of each class, dense in each level, the nearest level first; None if
    the data set has no super-classes."""


class Columns(Mapping[str, NDArray[Any]]):
    """The columns of a Parquet file by name. A column is read when it is first used.

    Integers and booleans are arrays of their type, everything else is an array of objects.

    Raises:
        DatasetError: the file is damaged; when it is opened, or when a column is first used.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._columns: dict[str, NDArray[Any]] = {}
        try:
            # open from now on, so it stays the same table whatever happens in the folder;
            # pq.read_table would import pyarrow.dataset
            self._file = pq.ParquetFile(path, page_checksum_verification=True)
        except UNREADABLE as error:
            raise _damaged(path, error) from error

    @property
    def types(self) -> dict[str, str]:
        """The Arrow type of each column."""
        schema = self._file.schema_arrow
        return dict(zip(schema.names, map(str, schema.types), strict=True))

    def __getitem__(self, name: str) -> NDArray[Any]:
        if name not in self._columns:
            if name not in self._file.schema_arrow.names:
                raise KeyError(name)
            try:
                column = self._file.read([name])[name]
                if column.null_count or len(column) != self._file.metadata.num_rows:
                    raise ValueError(f"{name} lacks values")
                self._columns[name] = _to_numpy(column)
            except UNREADABLE as error:
                raise _damaged(self._path, error) from error
        return self._columns[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._file.schema_arrow.names)

    def __len__(self) -> int:
        return len(self._file.schema_arrow.names)


def _damaged(path: Path, error: Exception) -> DatasetError:
    problem = f"it is damaged: {path.name}: {error_reason(error)}"
    return DatasetError(f"{path.parent}: {problem}. {PACK_AGAIN}")


def _to_numpy(column: pa.ChunkedArray) -> NDArray[Any]:
    """The values of `column`; its own `to_numpy` imports pandas."""
    values = column.combine_chunks()
    if pa.types.is_integer(values.type):
        return np.from_dlpack(values)
    encoded = values.dictionary_encode()
    dtype = bool if pa.types.is_boolean(values.type) else object
    return np.array(encoded.dictionary.to_pylist(), dtype=dtype)[np.from_dlpack(encoded.indices)]


class Store(Images):
    """The images of a data set at one size, with their index.

    The id of an image is its row. `store[row]` is the image, uint8 (channels, height, width), and
    `store.sizes[row]` its height and width; `store.index` has the columns of the index, and
    `store.manifest` says what was packed from which archives. Another process that gets a store
    maps the file again and copies no image.

    Args:
        path: folder of the store, as `data/stores/cub200-256-...`.

    Raises:
        DatasetError: `path` holds no complete store.

    Examples:
        Pack eight images with a short side of 16 pixels, and read the store:

        >>> import tempfile
        >>> from pathlib import Path
        >>> from PIL import Image
        >>> from dmlbench.datasets.store.pack import pack
        >>> from dmlbench.datasets.store.reader import Store
        >>> temporary = tempfile.TemporaryDirectory()
        >>> folder = Path(temporary.name)
        >>> rows = ["path,label,split"]
        >>> splits = {"red": "train", "lime": "train", "blue": "test", "pink": "test"}
        >>> for label, split in splits.items():
        ...     for name in (f"{label}0.png", f"{label}1.png"):
        ...         Image.new("RGB", (48, 32), label).save(folder / name)
        ...         rows.append(f"{name},{label},{split}")
        >>> _ = (folder / "my.csv").write_text("\\n".join(rows))
        >>> csv = {"file": str(folder / "my.csv")}
        >>> pack("csv", 16, folder / "store", folder, workers=1, options=csv)  # doctest: +ELLIPSIS
        /...: 8 images will take about ...

        >>> store = Store(folder / "store")
        >>> len(store), store[0].shape
        (8, (3, 16, 24))
        >>> store.index["path"][:3].tolist()
        ['blue0.png', 'blue1.png', 'lime0.png']
        >>> train = store.split("train")
        >>> train.class_names, train.labels.tolist()
        (['lime', 'red'], [0, 0, 1, 1])
        >>> store[train.rows[0]][:, 0, 0].tolist()  # lime: no red, all green, no blue
        [0, 255, 0]
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.manifest = check_store(self.path)
        try:
            self.index = Columns(self.path / INDEX_FILE)
            """The columns of index.parquet, in the order of the ids."""
            check_index(self.index.types, self.manifest["store"])
            sizes = np.stack([self.index["height"], self.index["width"]], axis=1).astype(np.int64)
            if self.manifest["images"] != len(sizes):
                raise ValueError("its files do not belong together")
            super().__init__(
                self.path / IMAGES_FILE,
                self.manifest["store"],
                self.manifest["channels"],
                sizes,
                self.index["offset"],
                self.index["bytes"] if self.manifest["store"] == "jpeg" else None,
            )
            if not self.fill_their_file():
                raise ValueError("its files do not belong together")
        except UNREADABLE as error:
            raise incomplete(self.path, error) from error

    def __reduce__(self) -> tuple[type[Store], tuple[Path]]:
        return Store, (self.path,)  # another process maps the file and gets no copy

    @cached_property
    def protocols(self) -> Columns:
        """The columns of protocols.parquet: `protocol`, `id`, `role`, `repetition`."""
        return Columns(self.path / PROTOCOLS_FILE)

    @cached_property
    def pairs(self) -> Columns | None:
        """The columns of pairs.parquet: `first`, `second`, `same`, `fold`; None if the data set has
        no pairs to verify."""
        return Columns(self.path / PAIRS_FILE) if PAIRS_FILE in self.manifest["files"] else None

    @property
    def levels(self) -> list[str]:
        """The columns of the index with super-classes, the nearest level first."""
        return [name for name in self.index if name.startswith("level_")]

    def split(self, name: str, class_fraction: float = 1.0) -> Split:
        """The images of the split `name`, or of a fixed share of its classes.

        Args:
            name: "train", which has the images of a validation part too, or "test".
            class_fraction: share of the classes, in (0, 1]. It is taken within each super-class of
                the nearest level, and keeps at least one class of each. The classes of a smaller
                share are among those of a larger one.

        Raises:
            DatasetError: the store has no such split.
            ValueError: `class_fraction` is not in (0, 1].
        """
        if not 0 < class_fraction <= 1:
            raise ValueError(f"class_fraction is {class_fraction}, not in (0, 1]")
        label, part = self.index["label"], self.index["split"]
        is_in_split = part == name
        if name == "train":
            is_in_split |= part == VALIDATION
        in_split = np.flatnonzero(is_in_split)
        if not len(in_split):
            raise DatasetError(f"{self.path}: no images in the split '{name}'")
        classes, first = np.unique(label[in_split], return_index=True)
        example = in_split[first]  # an image of each class
        levels = [self.index[name] for name in self.levels]
        names = self.index["class_name"]
        groups = levels[0][example] if levels else np.zeros(len(example))
        chosen = _choose_classes(names[example].tolist(), groups.tolist(), class_fraction)
        classes, example = classes[chosen], example[chosen]
        rows = in_split[np.isin(label[in_split], classes)]
        parents = [np.unique(level[example], return_inverse=True)[1] for level in levels]
        return Split(
            rows,
            np.searchsorted(classes, label[rows]),
            names[example].tolist(),
            np.stack(parents) if parents else None,
        )


def _choose_classes(
    names: Sequence[str], groups: Sequence[Hashable], fraction: float
) -> NDArray[np.int64]:
    """Positions of the chosen classes: the first of each group by the digest of their names.

    The digests give an arbitrary order that no version of a library can change.
    """
    members: dict[Hashable, list[int]] = {}
    for position in sorted(range(len(names)), key=lambda i: sha256(names[i].encode()).digest()):
        members.setdefault(groups[position], []).append(position)
    chosen = [m[: max(1, math.floor(fraction * len(m) + 0.5))] for m in members.values()]
    return np.sort(np.concatenate(chosen))
