"""Deterministic kernels on a GPU, and what happens where torch has none.

`torch.use_deterministic_algorithms` has two modes. In the strict one, an operator without a
deterministic kernel raises an error. With `warn_only` it warns, and operators that have both kinds
may take the other kind: attention takes its deterministic backward in the strict mode alone. (In
torch 2.15: mha_bwd of flash_attn/flash_api.cpp, set_params of mem_eff_attention/kernel_backward.h,
and check_cudnn_deterministic of transformers/cuda/sdp_utils.cpp, which leaves out cuDNN's.)
So everything is computed in the strict mode, and only what that refuses is computed with warnings.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable
from typing import ParamSpec, TypeVar

import torch

REFUSAL = re.compile(r"(\w[\w ]*) does not have a deterministic implementation")
"""The message of torch (Context::alertNotDeterministic)."""

refused: set[str] = set()
"""The operators that were refused since `use_deterministic_kernels`, by torch's names. A result
records them."""

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


def use_deterministic_kernels() -> None:
    """Let torch compute with deterministic kernels alone."""
    refused.clear()
    torch.use_deterministic_algorithms(True)
    # without this line, each new tensor is filled with NaN first
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def allow_other_kernels(operators: Iterable[str]) -> None:
    """Let torch take other kernels from now on, because `operators` have no deterministic one."""
    refused.update(operators)
    torch.use_deterministic_algorithms(True, warn_only=True)


def repeatable(compute: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """Compute with deterministic kernels; if an operator has none, once more with other kernels.

    The second call starts from the beginning, so the first one leaves no trace if `compute` begins
    with its arguments and its seeds alone. An operator is refused at its first call, so in most
    cases no step is lost.

    Nothing changes where `use_deterministic_kernels` was not called, as on a CPU.
    """

    @functools.wraps(compute)
    def wrapper(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        if not torch.are_deterministic_algorithms_enabled():
            return compute(*args, **kwargs)
        before = torch.is_deterministic_algorithms_warn_only_enabled()
        torch.use_deterministic_algorithms(True)
        try:
            try:
                return compute(*args, **kwargs)
            except RuntimeError as error:
                refusal = REFUSAL.search(str(error))
                if not refusal:
                    raise
            # here the error is gone, and with it the tensors of the first call
            operator = refusal[1]
            print(
                f"{operator}: torch has no deterministic kernel of it, and takes another one. The "
                f"bits may differ the next time.",
                flush=True,
            )
            allow_other_kernels([operator])
            return compute(*args, **kwargs)
        finally:
            torch.use_deterministic_algorithms(True, warn_only=before)

    return wrapper
