"""`dmlbench.load_store`: packed images as a data set of torch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from dmlbench.datasets.store.reader import Store
from dmlbench.utils.errors import DatasetError, InvalidArgument
from dmlbench.utils.files import data_folder
from dmlbench.utils.text import did_you_mean, short_repr

MAKES_NUMBERS = False
SPLITS = ("train", "test")
MANIFEST = "manifest.json"


class StoreDataset(Dataset[tuple[Any, int]]):
    """The images of one split of a packed store, in the order of the store.

    `dataset[i]` is (image, label). The image is uint8 (channels, height, width), or what
    `transform` makes of it; the label is from 0 to `num_classes` - 1.
    """

    def __init__(
        self, store: Store, split: str, transform: Callable[[Tensor], Any] | None = None
    ) -> None:
        images = store.split(split)
        self.store = store
        self.transform = transform
        self.rows = images.rows
        """(N,) rows of the images in the store."""
        self.labels = torch.from_numpy(images.labels)
        """(N,) class of each image, int64."""
        self.class_names = images.class_names
        """Name of each class."""
        self.parents = None if images.parents is None else torch.from_numpy(images.parents)
        """(levels, C) super-class of each class, the nearest level first, as `create_loss` takes
        them; None if there are none."""

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def paths(self) -> list[str]:
        """Path of each image in its data set."""
        paths: list[str] = self.store.index["path"][self.rows].tolist()
        return paths

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        # a copy, because the mapped file is read-only
        image = torch.from_numpy(self.store[self.rows[index]].copy())
        label = int(self.labels[index])
        return (image if self.transform is None else self.transform(image)), label

    def __repr__(self) -> str:
        return (
            f"StoreDataset({str(self.store.path)!r}: {len(self)} images, "
            f"{self.num_classes} classes)"
        )


def load_store(
    path: str | Path, split: str = "train", *, transform: Callable[[Tensor], Any] | None = None
) -> StoreDataset:
    """The images of a packed store as a map-style data set, for torch's DataLoader.

    Args:
        path: folder of the store, or its name in the data folder, as `dmlbench data list` shows it.
        split: "train" or "test". Their classes are different ones.
        transform: is called with each image, uint8 (channels, height, width), as the transforms of
            torchvision.transforms.v2 take it. The images of a store have one short side and any
            long one, so batches need a crop.

    Raises:
        DatasetError: there is no complete store.
        InvalidArgument: there is no such split; it is a ValueError.
    """
    folder = Path(path)
    stores = data_folder() / "stores"
    if not folder.is_dir():
        names = [entry.name for entry in stores.glob("*") if entry.is_dir()]
        if str(folder) not in names:
            hint = did_you_mean(str(path), names)
            raise DatasetError(f"{path}: there is no such store, nor one in {stores}. {hint}")
        folder = stores / folder
    elif not (folder / MANIFEST).is_file():
        raise DatasetError(
            f"{path}: this folder is no packed store: it has no {MANIFEST}. Give the folder of a "
            f"store, or its name in {stores}."
        )
    if split not in SPLITS:
        raise InvalidArgument(f"split: found {short_repr(split)}. Allowed: {', '.join(SPLITS)}.")
    return StoreDataset(Store(folder), split, transform)
