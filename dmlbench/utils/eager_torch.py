"""Training without torch's compiler, which is large to import.

The optimizers of torch import `torch._dynamo` at their first step, only to tell it where no graph
goes on. That takes two seconds of a core, as long as a short training.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch

COMPILER = "torch._dynamo"


class _Absent(ModuleType):
    """Stands for the compiler as long as nothing is compiled: it has what eager code calls.

    Whatever else is asked of it, and an import of a part of it, imports the compiler itself.
    """

    def graph_break(self, *_: Any) -> None:
        """A graph ends here; there is none."""

    def disable(self, function: Callable[..., Any], *_: Any, **__: Any) -> Callable[..., Any]:
        """`function`, not to be compiled; nothing is."""
        return function

    def __getattr__(self, name: str) -> Any:
        if sys.modules.get(COMPILER) is self:
            del sys.modules[COMPILER]
        return getattr(importlib.import_module(COMPILER), name)


def leave_out_compiler() -> None:
    """Let optimizers take their steps without importing the compiler, if it is not there yet.

    `torch.compile` works as ever: it imports the compiler.
    """
    if COMPILER not in sys.modules:
        sys.modules[COMPILER] = torch._dynamo = _Absent(COMPILER)
