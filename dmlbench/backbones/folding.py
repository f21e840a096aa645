"""Fold a frozen batch norm into the convolution before it.

A batch norm with fixed statistics and fixed affine parameters is scale * x + shift of each channel,
and scale * conv(x, weight) + shift is conv(x, scale * weight) + shift. Folding saves the memory of
the batch norm's input, and its step of the backward pass. `weight` still learns, with the same
gradient and weight decay as before, and a state_dict keeps its names and values.
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

ROUNDING = 1e-9  # relative to the largest feature, in float64
DRAWN = {
    "weight": (0.5, 1.5),
    "bias": (-0.5, 0.5),
    "running_mean": (-0.5, 0.5),
    "running_var": (0.5, 1.5),
}
"""Between which values `randomise_batch_norms` draws: near those of a new batch norm."""


class FoldedNorm(nn.BatchNorm2d):
    """A batch norm that returns its input: the convolution before it does its work."""

    running_mean: Tensor
    running_var: Tensor
    scale: Tensor
    shift: Tensor

    @torch.no_grad()
    def fold(self) -> None:
        """Compute scale and shift from the present statistics and affine parameters."""
        scale = self.weight / (self.running_var + self.eps).sqrt()
        self.register_buffer("scale", scale, persistent=False)
        self.register_buffer("shift", self.bias - self.running_mean * scale, persistent=False)

    def _load_from_state_dict(self, *arguments: Any) -> None:
        super()._load_from_state_dict(*arguments)
        self.fold()

    def forward(self, x: Tensor) -> Tensor:
        return x


class FoldedNormAct(FoldedNorm, BatchNormAct2d):
    """The same for timm's class, which has dropout and an activation as well."""

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.drop(x))


class FoldedConv(nn.Conv2d):
    """A convolution that also does the work of the batch norm after it."""

    norm: tuple[FoldedNorm]
    """In a tuple, since a module would get a second name in the state_dict."""

    def forward(self, x: Tensor) -> Tensor:
        (norm,) = self.norm
        weight = self.weight * norm.scale[:, None, None, None]
        bias = norm.shift if self.bias is None else norm.shift + self.bias * norm.scale
        return self._conv_forward(x, weight, bias)


FOLDED = {nn.BatchNorm2d: FoldedNorm, BatchNormAct2d: FoldedNormAct}


def fold(trunk: nn.Module, features: Callable[[nn.Module], Any]) -> None:
    """Fold each batch norm of `trunk` that is the only user of a convolution's output.

    A pass through a copy of the trunk finds these pairs. Another pass checks that folding changes
    nothing, in float64 and with random statistics, since those of a new model would hide a mistake.
    If anything changes, no batch norm is folded.

    Args:
        trunk: the model in training mode, all its batch norms frozen and in evaluation mode.
        features: takes a trunk, and returns its features of a random image: one tensor or several.
    """
    if not any(type(module) in FOLDED for module in trunk.modules()):
        return
    trial = copy.deepcopy(trunk).double()
    name_of = {module: name for name, module in trial.named_modules()}
    randomise_batch_norms(trial, torch.Generator().manual_seed(0))
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        generator = torch.get_rng_state()
        pairs, unfolded = _find_pairs(trial, features)
        _fold(pairs)
        torch.set_rng_state(generator)
        folded = tree_leaves(features(trial))
    if all(
        (after - before).abs().max() <= ROUNDING * before.abs().max()
        for before, after in zip(unfolded, folded, strict=True)
    ):
        names = [(name_of[conv], name_of[norm]) for conv, norm in pairs]
        _fold((trunk.get_submodule(conv), trunk.get_submodule(norm)) for conv, norm in names)


@torch.no_grad()
def randomise_batch_norms(model: nn.Module, generator: torch.Generator) -> None:
    """Draw the statistics and the affine parameters of all batch norms of `model`, for a test.

    Those of a new model hide mistakes. They are 0 and 1, which change nothing. And timm starts each
    residual block with 0 as the weight of its last batch norm (`zero_init_last`): if it is frozen,
    no convolution of the block gets a gradient.

    Args:
        generator: of the CPU. A model draws the same numbers folded and unfolded.

    >>> norm = nn.BatchNorm2d(2)
    >>> randomise_batch_norms(norm, torch.Generator().manual_seed(0))
    >>> norm.weight
    Parameter containing:
    tensor([0.9963, 1.2682], requires_grad=True)
    """
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            for name, (low, high) in DRAWN.items():
                if (values := getattr(module, name)) is not None:
                    drawn = torch.rand(values.shape, generator=generator)
                    values.copy_(low + (high - low) * drawn)
        if isinstance(module, FoldedNorm):
            module.fold()


def _fold(pairs: Iterable[tuple[Any, Any]]) -> None:
    for conv, norm in pairs:
        norm.__class__, conv.__class__ = FOLDED[type(norm)], FoldedConv
        norm.fold()
        conv.norm = (norm,)


def _find_pairs(
    trunk: nn.Module, features: Callable[[nn.Module], Any]
) -> tuple[list[tuple[nn.Module, nn.Module]], list[Tensor]]:
    """Find the pairs of a convolution and a batch norm that can be folded, by one pass.

    Returns:
        the pairs: each module is called once, and no other operation takes the convolution's
        output; and the features of the pass.
    """
    calls, uses = Counter[nn.Module](), _UseCounter()
    # id of an output -> its convolution, and the output, so that no other tensor gets its id
    outputs: dict[int, tuple[nn.Module, Tensor]] = {}
    candidates: list[tuple[nn.Module, nn.Module, int]] = []

    def after_conv(conv: nn.Module, _: Any, output: Tensor) -> None:
        calls[conv] += 1
        outputs[id(output)], uses.count[id(output)] = (conv, output), 0

    def before_norm(norm: nn.Module, inputs: tuple[Tensor]) -> None:
        calls[norm] += 1
        if (key := id(inputs[0])) in outputs:
            candidates.append((outputs[key][0], norm, key))

    hooks = []
    for module in trunk.modules():
        if type(module) is nn.Conv2d:
            hooks.append(module.register_forward_hook(after_conv))
        elif type(module) in FOLDED and module.affine and module.track_running_stats:
            hooks.append(module.register_forward_pre_hook(before_norm))
    with uses:
        tensors = tree_leaves(features(trunk))
    for hook in hooks:
        hook.remove()
    once = {module for module, count in calls.items() if count == 1}
    pairs = [
        (conv, norm)
        for conv, norm, key in candidates
        if {conv, norm} <= once and uses.count[key] == 1
    ]
    return pairs, tensors


class _UseCounter(TorchDispatchMode):
    """Counts the operations that take a tensor, by the tensor's id."""

    def __init__(self) -> None:
        super().__init__()
        self.count = Counter[int]()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        self.count.update(id(x) for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor))
        return func(*args, **(kwargs or {}))
