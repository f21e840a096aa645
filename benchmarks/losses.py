"""How long losses take at the size of Stanford Online Products, compared with peers.

That is 11,318 classes, and 512 dimensions. It prints Markdown tables:

- forward and backward of a native loss, and of the same loss of pytorch-metric-learning, with the
  same parameters on the same batch, by turns in one process (21 rounds). The ratio is the median of
  the ratios of the rounds, so that other work on the machine counts little. Batches have 180 images
  on a CPU, with one thread, and 112 on a GPU, where the first table of `--classes 98` is of small
  kernels.
- the same for each native loss with its defaults, on float32 and bfloat16 embeddings: whether it is
  finite, and on a GPU whether the host ever waited for it (torch.cuda.set_sync_debug_mode).
- on a CPU: the regulariser of SoftTriple and the original one, which takes the product of all
  C x K centres and picks the pairs within a class from it, at a size at which that fits into about
  3 GB; and `refresh` of HTL (the tree of all classes) and of HPL (k-means of all proxies). Each
  runs in its own process, for its peak memory.

    python benchmarks/losses.py > benchmarks/results/losses-cpu.md
    python benchmarks/losses.py --device cuda --classes 11318 98 --dtype bfloat16

On bfloat16 embeddings our losses compute in float32, and some of the peers in bfloat16.

It needs torch. pytorch-metric-learning may be a folder on PYTHONPATH; without it, only our losses
are measured. Only `refresh` needs scipy and faiss.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bare import describe_machine, hold_gpu, is_installed, replace_missing, settings
from torch import Tensor, nn

from dmlbench.losses import _docs_page, create_loss, list_losses
from dmlbench.losses.base import unit_length
from dmlbench.losses.softtriple import mean_center_distance
from dmlbench.training import determinism
from dmlbench.training.determinism import repeatable
from dmlbench.training.execution import set_up

CLASSES, DIMENSIONS, IMAGES = 11_318, 512, 59_551
PER_CLASS, BATCH = {"cpu": 5, "cuda": 4}, {"cpu": 180, "cuda": 112}
CENTERS, FEWER_CLASSES = 10, 2_400  # with 11,318 classes the product of all centres takes 51 GB
ROUNDS = 21
RATIO, FASTER, SECONDS, MEMORY = 1.05, 20, 60, 3000
"""The targets: ratio to the peer, ratio of the regularisers, seconds, and memory in MB."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--dtype", default="float32", help="of the embeddings: float32 or bfloat16")
    parser.add_argument("--classes", type=int, nargs="+", default=[CLASSES])
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    options = parser.parse_args()
    with hold_gpu(options.device):
        faults = tables(options)
    raise SystemExit("; ".join(faults) or None)


def tables(options: argparse.Namespace) -> list[str]:
    """Print all tables; return the faults of the native losses."""
    torch.manual_seed(0)
    device, dtype = torch.device(options.device), getattr(torch, options.dtype)
    set_up(settings("Recipe"), device)
    packages = ("torch", "pytorch-metric-learning", "scipy", "numpy")
    print(
        f"{describe_machine(options.device, *packages)}; {DIMENSIONS} dimensions, "
        f"{options.dtype}, batches of {BATCH[device.type]}, {options.rounds} rounds, 1 thread. "
        "A peer is pytorch-metric-learning's loss unless it says otherwise; memory is the growth "
        "of the process at its peak."
    )
    faults = []
    for classes in options.classes:
        print(f"\n| {classes:,} classes | dmlbench | peer | ratio | target |")
        print("| --- | ---: | ---: | ---: | ---: |")
        for name, losses, data in pairs(classes, device, dtype):
            with contextlib.redirect_stdout(sys.stderr):  # it says if a peer is not deterministic
                times = repeatable(side_by_side)(losses, *data, device, options.rounds)
            show(name, *times)
        if device.type == "cpu" and classes == CLASSES:
            in_own_processes()
        print("\n| with its defaults | float32 | bfloat16 | finite | the host waits |")
        print("| --- | ---: | ---: | :-: | :-: |")
        faults += [f"{classes:,} classes, {f}" for f in natives(classes, device, options.rounds)]
    return faults


def library() -> Any:
    """The losses of pytorch-metric-learning; None if it is missing."""
    if not is_installed("pytorch_metric_learning"):
        return None
    # losses that are not measured here import these
    replace_missing("scipy", "scipy.stats", "scipy.special")
    from pytorch_metric_learning import losses

    return losses


