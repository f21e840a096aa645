"""The test images of a run that are near-duplicates of its training images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dmlbench.datasets.store.duplicates_file import read_duplicates
from dmlbench.datasets.store.reader import Store

if TYPE_CHECKING:
    from dmlbench.datasets.store.part import Part
    from dmlbench.evaluation.evaluate import Scores
    from dmlbench.study.run import Run

WITHOUT_LEAKS = "without near-duplicates"
"""The last words of the name of a protocol that is scored without leaked images."""


class Leaks(NamedTuple):
    """What was found when training images and test images were compared."""

    test_images: int
    """Test images that are scored."""
    ids: NDArray[np.int64]
    """Ids of those that are near-duplicates of a training image, ascending."""


def has_duplicates(run: Run, stores: Path) -> bool:
    """Whether somebody has searched for the near-duplicates of `run`; `stores` is the folder of the
    packed images."""
    return read_duplicates(stores, *run.searched) is not None


def find_leaks(run: Run, tested: Store, stores: Path) -> Leaks | None:
    """The test images of `run` that are near-duplicates of its training images.

    Of the pairs in the file of near-duplicates, those count whose images are of the classes that
    the run uses. A mirrored image counts if the training mirrors images. External embeddings and
    controls have the same leaks as the trainings beside them, so that all are scored on the same
    images.

    Args:
        tested: the store of the test images.
        stores: the folder of the packed images.

    Returns:
        None if nobody has searched for near-duplicates.
    """
    pairs = read_duplicates(stores, *run.searched)
    if pairs is None:
        return None
    trained = tested if run.store == run.tested.store else Store(stores / run.store)
    train = trained.split("train", run.data.part).rows
    test = tested.split("test", run.tested.data.part).rows
    test = np.intersect1d(test, _scored(tested, run.tested.data.part))
    ids = np.array(pairs["test"], dtype=np.int64)
    counts = np.isin(ids, test) & np.isin(np.array(pairs["train"], dtype=np.int64), train)
    if not run.recipe.augmentation.flip:
        counts &= ~np.array(pairs["mirrored"], dtype=np.bool_)
    return Leaks(len(test), np.unique(ids[counts]))


def _scored(tested: Store, part: Part) -> NDArray[np.int64]:
    """The ids of the images that a protocol or a pair names."""
    sides = [] if tested.pairs is None else [tested.pairs["first"], tested.pairs["second"]]
    return np.unique(np.concatenate([tested.protocols_of(part)["id"], *sides]))


def score_without(
    leaks: Leaks,
    tested: Store,
    part: Part,
    embeddings: NDArray[np.floating],
    ids: NDArray[np.integer],
    score: Callable[..., Scores],
) -> list[dict[str, Any]]:
    """The scores without leaked images, of the protocols that have some.

    They are neither queries nor in the gallery, and pairs with one of them are not verified.

    Args:
        tested: the store of the test images.
        part: the classes of it that are used.
        embeddings: (N, D).
        ids: (N,) of their images.
        score: gives what `evaluate` gives for a part of the embeddings, with its arguments `ids`
            and `partial`.

    Returns:
        Rows with the name of the protocol and WITHOUT_LEAKS; none if nothing is left to score.
    """
    table = tested.protocols_of(part)
    leaked = np.isin(table["id"], leaks.ids)
    changed = {*table["protocol"][leaked].tolist()}
    if tested.pairs is not None and any(
        np.isin(tested.pairs[side], leaks.ids).any() for side in ("first", "second")
    ):
        changed.add("verification")
    kept = ~np.isin(ids, leaks.ids)
    try:
        if not changed or not kept.any():
            return []
        rows = score(embeddings[kept], ids=ids[kept], partial=True).rows
    except ValueError as error:  # too little is left
        print(f"No scores {WITHOUT_LEAKS}: {error}", flush=True)
        return []
    return [
        {**row, "protocol": f"{row['protocol']} {WITHOUT_LEAKS}"}
        for row in rows
        if row["protocol"] in changed or row["protocol"].rpartition(" ")[0] in changed
    ]
