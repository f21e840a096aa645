"""Fair, reproducible benchmarks for deep metric learning, from images to a leaderboard.

>>> import dmlbench
>>> dmlbench.list_losses()[:3]
['angular', 'arcface', 'circle']
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # when it runs, see `__getattr__`
    from dmlbench.library.creating import create_loss
    from dmlbench.library.scoring import score
    from dmlbench.library.stores import StoreDataset, load_store
    from dmlbench.library.training import TrainedRun, train
    from dmlbench.library.translating import score_as
    from dmlbench.losses import list_losses

_ROOM_FOR_BYTECODE = 8_000_000
"""Bytes. On a disk with less, Python would leave bytecode that is cut, and fail to read it ever
after."""
if os.statvfs(__path__[0]).f_bavail * os.statvfs(__path__[0]).f_frsize < _ROOM_FOR_BYTECODE:
    sys.dont_write_bytecode = True

__version__ = "0.1.0"
__all__ = [
    "StoreDataset",
    "TrainedRun",
    "create_loss",
    "list_losses",
    "load_store",
    "score",
    "score_as",
    "train",
]
_MODULES = {
    "StoreDataset": "dmlbench.library.stores",
    "TrainedRun": "dmlbench.library.training",
    "create_loss": "dmlbench.library.creating",
    "list_losses": "dmlbench.losses",
    "load_store": "dmlbench.library.stores",
    "score": "dmlbench.library.scoring",
    "score_as": "dmlbench.library.translating",
    "train": "dmlbench.library.training",
}


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


if not TYPE_CHECKING:  # a type checker would take it for a sign that every name exists

    def __getattr__(name: str) -> Any:
        """Import what the library offers when it is first used: torch takes seconds."""
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = globals()[name] = getattr(importlib.import_module(_MODULES[name]), name)
        return value