def pairs(
    classes: int, device: torch.device, dtype: torch.dtype
) -> Iterator[tuple[str, list[nn.Module], tuple[Tensor, Tensor]]]:
    """Name, our loss and its peer with the same parameters (if there is one), and a batch."""
    pml, size = library(), BATCH[device.type]
    side = round(size**0.5)  # the smooth AP of the peer needs as many classes as images of each
    by_class, at_random, square = (
        batch(labels, device, dtype)
        for labels in (
            grouped(classes, device),
            torch.randint(classes, (size,)),
            torch.arange(side).repeat_interleave(side),
        )
    )

    def pair(
        name: str,
        peer: str,
        weights_name: str = "",
        peer_weights_name: str = "",
        peer_options: Any = None,
        **options: Any,
    ) -> list[nn.Module]:
        """Our loss and its peer, with their options; the peer gets our weights."""
        loss = create_loss(name, classes, DIMENSIONS, **options)
        if pml is None:
            return [loss.to(device)]
        sizes = (classes, DIMENSIONS) if weights_name else ()
        peer_loss = getattr(pml, peer)(*sizes, **(peer_options or {}))
        if weights_name:
            weights = getattr(loss, weights_name).detach().flatten(0, -2)
            peer_weights = getattr(peer_loss, peer_weights_name)
            is_same = peer_weights.shape == weights.shape
            peer_weights.data = (weights if is_same else weights.T).clone()
        return [loss.to(device), peer_loss.to(device)]

    def softtriple(centers: int) -> list[nn.Module]:
        options = {"centers_per_class": centers}
        return pair("softtriple", "SoftTripleLoss", "centers", "fc", options, **options, tau=0.0)

    def ranked_list(**options: Any) -> list[nn.Module]:
        peer_options = {"margin": 0.4, "Tn": 10, "Tp": 0, "alpha": 1.2}
        # the peer has the form of TPAMI
        return pair("rll", "RankedListLoss", peer_options=peer_options, **options, form="tpami")

    def proxy_anchor() -> list[nn.Module]:
        return pair("proxy_anchor", "ProxyAnchorLoss", "proxies", "proxies")

    softmax = ("normalized_softmax", "NormalizedSoftmaxLoss", "proxies", "W")
    nca = ("proxynca_pp", "ProxyNCALoss", "proxies", "proxies", {"softmax_scale": 9})
    yield "SoftTriple, K = 2", softtriple(2), by_class
    yield "SoftTriple, K = 10", softtriple(10), by_class
    yield "Proxy Anchor", proxy_anchor(), by_class
    yield "Proxy Anchor, random batch", proxy_anchor(), at_random
    yield "normalised softmax", pair(*softmax), by_class
    yield "ProxyNCA++", pair(*nca), by_class
    like_peer = {"gallery_grad": True, "weight_grad": True}
    yield "RLL, gradients as the peer's", ranked_list(**like_peer), by_class
    yield "RLL", ranked_list(), by_class
    yield "RLL, random batch", ranked_list(), at_random
    yield f"smooth AP, batch of {side} x {side}", pair("smooth_ap", "SmoothAPLoss"), square


