"""Verification: decide by a threshold on the similarity whether two images share a class."""

import numpy as np
from numpy.typing import NDArray


def verification_accuracy(
    similarity: NDArray[np.floating], same: NDArray[np.bool_], fold: NDArray[np.integer]
) -> tuple[float, float]:
    """Mean accuracy over the folds of the pairs, and the standard error of that mean.

    The threshold of each fold is chosen on all other folds (LFW's "view 2"; Huang et al. 2007,
    section 3): no pair is judged by a threshold that has seen it.

    Args:
        similarity: (P,) of each pair.
        same: (P,) whether the images of the pair share a class.
        fold: (P,) of each pair, any integers.

    Raises:
        ValueError: there are fewer than two folds.

    >>> similarity = np.array([0.9, 0.2, 0.8, 0.1, 0.3, 0.4])
    >>> same = np.array([True, False, True, False, True, False])
    >>> accuracy, error = verification_accuracy(similarity, same, np.array([0, 0, 1, 1, 2, 2]))
    >>> round(accuracy, 3), round(error, 3)
    (0.833, 0.167)
    """
    similarity = np.asarray(similarity, dtype=np.float64)
    folds = np.unique(fold)
    if len(folds) < 2:
        raise ValueError(
            f"folds of pairs: {len(folds)}. The threshold of a fold is chosen on the others, so "
            "there must be 2 or more."
        )
    accuracies = [
        np.mean((similarity[own] >= best_threshold(similarity[~own], same[~own])) == same[own])
        for own in (fold == number for number in folds)
    ]
    return float(np.mean(accuracies)), float(np.std(accuracies, ddof=1) / np.sqrt(len(folds)))


def best_threshold(similarity: NDArray[np.float64], same: NDArray[np.bool_]) -> float:
    """The threshold that judges most pairs (P,) correctly.

    Pairs at or above it are judged to share a class. It lies halfway between two similarities, or
    beyond all of them. Of equally good thresholds it is the highest.

    >>> best_threshold(np.array([0.9, 0.5, 0.1]), np.array([True, True, False]))
    0.3
    """
    values, place = np.unique(-similarity, return_inverse=True)  # the most similar first
    gain = np.bincount(place, weights=np.where(same, 1, -1), minlength=len(values))
    # Correct judgements when the first 0, 1, ... values are accepted, less those of accepting none.
    accepted = int(np.argmax(np.concatenate([[0], np.cumsum(gain)])))
    edges = np.concatenate([[-np.inf], values, [np.inf]])
    return float(-(edges[accepted] + edges[accepted + 1]) / 2)
