"""The GPUs that this process may use, by names that mean the same in every process.

A GPU is a card, or a slice of a card that its administrator has cut up (MIG, Multi-Instance GPU).
CUDA_VISIBLE_DEVICES chooses among them. It is read here as the CUDA driver reads it, by the CUDA
Programming Guide and the code of torch 2.15. There is one difference: CUDA shows a process one MIG
slice, and here the list may name several, as each job gets one of them.
"""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from dmlbench.utils.cuda_devices import CudaDevice, ask_cuda
from dmlbench.utils.device import DEVICE, HIDDEN, VISIBLE
from dmlbench.utils.errors import UnusableGpu, UserError
from dmlbench.utils.mps import uses_mps
from dmlbench.utils.nvidia_smi import NvidiaSmiFailed, nvidia_smi

ORDER = "CUDA_DEVICE_ORDER"
FIELDS = "index,uuid,compute_mode,mig.mode.current,name"
EXCLUSIVE, PROHIBITED = "Exclusive_Process", "Prohibited"
"""Compute modes, as nvidia-smi names them: one process at a time, and none."""
PREFIXES = ("GPU-", "MIG-")
CARD = re.compile(r"GPU \d+: .*\(UUID: (?P<uuid>GPU-[^)]+)\)")
SLICE = re.compile(r"\s+MIG (?P<profile>\S+)\s+Device\s+\d+: \(UUID: (?P<uuid>MIG-[^)]+)\)")
"""Lines of `nvidia-smi -L`."""
DEVICE_FILES = Path("/dev"), "nvidia[0-9]*"
"""Where the kernel shows each GPU that a process may open."""


class Gpu(NamedTuple):
    """A GPU that one process can use: a card, or a MIG slice."""

    uuid: str
    """The name by which CUDA_VISIBLE_DEVICES chooses it."""
    name: str
    """Its model, as torch and CUDA name it."""
    mode: str
    """Its compute mode, as nvidia-smi names it."""

    def __str__(self) -> str:
        return f"{self.uuid} ({self.name})"


class _Card(NamedTuple):
    number: int
    """By the order of PCI buses, which is that of nvidia-smi."""
    uuid: str
    name: str
    gpus: tuple[Gpu, ...]
    """The card itself; or its slices, as a card in MIG mode cannot be used itself."""


class Gpus(NamedTuple):
    """The GPUs of this machine, from the view of a process."""

    present: tuple[Gpu, ...]
    chosen: tuple[Gpu, ...]
    """Those that CUDA_VISIBLE_DEVICES chooses."""
    variable: str | None = None
    """The value of CUDA_VISIBLE_DEVICES; None if it is not set."""
    fault: str = ""
    """Why nvidia-smi did not answer."""

    @property
    def usable(self) -> tuple[Gpu, ...]:
        """The GPUs that this process may use."""
        return tuple(gpu for gpu in self.chosen if gpu.mode != PROHIBITED)

    def check(self) -> None:
        """Refuse a machine whose GPUs cannot be used, as the CPU is not what its user wants.

        Raises:
            UnusableGpu: there are GPUs, and this process may use none.
        """
        if self.usable or self.variable in HIDDEN:
            return
        problem = ""
        if self.chosen:
            problem = (
                f"the compute mode of {_listed(self.chosen)} is {PROHIBITED}: no process may use "
                f"it. An administrator allows it by `nvidia-smi -c DEFAULT`"
            )
        elif self.present:
            problem = (
                f"{VISIBLE}={self.variable} chooses no GPU. CUDA reads it up to the first entry "
                f"that it does not know, and chooses nothing if a GPU is named twice. There are "
                f"{_listed(self.present)}. Name some of them, or unset the variable"
            )
        elif self.fault and any(DEVICE_FILES[0].glob(DEVICE_FILES[1])):
            problem = (
                f"there is a GPU, and its driver does not answer: {self.fault.rstrip('.')}. After "
                f"an update of the driver, restart the machine"
            )
        if problem:
            cpu = f"To compute on the CPU, set {DEVICE}=cpu."
            raise UnusableGpu(f"{platform.node()}: {problem}. {cpu}")

    def check_sharing(self, runs_per_gpu: int) -> None:
        """Refuse to share a GPU that takes one process at a time.

        Raises:
            UserError: `runs_per_gpu` is more than a GPU takes.
        """
        if exclusive := self.find_exclusive(runs_per_gpu):
            raise UserError(
                f"runs_per_gpu: {runs_per_gpu} processes cannot share {_listed(exclusive)}: the "
                f"compute mode {EXCLUSIVE} allows one process at a time. Set `runs_per_gpu: 1` in "
                f"the study; or start MPS, as docs/hardware.md describes; or let an administrator "
                f"change the mode: `nvidia-smi -c DEFAULT`."
            )

    def find_exclusive(self, runs_per_gpu: int) -> list[Gpu]:
        """The usable GPUs that cannot be shared by `runs_per_gpu` runs.

        MPS is one process for the GPU, whatever the number of its clients.
        """
        if runs_per_gpu == 1:
            return []
        exclusive = [gpu for gpu in self.usable if gpu.mode == EXCLUSIVE]
        return exclusive if exclusive and not uses_mps() else []


