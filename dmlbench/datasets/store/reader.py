"""Reading a packed store: the images of a data set and their index."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
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
    ZERO_SHOT,
)
from dmlbench.datasets.store.images import Images
from dmlbench.datasets.store.part import (
    OWN_TEST,
    RUNGS,
    WHOLE,
    Part,
    UnusableHoldout,
    choose_classes,
    hold_out,
)
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

    def split(self, name: str, part: Part = WHOLE) -> Split:
        """The images of the split `name`, or of a part of its classes.

        Args:
            name: "train", which has the images of a validation part too, or "test".
            part: `class_fraction` is a share of the classes, in (0, 1]. It is taken within each
                super-class of the nearest level, and keeps at least one class of each. Without a
                holdout, the classes of a smaller share are among those of a larger one. A holdout
                deals the classes of all splits out anew; see `hold_out`.

        Raises:
            DatasetError: the store has no such split.
            UnusableHoldout: its classes cannot be dealt out as `part` says.
            ValueError: `class_fraction` is not in (0, 1].
        """
        if not 0 < part.class_fraction <= 1:
            raise ValueError(f"class_fraction is {part.class_fraction}, not in (0, 1]")
        if part.holdout:
            return self._held_out(name, part)
        split = self.index["split"]
        is_in_split = split == name
        if name == "train":
            is_in_split |= split == VALIDATION
        in_split = np.flatnonzero(is_in_split)
        if not len(in_split):
            raise DatasetError(f"{self.path}: no images in the split '{name}'")
        classes, example = self._classes(in_split)
        groups = self.index[self.levels[0]][example] if self.levels else np.zeros(len(example))
        names = self.index["class_name"][example].tolist()
        chosen = choose_classes(names, groups.tolist(), part.class_fraction)
        return self._split_of(in_split, classes[chosen], example[chosen])

    def protocols_of(self, part: Part) -> Mapping[str, NDArray[Any]]:
        """The columns of `protocols`. A holdout has one protocol of its own, zero_shot: each test
        image is a query, and all others are the gallery."""
        if not part.holdout:
            return self.protocols
        rows = self.split("test", part).rows
        return {
            "protocol": np.full(len(rows), ZERO_SHOT, object),
            "id": rows.astype(np.int32),
            "role": np.full(len(rows), "both", object),
            "repetition": np.zeros(len(rows), np.int32),
        }

    def farthest_holdout(self) -> Part:
        """The holdout with the farthest training classes. All holdouts have its test classes.

        Raises:
            UnusableHoldout: the data set has no super-classes.
        """
        return Part(holdout=RUNGS[min(len(self.levels), 2)])

    def _held_out(self, name: str, part: Part) -> Split:
        if self.pairs is not None or {*self.protocols["role"].tolist()} != {"both"}:
            raise UnusableHoldout(f"{part.holdout}, and {OWN_TEST}")
        everything = np.arange(len(self))
        classes, example = self._classes(everything)
        levels = [self.index[level][example].tolist() for level in self.levels]
        dealt = hold_out(part, self.index["class_name"][example].tolist(), levels)
        chosen = dealt.train if name == "train" else dealt.test
        return self._split_of(everything, classes[chosen], example[chosen])

    def _classes(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """The classes of the images `rows`, ascending, and an image of each."""
        classes, first = np.unique(self.index["label"][rows], return_index=True)
        return classes, rows[first]

    def _split_of(
        self, rows: NDArray[np.int64], classes: NDArray[np.int32], example: NDArray[np.int64]
    ) -> Split:
        """Those of the images `rows` that are of `classes` (C,); `example` (C,) is one of each."""
        label = self.index["label"]
        rows = rows[np.isin(label[rows], classes)]
        levels = [self.index[name][example] for name in self.levels]
        parents = [np.unique(level, return_inverse=True)[1] for level in levels]
        return Split(
            rows,
            np.searchsorted(classes, label[rows]),
            self.index["class_name"][example].tolist(),
            np.stack(parents) if parents else None,
        )
