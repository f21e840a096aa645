"""Frozen batch norm, folded into the convolution before it.

With its statistics and its affine parameters fixed, a batch norm is scale * x + shift of each
channel, and scale * conv(x, weight) + shift is conv(x, scale * weight) + shift. So its input is
not kept for the backward pass, which has no step for it. What learns is still `weight`, by its own
gradient and with its own weight decay, and a state_dict has the names and values that it had.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import torch
from timm.layers import BatchNormAct2d
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

ROUNDING = 1e-9  # of the largest feature, in float64


class FoldedNorm(nn.BatchNorm2d):
    """Gives its scale and shift to the convolution, and does nothing itself."""

    running_mean: Tensor
    running_var: Tensor
    scale: Tensor
    shift: Tensor

    @torch.no_grad()
    def fold(self) -> None:
        scale = self.weight / (self.running_var + self.eps).sqrt()
        self.register_buffer("scale", scale, persistent=False)
        self.register_buffer("shift", self.bias - self.running_mean * scale, persistent=False)

    def _load_from_state_dict(self, *given: Any) -> None:
        super()._load_from_state_dict(*given)
        self.fold()

    def forward(self, x: Tensor) -> Tensor:
        return x


class FoldedNormAct(FoldedNorm, BatchNormAct2d):
    """The same, with what follows it in timm's."""

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.drop(x))


class FoldedConv(nn.Conv2d):
    """Does the work of the batch norm after it."""

    norm: tuple[FoldedNorm]
    """In a tuple: a module would have a second name in the state_dict."""

    def forward(self, x: Tensor) -> Tensor:
        (norm,) = self.norm
        weight = self.weight * norm.scale[:, None, None, None]
        bias = norm.shift if self.bias is None else norm.shift + self.bias * norm.scale
        return self._conv_forward(x, weight, bias)


FOLDED = {nn.BatchNorm2d: FoldedNorm, BatchNormAct2d: FoldedNormAct}


def fold(trunk: nn.Module, features: Callable[[nn.Module], Any]) -> None:
    """Fold each batch norm of `trunk` that alone takes what a convolution gives. All are frozen;
    else the trunk is as it trains. `features(trunk)` are a tensor or several, of a drawn image.

    A pass through a copy finds them. Another one shows that folding changes nothing; in float64
    and with drawn statistics, for a new model's would hide a mistake. If it does, none is folded.
    """
    if not any(type(module) in FOLDED for module in trunk.modules()):
        return
    trial = copy.deepcopy(trunk).double()
    name = {module: name for name, module in trial.named_modules()}
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        for module in trial.modules():
            if isinstance(module, nn.BatchNorm2d):
                for values in module.state_dict().values():
                    values.copy_(torch.rand(values.shape) / 2 + 0.5)
        drawn = torch.get_rng_state()
        pairs, expected = _watch(trial, features)
        _fold(pairs)
        torch.set_rng_state(drawn)
        found = tree_leaves(features(trial))
    if all(
        (after - before).abs().max() <= ROUNDING * before.abs().max()
        for before, after in zip(expected, found, strict=True)
    ):
        _fold((trunk.get_submodule(name[conv]), trunk.get_submodule(name[n])) for conv, n in pairs)


def _fold(pairs: Iterable[tuple[Any, Any]]) -> None:
    for conv, norm in pairs:
        norm.__class__, conv.__class__ = FOLDED[type(norm)], FoldedConv
        norm.fold()
        conv.norm = (norm,)


def _watch(
    trunk: nn.Module, features: Callable[[nn.Module], Any]
) -> tuple[list[tuple[nn.Module, nn.Module]], list[Tensor]]:
    """Convolutions, each with the batch norm that alone takes its output, both called once; and
    the features."""
    calls, uses = Counter[nn.Module](), _Uses()
    made: dict[int, tuple[nn.Module, Tensor]] = {}  # the tensor is kept: no other gets its id
    taken: list[tuple[nn.Module, nn.Module, int]] = []

    def gave(conv: nn.Module, _: Any, output: Tensor) -> None:
        calls[conv] += 1
        made[id(output)], uses.count[id(output)] = (conv, output), 0

    def took(norm: nn.Module, inputs: tuple[Tensor]) -> None:
        calls[norm] += 1
        if (x := id(inputs[0])) in made:
            taken.append((made[x][0], norm, x))

    hooks = []
    for module in trunk.modules():
        if type(module) is nn.Conv2d:
            hooks.append(module.register_forward_hook(gave))
        elif type(module) in FOLDED and module.affine and module.track_running_stats:
            hooks.append(module.register_forward_pre_hook(took))
    with uses:
        given = tree_leaves(features(trunk))
    for hook in hooks:
        hook.remove()
    once = {module for module, count in calls.items() if count == 1}
    return [(conv, n) for conv, n, x in taken if {conv, n} <= once and uses.count[x] == 1], given


class _Uses(TorchDispatchMode):
    """Counts the operations that take a tensor, by its id."""

    def __init__(self) -> None:
        super().__init__()
        self.count = Counter[int]()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        self.count.update(id(x) for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor))
        return func(*args, **(kwargs or {}))