def find_gpus(environ: Mapping[str, str] = os.environ) -> Gpus:
    """The GPUs of this machine, and those that CUDA_VISIBLE_DEVICES chooses.

    nvidia-smi lists them. CUDA itself is asked, in another process, where nvidia-smi is missing, as
    in some containers, and where only CUDA knows which GPU an index means.
    """
    variable = environ.get(VISIBLE)
    if variable in HIDDEN or environ.get(DEVICE) == "cpu":
        return Gpus((), (), "")
    try:
        cards = _list_cards()
    except NvidiaSmiFailed as error:
        if error.finds_no_gpu:
            return Gpus((), (), variable)
        chosen = present = _list_by_cuda(environ)
        if not chosen and variable is not None:
            present = _list_by_cuda({name: environ[name] for name in environ if name != VISIBLE})
        return Gpus(present, chosen, variable, "" if error.is_missing else str(error))
    present = tuple(gpu for card in cards for gpu in card.gpus)
    return Gpus(present, _choose(cards, environ), variable)


def _list_by_cuda(environ: Mapping[str, str]) -> tuple[Gpu, ...]:
    """The GPUs that CUDA shows a process whose environment is `environ`."""
    return tuple(map(describe_device, ask_cuda(environ)))


def describe_device(device: CudaDevice) -> Gpu:
    """A GPU of CUDA under the name that nvidia-smi gives it.

    >>> describe_device(CudaDevice("5c1", "NVIDIA A100 MIG 1g.5gb", "Default")).uuid
    'MIG-5c1'
    """
    prefix = "MIG-" if " MIG " in device.name else "GPU-"
    return Gpu(prefix + device.uuid, device.name, device.mode)


def _list_cards() -> list[_Card]:
    """The cards that nvidia-smi lists.

    Raises:
        NvidiaSmiFailed: it gives no answer.
    """
    lines = nvidia_smi(f"--query-gpu={FIELDS}", "--format=csv,noheader")
    rows = [[field.strip() for field in line.split(",", 4)] for line in lines]
    rows = [row for row in rows if len(row) == 5]
    slices = _list_slices() if any(is_cut == "Enabled" for *_, is_cut, _ in rows) else {}
    cards = []
    for number, uuid, mode, is_cut, name in rows:
        gpus = [Gpu(uuid, name, mode)]
        if is_cut == "Enabled":
            gpus = [
                Gpu(own, f"{name} MIG {profile}", mode) for own, profile in slices.get(uuid, ())
            ]
        cards.append(_Card(int(number), uuid, name, tuple(gpus)))
    return cards


def _list_slices() -> dict[str, list[tuple[str, str]]]:
    """UUID of each card -> UUID and profile of each of its MIG slices."""
    slices: dict[str, list[tuple[str, str]]] = {}
    for line in nvidia_smi("-L"):
        if card := CARD.match(line):
            own = slices.setdefault(card["uuid"], [])
        elif part := SLICE.match(line):
            own.append((part["uuid"], part["profile"]))
    return slices


def _choose(cards: Sequence[_Card], environ: Mapping[str, str]) -> tuple[Gpu, ...]:
    """The GPUs that CUDA_VISIBLE_DEVICES chooses among those of `cards`."""
    variable = environ.get(VISIBLE)
    if variable is None:
        return tuple(gpu for card in cards for gpu in card.gpus)
    by_uuid: dict[str, tuple[Gpu, ...]] = {gpu.uuid: (gpu,) for card in cards for gpu in card.gpus}
    by_uuid |= {card.uuid: card.gpus for card in cards}
    entries = [entry.strip() for entry in variable.split(",")]
    if entries[0].startswith(PREFIXES):
        return _chosen(_named(entry, by_uuid) for entry in entries)
    is_ordered = environ.get(ORDER) == "PCI_BUS_ID" or len({card.name for card in cards}) == 1
    if not is_ordered and (devices := ask_cuda(environ)):
        return _chosen(_with_uuid(device.uuid, by_uuid) for device in devices)
    by_index = {card.number: card.gpus for card in cards}
    return _chosen(by_index.get(_leading_number(entry), ()) for entry in entries)


def _chosen(entries: Iterable[tuple[Gpu, ...]]) -> tuple[Gpu, ...]:
    """The GPUs of all entries up to the first one without any; none if one comes twice."""
    chosen: list[Gpu] = []
    for gpus in entries:
        if not gpus:
            break
        if {*chosen} & {*gpus}:
            return ()
        chosen += gpus
    return tuple(chosen)


def _named(entry: str, by_uuid: Mapping[str, tuple[Gpu, ...]]) -> tuple[Gpu, ...]:
    """The GPUs of the UUID that is `entry`, or the only one that begins with it."""
    if entry in by_uuid or not entry.startswith(PREFIXES):
        return by_uuid.get(entry, ())
    matches = [uuid for uuid in by_uuid if uuid.startswith(entry)]
    return by_uuid[matches[0]] if len(matches) == 1 else ()


def _with_uuid(uuid: str, by_uuid: Mapping[str, tuple[Gpu, ...]]) -> tuple[Gpu, ...]:
    """The GPUs of a UUID of CUDA, which does not say whether it is that of a card or a slice."""
    names = [f"{prefix}{uuid}" for prefix in PREFIXES]
    return next((by_uuid[name] for name in names if name in by_uuid), ())


def _leading_number(entry: str) -> int:
    """The number with which `entry` begins, as C's strtol reads it; -1 if there is none.

    >>> [_leading_number(entry) for entry in ("1", "+2", "1gpu", "-1", "all")]
    [1, 2, 1, -1, -1]
    """
    number = re.match(r"[+-]?\d+", entry)
    return int(number.group()) if number else -1


def _listed(gpus: Iterable[Gpu]) -> str:
    return ", ".join(map(str, gpus))