def grouped(classes: int, device: torch.device) -> Tensor:
    """Labels of a batch with some images of each of its classes."""
    images = PER_CLASS[device.type]
    return torch.randperm(classes)[: BATCH[device.type] // images].repeat_interleave(images)


def batch(
    labels: Tensor, device: torch.device, dtype: torch.dtype, spread: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Embeddings around the centres of their classes, and `labels`."""
    centres = torch.randn(int(labels.max()) + 1, DIMENSIONS)[labels]
    embeddings = centres + spread * torch.randn(len(labels), DIMENSIONS)
    return embeddings.to(device, dtype).requires_grad_(), labels.to(device)


def side_by_side(
    losses: list[nn.Module], embeddings: Tensor, labels: Tensor, device: torch.device, rounds: int
) -> tuple[list[str], float]:
    """Median milliseconds of each loss, and the median ratio of the first to the last."""
    values = [loss(embeddings, labels).item() for loss in losses]
    tolerance = 1e-2 if embeddings.dtype == torch.float32 else 0.1
    if not np.isclose(values[0], values[-1], rtol=tolerance, atol=1e-6):  # some are 0
        raise AssertionError(f"not the same loss: {values}")
    seconds = np.empty((rounds + 1, len(losses)))  # the first round warms up
    for number, turn in enumerate(seconds):
        for place in list(range(len(losses)))[:: 1 if number % 2 else -1]:
            embeddings.grad = None
            losses[place].zero_grad(set_to_none=True)
            began = clock(device)
            losses[place](embeddings, labels).backward()
            turn[place] = clock(device) - began
    ratio = np.median(seconds[1:, 0] / seconds[1:, -1])
    return [f"{1000 * median:.3g} ms" for median in np.median(seconds[1:], axis=0)], float(ratio)


def natives(classes: int, device: torch.device, rounds: int) -> list[str]:
    """Print a line for each native loss; return the faults of those that have some."""
    # only `refresh` uses these
    replace_missing("scipy", "scipy.cluster", "scipy.cluster.hierarchy", "scipy.optimize")
    labels, faults = grouped(classes, device), []
    for name in list_losses():
        if _docs_page.header(name).wraps:
            continue
        determinism.refused.clear()
        try:
            with contextlib.redirect_stdout(sys.stderr):
                times, finite, wait = native(name, classes, labels, device, rounds)
        except Exception as error:
            faults.append(f"{name}: {type(error).__name__}: {error}")
            print(f"| {name} | **failed** | | | |", flush=True)
            continue
        cells = [*times, "yes" if finite else "**no**", f"**{wait}**" if wait else "no"]
        if device.type == "cpu":
            cells[-1] = "unknown on a CPU"
        if determinism.refused:
            cells[-1] += f"; not deterministic: {', '.join(determinism.refused)}"
        print(f"| {name} | {' | '.join(cells)} |", flush=True)
        faults += [f"{name} is not finite"] * (not finite) + [f"{name} waits"] * bool(wait)
    return faults


@repeatable
def native(
    name: str, classes: int, labels: Tensor, device: torch.device, rounds: int
) -> tuple[list[str], bool, str]:
    """The times of a loss by type of the embeddings, whether it is finite, and where it waits."""
    loss = create_loss(name, classes, DIMENSIONS).to(device)
    times, finite = [], True
    for dtype in (torch.float32, torch.bfloat16):
        data = batch(labels, device, dtype)
        times += side_by_side([loss], *data, device, rounds)[0]
        value = loss(*data)
        finite &= bool(value.isfinite() and data[0].grad.isfinite().all())
    return times, finite, waits(loss, *data) if device.type == "cuda" else ""


def waits(loss: nn.Module, embeddings: Tensor, labels: Tensor) -> str:
    """Where the host first waits for the GPU in forward and backward; empty if it never does."""
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        loss(embeddings, labels).backward()
    except RuntimeError as error:
        if determinism.REFUSAL.search(str(error)):
            raise
        return " ".join(str(error).split())
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return ""


def clock(device: torch.device) -> float:
    """CPU seconds of this process; on a GPU, the time when it is done, in seconds."""
    if device.type == "cpu":
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def in_own_processes() -> None:
    """Measure what needs its own process."""
    fewer = measure(regulariser, mean_center_distance, FEWER_CLASSES)
    original = measure(regulariser, over_all_centers, FEWER_CLASSES)
    full = measure(regulariser, mean_center_distance, CLASSES)
    size = f"SoftTriple's regulariser, K = {CENTERS}, {FEWER_CLASSES:,} classes"
    for place, unit in enumerate(("s", "MB")):
        own, original_figure = (f"{figures[place]:.3g} {unit}" for figures in (fewer, original))
        peer = f"{original_figure} (original)"
        show(f"{size}: {unit}", [own, peer], fewer[place] / original[place], 1 / FASTER)
    seconds, more, _ = full
    print(f"| the same, {CLASSES:,} classes | {seconds:.3g} s, {more:.0f} MB | does not fit | | |")
    for linkage in ("single", "average") if is_installed("scipy") else ():
        seconds, _, peak = measure(tree, linkage)
        missed = "" if seconds <= SECONDS and peak <= MEMORY else " **missed**"
        target = f"{SECONDS} s, {MEMORY} MB"
        name = f"HTL's tree of {IMAGES:,} embeddings, {linkage} linkage, whole process"
        print(f"| {name} | {seconds:.3g} s, {peak:.0f} MB{missed} | | | {target} |")
    if not (is_installed("scipy") and is_installed("faiss")):
        return
    work_of = {"first": clusters, "and matched to the one before": clusters_again}
    for name, work in work_of.items():
        seconds, more, _ = measure(work)
        print(f"| HPL's k-means, {name} | {seconds:.3g} s, {more:.0f} MB | | | |")


def show(name: str, times: list[str], ratio: float, target: float = RATIO) -> None:
    """Print a line with the peer and the ratio, if there is a peer."""
    if len(times) == 1:
        print(f"| {name} | {times[0]} | missing | | |", flush=True)
        return
    missed = "" if ratio <= target else " **missed**"
    print(f"| {name} | {' | '.join(times)} | {ratio:.3g}{missed} | {target:g} |", flush=True)


def measure(
    work: Callable[..., Callable[[], object]], *arguments: Any
) -> tuple[float, float, float]:
    """Run what `work` prepares in its own process: seconds, growth in MB, and peak in MB."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_measured, (work, arguments))


def _measured(
    work: Callable[..., Callable[[], object]], arguments: tuple
) -> tuple[float, float, float]:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    prepared = work(*arguments)
    Path("/proc/self/clear_refs").write_text("5")  # reset the peak
    before = _memory("VmRSS")
    began = time.process_time()
    prepared()
    seconds = time.process_time() - began
    peak = _memory("VmHWM")
    return seconds, peak - before, peak


def _memory(figure: str) -> float:
    """A figure of the memory of this process in MB. (`ru_maxrss` would begin at its parent's.)"""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(figure)) * 1024 / 1e6


def regulariser(of: Callable[[Tensor], Tensor], classes: int) -> Callable[[], object]:
    centers = torch.empty(classes, CENTERS, DIMENSIONS).normal_().div_(DIMENSIONS**0.5)
    return lambda: of(centers.requires_grad_()).backward()


def over_all_centers(centers: Tensor) -> Tensor:
    """As in the code of the authors: all products, from which a mask picks."""
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
    raise AssertionError("HPL looks only at its proxies")


if __name__ == "__main__":
    main()
