"""Verification: are two images of one class? By a threshold on their cosine similarity."""

import numpy as np
from numpy.typing import NDArray


def verification_accuracy(
    similarity: NDArray[np.floating], same: NDArray[np.bool_], fold: NDArray[np.integer]
) -> tuple[float, float]:
    """Mean accuracy over the folds of the pairs (P,), and the standard error of that mean.

    The threshold of each fold is chosen on all others and applied to it (LFW's "view 2"; Huang et
    al. 2007, section 3): no pair is judged by a threshold that has seen it.
    """
    similarity = np.asarray(similarity, dtype=np.float64)
    folds = np.unique(fold)
    if len(folds) < 2:
        raise ValueError(f"{len(folds)} folds of pairs: the threshold of one is chosen on others")
    accuracies = [
        np.mean((similarity[own] >= best_threshold(similarity[~own], same[~own])) == same[own])
        for own in (fold == number for number in folds)
    ]
    return float(np.mean(accuracies)), float(np.std(accuracies, ddof=1) / np.sqrt(len(folds)))


def best_threshold(similarity: NDArray[np.float64], same: NDArray[np.bool_]) -> float:
    """The threshold by which most pairs (P,) are judged rightly, those at or above it to be of one
    class. It lies halfway between two similarities, or beyond all of them; of equally good ones,
    the highest."""
    values, place = np.unique(-similarity, return_inverse=True)  # ascending: the most alike first
    gain = np.bincount(place, weights=np.where(same, 1, -1), minlength=len(values))
    # right answers beyond those of accepting nothing, when the first 0, 1, ... values are accepted
    accepted = int(np.argmax(np.concatenate([[0], np.cumsum(gain)])))
    edges = np.concatenate([[-np.inf], values, [np.inf]])
    return float(-(edges[accepted] + edges[accepted + 1]) / 2)
