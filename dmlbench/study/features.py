"""Features of frozen trunks: which of them a run reads, and where they are kept.

They are computed once for all runs that need the same ones: `data/features/<store>/<name>.npy`. The
name depends on everything that can change a feature, so a file never changes.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from dmlbench.backbones.catalogue import backbone_module
from dmlbench.datasets.store.checks import read_manifest
from dmlbench.datasets.store.part import WHOLE, Part
from dmlbench.study.run import FEATURES, Run, json_key
from dmlbench.utils.digests import (
    FileRecord,
    describe_file,
    is_unchanged,
    read_with_digest,
    write_with_digest,
)
from dmlbench.utils.errors import MissingResult
from dmlbench.utils.fingerprint import code_digest

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MAKES_NUMBERS = False


class Features(NamedTuple):
    """The features of the images of a store by the trunk of a backbone."""

    run: Run
    """One of the runs that read them: its store, its backbone and its recipe count."""
    views: int
    """0: the test view of all images. n: n random views of each training image."""

    @property
    def store(self) -> str:
        """The name of the store of the images."""
        return self.run.store

    @property
    def name(self) -> str:
        """As `resnet50-1f0c2a9e`, or `resnet50-4-views-1f0c2a9e`."""
        views = f"-{self.views}-views" if self.views else ""
        return f"{self.run.model.type}{views}-{json_key(self.settings)[:8]}"

    @property
    def part(self) -> Part:
        """The training images of the random views. Those of all classes serve any class_fraction of
        them; a holdout draws others for each."""
        return self.run.data.part if self.run.data.holdout else WHOLE

    @property
    def path(self) -> str:
        """`store/name`: what they are known by."""
        return f"{self.store}/{self.name}"

    @property
    def settings(self) -> dict[str, Any]:
        """Everything that can change a feature of an image."""
        run, recipe = self.run, self.run.recipe
        return {
            "type": run.model.type,
            "image_size": run.model.image_size,
            "weights": run.first_weights,
            "pooling": recipe.pooling,
            "gpu_precision": recipe.gpu_precision,
            "cpu_threads": recipe.cpu_threads,
            "views": self.views,
            "augmentation": recipe.augmentation.model_dump(mode="json") if self.views else None,
            **({"part": self.part} if self.views and self.part != WHOLE else {}),
            "code": code_digest(FEATURES, backbone_module(run.model.type)),
        }


def features_of(run: Run) -> list[Features]:
    """The features that `run` reads; none if its trunk is trained or it uses no model."""
    if not (run.model.is_frozen and run.uses_model):
        return []
    read = [Features(run.tested, 0)]
    if run.reads_training_images:
        read.append(Features(run, 0))
    if run.trains and run.model.views:
        read.append(Features(run, run.model.views))
    return [*{features.path: features for features in read}.values()]


def features_file(stores: Path, path: str) -> Path:
    """The file that says that the features `path` (as of `Features.path`) are there; `stores` is
    the folder of the packed images."""
    return stores.parent / "features" / f"{path}.json"


def are_there(stores: Path, features: Features) -> bool:
    """Whether the features are there and whole, and of the images that are packed now."""
    return _read_note(stores, features) is not None


def note_features(stores: Path, features: Features) -> None:
    """Write that the features are there, when their file is whole."""
    file = features_file(stores, features.path)
    content = {
        "images": read_manifest(stores / features.store).get("content"),
        "settings": features.settings,
        "file": describe_file(file.with_suffix(".npy")),
    }
    write_with_digest(file, content)


def open_features(stores: Path, features: Features) -> NDArray[np.float32]:
    """The features, memory-mapped: (N, F) float32 of all images of the store; or (M, views, F) of
    the M training images, in the order of their ids.

    Raises:
        MissingResult: they are not there, or damaged.
    """
    if _read_note(stores, features) is None:
        raise MissingResult(
            f"{features_file(stores, features.path)}: the features of the frozen backbone are "
            f"missing or damaged. `snakemake` computes them."
        )
    path = features_file(stores, features.path).with_suffix(".npy")
    import numpy as np  # a plan needs none of it

    opened: NDArray[np.float32] = np.load(path, mmap_mode="r", allow_pickle=False)
    return opened


def _read_note(stores: Path, features: Features) -> dict[str, Any] | None:
    """What is noted about features that are there and whole; None if they are not."""
    file = features_file(stores, features.path)
    try:
        note: dict[str, Any] = read_with_digest(file)
        record: FileRecord = note["file"]
        is_whole = is_unchanged(file.with_suffix(".npy"), record, quick=True)
    except (OSError, ValueError, KeyError):
        return None
    content = read_manifest(stores / features.store).get("content")
    # a store that was deleted to save space is packed again, with the same images
    is_same = content in (None, note.get("images"))
    return note if is_whole and is_same else None
