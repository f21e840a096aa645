"""How long the losses take at the size of Stanford Online Products (11,318 classes, 512 dimensions,
batches of 180), one CPU thread, beside their peers. Prints one Markdown table:

- forward and backward of a native loss by those of pytorch-metric-learning's same loss, both with
  the same parameters on the same batch, by turns in one process (21 rounds). The ratio is the
  median of the rounds' ratios, so that other work on the machine counts little.
- SoftTriple's regulariser by the original's, which takes the product of all C x K centres and
  picks the pairs within a class from it; at a size at which that one fits into about 3 GB.
- `refresh` of HTL (the tree of all classes) and of HPL (k-means of all proxies).

The last two run in a process each, for their peak memory.

    python benchmarks/losses.py > benchmarks/results/losses-cpu.md
    python benchmarks/losses.py --device cuda --dtype bfloat16

On bfloat16 embeddings ours compute in float32, and some of the peers in bfloat16.
"""

from __future__ import annotations

import argparse
import datetime
import multiprocessing
import os
import platform
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pytorch_metric_learning import losses as pml
from torch import Tensor, nn

from dmlbench.losses import create_loss
from dmlbench.losses.base import Loss, unit_length
from dmlbench.losses.softtriple import mean_center_distance

CLASSES, DIMENSIONS, IMAGES = 11_318, 512, 59_551
PER_CLASS, BATCH = 5, 180
CENTERS, FEWER_CLASSES = 10, 2_400  # at 11,318 classes the product of all centres takes 51 GB
ROUNDS = 21
RATIO, FASTER, SECONDS, MEMORY = 1.05, 20, 60, 3000  # what is asked for; memory in MB


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32", help="of the embeddings: float32, bfloat16")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    device, dtype = torch.device(options.device), getattr(torch, options.dtype)
    packages = ("torch", "pytorch-metric-learning", "scipy", "numpy")
    print(
        f"{datetime.date.today()}, {processor(device)}, load {os.getloadavg()[0]:.1f}, Python "
        f"{platform.python_version()}, "
        + ", ".join(f"{name} {version(name)}" for name in packages)
        + f"; {CLASSES:,} classes, {DIMENSIONS} dimensions, {options.dtype}, batches of {BATCH}, "
        f"{ROUNDS} rounds, 1 thread. A peer is pytorch-metric-learning's loss unless it says "
        "otherwise; memory is what the process takes more at its peak.\n"
    )
    print("| what | dmlbench | peer | ratio | asked for |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for name, ours, theirs, batch in pairs(device, dtype):
        show(name, *side_by_side(ours, theirs, *batch, device))
    if device.type == "cpu":
        alone()


def pairs(
    device: torch.device, dtype: torch.dtype
) -> Iterator[tuple[str, Loss, nn.Module, tuple[Tensor, Tensor]]]:
    """Name, our loss, its peer with the same parameters, and a batch."""
    by_class, at_random, square = (
        batch(labels, device, dtype)
        for labels in (
            torch.randperm(CLASSES)[: BATCH // PER_CLASS].repeat_interleave(PER_CLASS),
            torch.randint(CLASSES, (BATCH,)),
            torch.arange(13).repeat_interleave(13),
        )
    )

    def pair(name: str, criterion: Callable[..., nn.Module], own: str = "", its: str = "", **given):
        ours = create_loss(name, CLASSES, DIMENSIONS, **given).to(device)
        theirs = criterion(CLASSES, DIMENSIONS) if own else criterion()
        if own:
            weights = getattr(ours, own).detach().flatten(0, -2)
            weight = getattr(theirs, its)
            weight.data = (weights if weight.shape == weights.shape else weights.T).clone()
        return ours, theirs.to(device)

    def softtriple(centers: int) -> tuple[Loss, nn.Module]:
        return pair(
            "softtriple",
            lambda *sizes: pml.SoftTripleLoss(*sizes, centers_per_class=centers),
            "centers",
            "fc",
            centers_per_class=centers,
            tau=0.0,
        )

    def ranked_list() -> nn.Module:
        return pml.RankedListLoss(margin=0.4, Tn=10, Tp=0, alpha=1.2)

    halves = {"form": "tpami"}  # as the peer has it
    both = {**halves, "gallery_grad": True, "weight_grad": True}
    proxies = ("proxies", "proxies")
    softmax = ("proxies", "W")
    found = {
        "SoftTriple, K = 2": (softtriple(2), by_class),
        "SoftTriple, K = 10": (softtriple(10), by_class),
        "Proxy Anchor": (pair("proxy_anchor", pml.ProxyAnchorLoss, *proxies), by_class),
        "Proxy Anchor, random batch": (
            pair("proxy_anchor", pml.ProxyAnchorLoss, *proxies),
            at_random,
        ),
        "normalised softmax": (
            pair("normalized_softmax", pml.NormalizedSoftmaxLoss, *softmax),
            by_class,
        ),
        "ProxyNCA++": (
            pair("proxynca_pp", lambda *s: pml.ProxyNCALoss(*s, softmax_scale=9), *proxies),
            by_class,
        ),
        "RLL, gradients as the peer's": (pair("rll", ranked_list, **both), by_class),
        "RLL": (pair("rll", ranked_list, **halves), by_class),
        "RLL, random batch": (pair("rll", ranked_list, **halves), at_random),
        "smooth AP, batch of 13 x 13": (pair("smooth_ap", pml.SmoothAPLoss), square),
    }
    for name, (losses, data) in found.items():
        yield name, *losses, data


def batch(
    labels: Tensor, device: torch.device, dtype: torch.dtype, spread: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Embeddings around a centre for each class, and `labels`."""
    centres = torch.randn(CLASSES, DIMENSIONS)[labels]
    embeddings = centres + spread * torch.randn(len(labels), DIMENSIONS)
    return embeddings.to(device, dtype).requires_grad_(), labels.to(device)


def side_by_side(
    ours: nn.Module, theirs: nn.Module, embeddings: Tensor, labels: Tensor, device: torch.device
) -> tuple[str, str, float, float]:
    """Median milliseconds of both, and the median ratio."""
    values = [loss(embeddings, labels).item() for loss in (ours, theirs)]
    if not np.isclose(*values, rtol=1e-2):
        raise AssertionError(f"not the same loss: {values}")
    seconds = np.empty((ROUNDS + 1, 2))  # the first round warms up
    for number, turn in enumerate(seconds):
        for place in (0, 1) if number % 2 else (1, 0):
            loss = (ours, theirs)[place]
            embeddings.grad = None
            loss.zero_grad(set_to_none=True)
            began = clock(device)
            loss(embeddings, labels).backward()
            turn[place] = clock(device) - began
    one, other = np.median(seconds[1:], axis=0)
    ratio = np.median(seconds[1:, 0] / seconds[1:, 1])
    return f"{1000 * one:.3g} ms", f"{1000 * other:.3g} ms", float(ratio), RATIO


def clock(device: torch.device) -> float:
    """Seconds of this process on the CPU; or that have passed when the GPU is done."""
    if device.type == "cpu":
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def alone() -> None:
    """What is measured in a process of its own."""
    few = apart(regulariser, mean_center_distance, FEWER_CLASSES)
    original = apart(regulariser, over_all_centers, FEWER_CLASSES)
    full = apart(regulariser, mean_center_distance, CLASSES)
    size = f"SoftTriple's regulariser, K = {CENTERS}, {FEWER_CLASSES:,} classes"
    for place, unit in enumerate(("s", "MB")):
        ours, theirs = (f"{figures[place]:.3g} {unit}" for figures in (few, original))
        peer = f"{theirs} (original)"
        show(f"{size}: {unit}", ours, peer, few[place] / original[place], 1 / FASTER)
    seconds, more, _ = full
    print(f"| the same, {CLASSES:,} classes | {seconds:.3g} s, {more:.0f} MB | does not fit | | |")
    for linkage in ("single", "average"):
        seconds, _, peak = apart(tree, linkage)
        missed = "" if seconds <= SECONDS and peak <= MEMORY else " **missed**"
        asked = f"{SECONDS} s, {MEMORY} MB"
        name = f"HTL's tree of {IMAGES:,} embeddings, {linkage} linkage, whole process"
        print(f"| {name} | {seconds:.3g} s, {peak:.0f} MB{missed} | | | {asked} |")
    for name, work in (("first", clusters), ("and matched to the one before", clusters_again)):
        seconds, more, _ = apart(work)
        print(f"| HPL's k-means, {name} | {seconds:.3g} s, {more:.0f} MB | | | |")


def show(name: str, ours: str, theirs: str, ratio: float, asked: float) -> None:
    missed = "" if ratio <= asked else " **missed**"
    print(f"| {name} | {ours} | {theirs} | {ratio:.3g}{missed} | {asked:g} |", flush=True)


def apart(work: Callable[..., Callable[[], object]], *arguments: Any) -> tuple[float, float, float]:
    """Seconds, memory that it takes more, and peak of the process (MB) of what `work` prepares."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_measured, (work, arguments))


def _measured(
    work: Callable[..., Callable[[], object]], arguments: tuple
) -> tuple[float, float, float]:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    prepared = work(*arguments)
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far
    before = _memory("VmRSS")
    began = time.process_time()
    prepared()
    seconds = time.process_time() - began
    peak = _memory("VmHWM")
    return seconds, peak - before, peak


def _memory(figure: str) -> float:
    """A figure of this process's memory in MB. (`ru_maxrss` would begin at its parent's.)"""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(figure)) * 1024 / 1e6


def regulariser(of: Callable[[Tensor], Tensor], classes: int) -> Callable[[], object]:
    centers = torch.empty(classes, CENTERS, DIMENSIONS).normal_().div_(DIMENSIONS**0.5)
    return lambda: of(centers.requires_grad_()).backward()


def over_all_centers(centers: Tensor) -> Tensor:
    """As the authors' code does it: all products, of which a mask picks."""
    classes, per_class, _ = centers.shape
    flat = centers.flatten(0, 1)
    mask = torch.zeros(len(flat), len(flat), dtype=torch.bool)
    for first in range(0, len(flat), per_class):
        block = slice(first, first + per_class)
        mask[block, block] = torch.ones(per_class, per_class, dtype=torch.bool).triu(1)
    similarity = flat @ flat.T
    distance = (2 + 1e-5 - 2 * similarity[mask]).sqrt()
    return distance.sum() / (classes * per_class * (per_class - 1))


def tree(linkage: str) -> Callable[[], object]:
    """HTL on classes of 2 to 12 images, in groups of about a thousand classes."""
    random = np.random.default_rng(0)
    labels = np.arange(CLASSES).repeat(2)
    labels = np.sort(np.append(labels, random.integers(CLASSES, size=IMAGES - len(labels))))
    group = torch.from_numpy(random.integers(12, size=CLASSES))
    centres = torch.randn(12, DIMENSIONS)[group] + torch.randn(CLASSES, DIMENSIONS)
    targets = torch.from_numpy(labels)
    embeddings = unit_length(torch.randn(IMAGES, DIMENSIONS).add_(centres[targets]))
    options = {"tree_linkage": linkage, "warmup_epochs": 0}
    loss = create_loss("htl", CLASSES, DIMENSIONS, **options)
    return lambda: loss.refresh(lambda: (embeddings, targets))


def clusters() -> Callable[[], object]:
    import faiss

    faiss.omp_set_num_threads(1)
    loss = create_loss("hpl", CLASSES, DIMENSIONS, warmup_epochs=0)
    return lambda: loss.refresh(_nothing)


def clusters_again() -> Callable[[], object]:
    again = clusters()
    again()
    return again


def _nothing() -> tuple[Tensor, Tensor]:
    raise AssertionError("HPL looks at its proxies alone")


def processor(device: torch.device) -> str:
    """The processor's or the GPU's name, as Linux or its driver tells it."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    facts = Path("/proc/cpuinfo")
    lines = facts.read_text().splitlines() if facts.exists() else []
    names = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
    return f"{os.cpu_count()} cores of {names[0] if names else platform.machine()}, no GPU used"


if __name__ == "__main__":
    main()
