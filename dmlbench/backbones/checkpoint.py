"""Checkpoints of people: the weights of a model in a file, in whatever way they were saved.

A file may hold a bare `state_dict`, or one inside other dictionaries, with an optimizer and
settings beside it. The names of its tensors may have prefixes (`module.`, `backbone.`), and the
classifier may be there.
"""

from __future__ import annotations

import argparse
import pickle
import re
import textwrap
import zipfile
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from dmlbench.backbones.weights import check_digest
from dmlbench.utils.errors import MissingWeights
from dmlbench.utils.text import some_of

CONTAINERS = ("state_dict_ema", "model_ema", "state_dict", "model")
"""Keys under which a training script keeps weights, in the order in which timm looks for them."""
RESAMPLED = ("pos_embed", "relative_position_bias_table")
"""Ends of the names of tensors that timm resamples if the size of the images is another one."""
ZIP, PICKLE = b"PK", b"\x80"
"""How a file of `torch.save` begins; a pickle before torch 1.6."""
SHOWN = 3
"""Names of tensors that a message shows of each kind."""


def read_checkpoint(path: Path, expected: Collection[str]) -> dict[str, Tensor]:
    """Read the weights of a model from the file `path`, with the names that the model has.

    Tensors are read to torch's default device. On the device "meta" that reads only their shapes.

    Args:
        path: a safetensors file, or one that `torch.save` wrote.
        expected: names of the model's tensors. If all names in the file have a prefix, as in
            `state_dict.module.conv1.weight`, it is found by them. Averaged weights (`ema`) come
            before others.

    Raises:
        MissingWeights: it cannot be read, or holds no tensors; a sha256 lies beside it and is not
            its own; or a weight is no finite number.
    """
    try:
        if str(torch.get_default_device()) != "meta":
            check_digest(path)
        tensors = dict(_flatten(_load(path)))
    except pickle.UnpicklingError:
        raise MissingWeights(
            f"{path} holds Python objects that are not read, since they could run code. Save the "
            f"weights alone: torch.save(model.state_dict(), path)"
        ) from None
    except (OSError, RuntimeError, ValueError, KeyError, EOFError, SafetensorError) as error:
        reason = textwrap.shorten(str(error), 120)
        raise MissingWeights(f"{path} cannot be read: {reason}. Get it again") from None
    if not tensors:
        raise MissingWeights(f"{path} holds no tensors")
    prefix = _find_prefix(tensors, expected)
    state = {name[len(prefix) :]: tensors[name] for name in tensors if name.startswith(prefix)}
    for name, tensor in state.items():
        if not tensor.is_meta and not torch.isfinite(tensor).all():
            raise MissingWeights(
                f"{path}: {name} has values that are NaN or infinite: the file is damaged, or its "
                f"training diverged. Get it again, or take other weights"
            )
    return state


def describe_mismatch(state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> str:
    """How the tensors of a file differ from those of a model; empty if they do not.

    >>> a, b = torch.zeros(1), torch.zeros(2)
    >>> describe_mismatch({"a": a, "b": b}, {"a": b, "c": a})
    '1 is missing (c); 1 is unknown to the model (b); 1 has another shape (a: [1], not [2])'
    """
    missing = [name for name in expected if name not in state]
    unknown = [name for name in state if name not in expected]
    other = [
        f"{name}: {list(state[name].shape)}, not {list(tensor.shape)}"
        for name, tensor in expected.items()
        if name in state and state[name].shape != tensor.shape and not name.endswith(RESAMPLED)
    ]
    kinds = (
        (missing, "is missing", "are missing"),
        (unknown, "is unknown to the model", "are unknown to the model"),
        (other, "has another shape", "have another shape"),
    )
    return "; ".join(
        f"{len(names)} {one if len(names) == 1 else many} ({some_of(names, SHOWN)})"
        for names, one, many in kinds
        if names
    )


def _load(path: Path) -> Any:
    with path.open("rb") as file:
        start = file.read(9)
    device = str(torch.get_default_device())
    if start[8:] == b"{":
        with safe_open(path, framework="pt") as file:
            names = file.keys()
            if device == "meta":
                return {name: torch.empty(file.get_slice(name).get_shape()) for name in names}
            return {name: file.get_tensor(name) for name in names}
    is_zip = zipfile.is_zipfile(path)
    if not is_zip and not start.startswith((ZIP, PICKLE)):
        raise ValueError("it is neither a safetensors file nor a file of torch.save")
    # What training scripts keep beside the weights: arguments, and numbers of numpy
    scalar: Any = np.float64(0).__reduce__()[0]
    kinds = [type(np.dtype(name)) for name in ("f4", "f8", "i4", "i8")]
    harmless: list[Any] = [argparse.Namespace, scalar, np.dtype, *kinds]
    with torch.serialization.safe_globals(harmless):
        return torch.load(path, map_location=device, weights_only=True, mmap=is_zip)


def _flatten(value: Any, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    """The tensors in nested dictionaries, with their dotted names."""
    if isinstance(value, Tensor):
        yield prefix, value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _flatten(item, f"{prefix}.{key}" if prefix else str(key))


def _find_prefix(names: Collection[str], expected: Collection[str]) -> str:
    """What precedes the names of the model's tensors in the file."""
    matches: dict[str, int] = {}
    known = {*expected}
    for name in names:
        parts = name.split(".")
        for start in range(len(parts)):
            if ".".join(parts[start:]) in known:
                prefix = "".join(f"{part}." for part in parts[:start])
                matches[prefix] = matches.get(prefix, 0) + 1
    if matches:
        return max(matches, key=lambda prefix: (matches[prefix], "ema" in re.split("[._]", prefix)))
    # Other names of the same tensors, which timm may know
    for container in CONTAINERS:
        for prefix in (f"{container}.module.", f"{container}."):
            if any(name.startswith(prefix) for name in names):
                return prefix
    return "module." if all(name.startswith("module.") for name in names) else ""
