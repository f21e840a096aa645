"""The arithmetic of torch in float32: IEEE 754, and on a GPU the same bits again."""

from __future__ import annotations

import os
from collections.abc import MutableMapping
from typing import Any

SAME_BITS = (":4096:8", ":16:8")
"""Values of CUBLAS_WORKSPACE_CONFIG with which a matrix product has the same bits again, by
NVIDIA's manual of cuBLAS ("Results Reproducibility"). With others, torch refuses the product."""


def use_ieee_float32(environ: MutableMapping[str, str] = os.environ) -> None:
    """Let torch compute in IEEE float32, whatever the environment or this process chose before.

    TF32 keeps 10 of the 23 bits of each factor. A distance near 0 is then wrong by up to 0.03.

    Call it before the first kernel on a GPU: the libraries of CUDA read the environment when they
    start.
    """
    import torch

    # By NVIDIA ("Accelerating AI Training with NVIDIA TF32 Tensor Cores"): 0 overrides whatever a
    # program asks for, so also what a loss of the user asks for later; other values are reserved
    environ["NVIDIA_TF32_OVERRIDE"] = "0"
    if environ.get("CUBLAS_WORKSPACE_CONFIG") not in SAME_BITS:
        environ["CUBLAS_WORKSPACE_CONFIG"] = SAME_BITS[0]
    # torch has an old and a new setting. Every product on a GPU raises an error if they differ
    # (Context::allowTF32CuBLAS). TORCH_ALLOW_TF32_CUBLAS_OVERRIDE=1, as in NVIDIA's containers,
    # sets both
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    if hasattr(torch.backends, "fp32_precision"):  # since torch 2.9
        backends: Any = torch.backends
        for settings in (
            backends,  # the default of all others; these may have other values
            backends.cuda.matmul,
            *(backends.cudnn, backends.cudnn.conv, backends.cudnn.rnn),
            *(backends.mkldnn, backends.mkldnn.matmul, backends.mkldnn.conv, backends.mkldnn.rnn),
        ):
            settings.fp32_precision = "ieee"


def float32_precision() -> str:
    """How torch multiplies in float32 now: "ieee", "tf32", or "mixed" if its settings differ.

    >>> use_ieee_float32({})
    >>> float32_precision()
    'ieee'
    """
    import torch

    try:
        allowed = torch.backends.cuda.matmul.allow_tf32 or torch.backends.cudnn.allow_tf32
    except RuntimeError:  # the old and the new settings differ
        return "mixed"
    return "tf32" if allowed else "ieee"
