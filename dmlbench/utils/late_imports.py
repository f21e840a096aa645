"""Large modules that are imported when somebody uses them, and not before.

A short training takes as long as their imports.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch

COMPILER = "torch._dynamo"


class _Late(ModuleType):
    """Stands for a module that is not imported yet.

    Whatever is asked of it, and an import of a part of it, imports the module itself. (`LazyLoader`
    of the standard library does so at the next `import` of its name.)
    """

    def __getattr__(self, name: str) -> Any:
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return getattr(importlib.import_module(self.__name__), name)


class _LateCompiler(_Late):
    """It has what eager code calls."""

    def graph_break(self, *_: Any) -> None:
        """A graph ends here; there is none."""

    def disable(self, function: Callable[..., Any], *_: Any, **__: Any) -> Callable[..., Any]:
        """`function`, not to be compiled; nothing is."""
        return function


def leave_out_compiler() -> None:
    """Let optimizers take their steps without importing torch's compiler, if it is not there yet.

    At their first step they import `torch._dynamo`, only to tell it where no graph goes on. That
    takes two seconds of a core. `torch.compile` works as ever: it imports the compiler.
    """
    if COMPILER not in sys.modules:
        sys.modules[COMPILER] = torch._dynamo = _LateCompiler(COMPILER)


def import_late(name: str) -> None:
    """Let `import name` do nothing until somebody uses the module, if it is not there yet.

    pytorch-metric-learning imports `scipy.stats` for one function that no training calls. That
    takes 0.9 seconds of a core.
    """
    sys.modules.setdefault(name, _Late(name))
