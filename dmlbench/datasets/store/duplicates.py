"""Test images that are near-duplicates of training images.

A near-duplicate is the same picture, compressed again, scaled, brighter or darker, cropped by a few
percent, or mirrored. It is found in three steps, each for what the one before has left:

1. perceptual hashes: the nearest training images of each test image;
2. the correlation of the details of their thumbnails, as they are: the best few of them;
3. `same_picture.match`: the details of both, laid over each other.

Only the hashes of all images are in memory at once. Thumbnails are made again when they are used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from functools import lru_cache, partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from dmlbench.datasets.store.reader import Store
from dmlbench.datasets.store.same_picture import (
    NO_ENERGY,
    WORTH_A_SEARCH,
    WORTH_IF_FLAT,
    is_flat,
    match,
    middle_details,
)
from dmlbench.datasets.store.thumbnails import (
    HASH_BITS,
    hashed_pixels,
    mirrored,
    perceptual_hashes,
    thumbnail,
    to_picture,
)
from dmlbench.utils.cores import usable_cores

MAX_DISTANCE = 14
"""Bits of 64 in which the hashes of two copies differ at most."""
NEAREST = 16
"""Training images that are compared with a test image: those with the nearest hashes."""
VERIFIED = 3
"""Of these, so many are laid over the test image."""
CHUNK = 1024
"""Images that are worked on at once."""
REMEMBERED = 10_000
"""Thumbnails of training images that are in memory at once, with their details: 20 KB each."""


class Duplicates(NamedTuple):
    """Pairs of a test image and a training image that show the same picture, in the order of the
    test images. All are (P,)."""

    test: NDArray[np.int64]
    """Ids of the test images."""
    train: NDArray[np.int64]
    """Ids of the training images."""
    distance: NDArray[np.int64]
    """Bits in which their hashes differ."""
    correlation: NDArray[np.float64]
    """Of their fine details."""
    mirrored: NDArray[np.bool_]
    """Whether one of them is mirrored."""


class _Candidate(NamedTuple):
    train: int
    distance: int
    mirrored: bool


class _Thumbnail(NamedTuple):
    pixels: NDArray[np.uint8]
    details: NDArray[np.float32]
    """Its middle details (SIDE, SIDE), scaled to a length of 1."""


def find_duplicates(trained: Store, tested: Store) -> Duplicates:
    """Find the test images of `tested` that are near-duplicates of training images of `trained`.

    Of each test image at most VERIFIED pairs are found.
    """
    return _find(trained, trained.split("train").rows, tested, tested.split("test").rows)


def find_holdout_duplicates(store: Store) -> Duplicates:
    """As `find_duplicates`, for all holdouts of `store` at once: they have the same test images,
    and train on some of the other images."""
    test = store.split("test", store.farthest_holdout()).rows
    return _find(store, np.setdiff1d(np.arange(len(store)), test), store, test)


def _find(
    trained: Store, train: NDArray[np.int64], tested: Store, test: NDArray[np.int64]
) -> Duplicates:
    import faiss  # takes long to import

    load_train = lru_cache(REMEMBERED)(partial(_load, trained))
    cores = usable_cores()
    faiss.omp_set_num_threads(cores)
    index = faiss.IndexBinaryFlat(HASH_BITS)
    pairs: list[tuple[int, _Candidate, float]] = []
    with ThreadPoolExecutor(cores) as pool:
        for ids in _chunks(train):
            index.add(perceptual_hashes(_hashed_pixels(trained, ids, pool)))
        for ids in tqdm([*_chunks(test)], unit_scale=CHUNK, unit=" images", disable=None):
            pictures = _hashed_pixels(tested, ids, pool)
            candidates = _find_candidates(index, train, pictures)
            verify = partial(_verify, tested, load_train)
            for id, copies in zip(ids.tolist(), pool.map(verify, ids, candidates), strict=True):
                pairs += [(id, *copy) for copy in copies]
    return Duplicates(
        np.array([id for id, _, _ in pairs], dtype=np.int64),
        np.array([candidate.train for _, candidate, _ in pairs], dtype=np.int64),
        np.array([candidate.distance for _, candidate, _ in pairs], dtype=np.int64),
        np.array([correlation for _, _, correlation in pairs], dtype=np.float64),
        np.array([candidate.mirrored for _, candidate, _ in pairs], dtype=np.bool_),
    )


def _chunks(ids: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    for start in range(0, len(ids), CHUNK):
        yield ids[start : start + CHUNK]


def _hashed_pixels(store: Store, ids: NDArray[np.int64], pool: Executor) -> NDArray[np.uint8]:
    return np.stack([*pool.map(lambda id: hashed_pixels(to_picture(store[id])), ids)])


def _find_candidates(
    index: Any, train: NDArray[np.int64], pictures: NDArray[np.uint8]
) -> list[list[_Candidate]]:
    """The training images whose hashes are near those of each of `pictures`.

    Args:
        index: the hashes of the training images.
        train: their ids.
        pictures: (N, HASHED_SIDE, HASHED_SIDE).
    """
    candidates: list[list[_Candidate]] = [[] for _ in pictures]
    for is_mirrored in (False, True):
        hashes = perceptual_hashes(mirrored(pictures) if is_mirrored else pictures)
        distances, places = index.search(hashes, min(NEAREST, len(train)))
        for row, column in np.argwhere(distances <= MAX_DISTANCE).tolist():
            id, distance = int(train[places[row, column]]), int(distances[row, column])
            candidates[row].append(_Candidate(id, distance, is_mirrored))
    return candidates


def _load(store: Store, id: int) -> _Thumbnail:
    """The thumbnail of an image, with its details."""
    pixels = thumbnail(to_picture(store[id]))
    details = middle_details(pixels)
    return _Thumbnail(pixels, details / max(float(np.linalg.norm(details)), NO_ENERGY))


def _verify(
    tested: Store,
    load_train: Callable[[int], _Thumbnail],
    id: int,
    candidates: list[_Candidate],
) -> list[tuple[_Candidate, float]]:
    """The candidates that show the same picture as the test image `id`, the best first, with the
    correlation of their fine details."""
    if not candidates:
        return []
    test = _load(tested, id)
    turned = {False: test.pixels, True: mirrored(test.pixels)}
    details = {False: test.details, True: mirrored(test.details)}
    least = WORTH_IF_FLAT if is_flat(test.pixels) else WORTH_A_SEARCH
    similar = []
    for candidate in candidates:
        train = load_train(candidate.train).details
        correlation = np.vdot(details[candidate.mirrored], train)
        if correlation >= least:
            similar.append((-float(correlation), candidate))
    copies = []
    for _, candidate in sorted(similar)[:VERIFIED]:
        agreement = match(turned[candidate.mirrored], load_train(candidate.train).pixels)
        if agreement.is_same:
            copies.append((candidate, agreement.fine))
    return sorted(copies, key=lambda copy: (-copy[1], copy[0]))
