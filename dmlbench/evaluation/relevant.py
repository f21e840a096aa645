"""The images of a gallery that are relevant to each query."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Relevant:
    """Where the classes of Q queries are in a gallery of G images."""

    by_class: NDArray[np.int64]
    """(G,) places in the gallery, sorted by class."""
    lowest: NDArray[np.int64]
    """(Q,) where the class of each query begins in `by_class`."""
    highest: NDArray[np.int64]
    """(Q,) where it ends."""
    own: NDArray[np.int64]
    """(Q,) the place of the query itself in the gallery; -1 if it is not in it."""

    @property
    def counts(self) -> NDArray[np.int64]:
        """(Q,) R, the number of images that are relevant to each query."""
        return self.highest - self.lowest - (self.own >= 0)
