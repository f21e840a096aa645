"""Checks of the code for GPUs that only a machine with a GPU can make; one check per call.

    python benchmarks/smoke.py same_bits --device cuda

`benchmarks/gpu.py` runs all of them. They run on a CPU too, but most can find nothing there. They
need what `benchmarks/training.py` needs.
"""

from __future__ import annotations

import argparse
import contextlib
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from bare import (
    SyntheticStore,
    describe_machine,
    is_installed,
    make_store,
    package_version,
    settings,
)
from torch import Tensor
from torch.nn import functional

from dmlbench.backbones.model import EmbeddingModel
from dmlbench.evaluation import torch_ranking
from dmlbench.evaluation.kmeans import kmeans
from dmlbench.evaluation.ranking import rank, unit
from dmlbench.training import batches, progress
from dmlbench.training.checkpoint import Checkpoint
from dmlbench.training.prefetch import MapFunction, device_batches
from dmlbench.training.time_limit import Stopped
from dmlbench.training.train import embed, embed_test, train

IMAGES, EPOCHS = 448, 3
MODELS = {
    "cpu": settings("Backbone", type="test_resnet", dim=32, image_size=32, resize=36),
    "cuda": settings("Backbone", type="resnet50", dim=128, image_size=224, resize=256),
}
MIN_COSINE = {"float32": 0.999, "bfloat16": 0.99}
"""Of the embeddings of an image on two devices. The convolutions of a GPU round to 10 bits."""


def about(device: torch.device, folder: Path) -> str:
    """Describe the machine and its packages."""
    packages = ("torch", "torchvision", "timm", "numpy", "Pillow", "pytorch-metric-learning")
    print(f"{describe_machine(device.type, *packages)}, {platform.platform()}")
    for name in ("faiss", "scipy", "pyarrow", "pydantic", "sklearn"):
        print(f"{name}: {'installed' if is_installed(name) else 'missing'}")
    if device.type == "cpu":
        return "cpu miniature"
    if shutil.which("nvidia-smi"):
        query = "--query-gpu=name,driver_version,memory.total,power.limit"
        subprocess.run(["nvidia-smi", query, "--format=csv"], check=False)
    print(f"CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}")
    return torch.cuda.get_device_name()


def torch_then_faiss(device: torch.device, folder: Path) -> str:
    """Both find the same neighbours in one process; the libraries of torch are loaded first."""
    by_torch = neighbours_by_torch(device)
    if not is_installed("faiss"):
        return "skipped: faiss is missing"
    return compare_neighbours(by_torch, *neighbours_by_faiss())


def faiss_then_torch(device: torch.device, folder: Path) -> str:
    """The same, with those of faiss first. (torch is imported, but has not used the GPU.)"""
    if not is_installed("faiss"):
        return "skipped: faiss is missing"
    by_faiss = neighbours_by_faiss()
    return compare_neighbours(neighbours_by_torch(device), *by_faiss)


def vectors() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(4000, 64)).astype(np.float32)


def neighbours_by_torch(device: torch.device) -> np.ndarray:
    points = torch.from_numpy(vectors()).to(device)
    return (points[:100] @ points.T).argmax(1).cpu().numpy()


def neighbours_by_faiss() -> tuple[np.ndarray, str]:
    import faiss

    index, gpus = faiss.IndexFlatIP(64), getattr(faiss, "get_num_gpus", int)()
    if gpus:
        index = faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), 0, index)
    index.add(vectors())
    description = f"faiss {package_version('faiss')} sees {gpus} GPUs"
    return index.search(vectors()[:100], 1)[1][:, 0], description


def compare_neighbours(by_torch: np.ndarray, by_faiss: np.ndarray, faiss: str) -> str:
    same = np.mean(by_torch == by_faiss)
    remark = f"{faiss}; {same:.0%} of the neighbours are equal"
    assert same > 0.98, remark
    return remark


def same_embeddings(device: torch.device, folder: Path) -> str:
    """The first weights give nearly the same embeddings on this device and on a CPU."""
    run, store = tiny(device, folder)
    rows, remarks = store.split("test").rows, []
    torch.manual_seed(0)
    model = EmbeddingModel(run.model, run.recipe, store.channels).eval()
    expected = torch.from_numpy(embed(model, store, rows, torch.device("cpu"), run))
    for precision, least in MIN_COSINE.items():
        run.recipe.gpu_precision = precision
        embeddings = torch.from_numpy(embed(model.to(device), store, rows, device, run))
        cosine = functional.cosine_similarity(embeddings, expected).min().item()
        remarks.append(f"{precision}: cosine {cosine:.6f}")
        assert cosine > least, remarks[-1]
    return ", ".join(remarks)


def same_bits(device: torch.device, folder: Path) -> str:
    """The same seed gives the same embeddings."""
    run, store = tiny(device, folder)
    first, second = (trained(run, store, device, folder / name) for name in ("first", "second"))
    return compare_bits(first, second)


def resumed(device: torch.device, folder: Path) -> str:
    """A training that is stopped within an epoch and between two ends as an uninterrupted one."""
    run, store = tiny(device, folder)
    whole = trained(run, store, device, folder / "whole")
    steps = IMAGES // run.recipe.batch_size
    for count in (3, steps - 3):
        with contextlib.suppress(Stopped):
            train(run, store, device, folder / "parts", stop_after(count))
    return compare_bits(whole, trained(run, store, device, folder / "parts"))


def stop_after(steps: int) -> Callable[[], str | None]:
    calls = iter(range(10**6))
    return lambda: "stop" if next(calls) == steps else None


def no_waits(device: torch.device, folder: Path) -> str:
    """In the middle of an epoch, no step waits for the GPU."""
    if device.type != "cuda":
        return "skipped: only a GPU can show it"
    run, store = tiny(device, folder)
    progress.INTERVAL = float("inf")  # it reads the loss once per interval
    Checkpoint.should_save = lambda self: False
    calls = iter(range(10**6))

    def watch() -> None:
        step = next(calls)
        if step in (4, 12):
            torch.cuda.set_sync_debug_mode("error" if step == 4 else "default")

    train(run, store, device, folder / "state", watch)
    return "none of 8 steps does"


def same_batches(device: torch.device, folder: Path) -> str:
    """Prefetched batches, copied during a computation, equal those that are prepared on demand.

    The device turns the last one into the same floats as a CPU.
    """
    run, store = tiny(device, folder)
    keys = [np.random.default_rng(n).integers(0, IMAGES, 64) for n in range(40)]
    side = run.model.image_size

    def prepare(rows: np.ndarray, map_function: MapFunction) -> dict[str, Tensor]:
        random = np.random.default_rng(rows)
        boxes, drawn = batches.draw(store.sizes[rows], run.recipe.augmentation, random)
        return {"squares": batches.crops(store, rows, boxes, side, map_function), **drawn}

    def checksums(batch: dict[str, Tensor]) -> dict[str, Tensor]:
        squares = batch["squares"]
        weights = torch.arange(3 * side * side, device=squares.device).view(3, side, side)
        return {**batch, "squares": (squares * weights).sum((1, 2, 3))}

    size = 8192 if device.type == "cuda" else 8
    matrix, on_device = torch.rand(size, size, device=device), []
    for batch in device_batches(prepare, keys, device):
        matrix @ matrix  # the copies of later batches overtake what reads this one
        on_device.append(checksums(batch))
    for sums, rows in zip(on_device, keys, strict=True):
        expected = prepare(rows, map)
        for name, values in checksums(expected).items():
            assert torch.equal(sums[name].cpu(), values), name
    pixels = [batches.floats(**last).cpu() for last in (batch, expected)]
    torch.testing.assert_close(*pixels, atol=1e-3, rtol=0)
    return f"{len(keys)} batches"


def same_ranks(device: torch.device, folder: Path) -> str:
    """The ranks on this device equal those of plain sorting, with ties in the order of the rows."""
    if device.type == "cpu":
        return "skipped: on a CPU the ranking uses faiss"
    labels = np.random.default_rng(0).integers(300, size=3000)
    points = np.random.default_rng(1).normal(size=(3000, 64)) + 2 * labels[:, None] % 7
    points[::50] = points[0]  # many are equal
    points, rows = unit(points), np.arange(3000)
    similarities = (points.astype(np.float64) @ points.astype(np.float64).T).astype(np.float32)
    np.fill_diagonal(similarities, -np.inf)
    order = np.argsort(-similarities, axis=1, kind="stable")
    relevant = (labels[order] == labels[:, None]) & (order != rows[:, None])
    expected = relevant.nonzero()[1] + 1
    different = 0
    for torch_ranking.COMPARED in (0, 10**9):  # by sorting, by comparing
        ranking = rank(points, labels, rows, rows, device=device.type)
        different = max(different, np.count_nonzero(ranking.ranks != expected))
    remark = f"{len(expected)} ranks, {different} differ"
    assert different <= 3, remark  # one similarity in 10⁸ is rounded differently
    return remark


def same_clusters(device: torch.device, folder: Path) -> str:
    """k-means on this device repeats its result, which is as good as that of torch on a CPU."""
    labels = np.random.default_rng(0).integers(300, size=6000)
    centres, noise = (np.random.default_rng(n).normal(size=(6000, 64)) for n in (1, 2))
    points = unit(centres[labels] + noise)
    points[::50] = points[0]  # many are equal
    name = "cpu:0" if device.type == "cpu" else device.type  # on "cpu" k-means uses faiss
    first, second, expected = (
        kmeans(points, 300, 0, 20, 1, device=d) for d in (name, name, "cpu:0")
    )
    assert np.array_equal(first, second)
    reached, on_cpu = inertia(points, first), inertia(points, expected)
    remark = f"inertia {reached:.1f}, and {on_cpu:.1f} on the CPU"
    assert abs(reached / on_cpu - 1) < 0.02, remark
    return remark


def inertia(points: np.ndarray, clusters: np.ndarray) -> float:
    means = np.zeros((clusters.max() + 1, points.shape[1]))
    np.add.at(means, clusters, points)
    means /= np.bincount(clusters)[:, None].clip(1)
    return float(np.square(points - means[clusters]).sum())


def tiny(device: torch.device, folder: Path) -> tuple[SimpleNamespace, SyntheticStore]:
    """A training that takes seconds, and its images."""
    model = MODELS[device.type]
    jitter = settings("Jitter", brightness=0.2, contrast=0.2, saturation=0.2, hue=0.05)
    augmentation = settings("Augmentation", jitter=jitter)
    recipe = settings(
        "Recipe", epochs=EPOCHS, batch_size=32, freeze_bn=True, augmentation=augmentation
    )
    make_store(folder, IMAGES, (300, 260), 3, model.resize, with_files=False)
    run = SimpleNamespace(
        dataset="synthetic",
        seed=0,
        train_key="smoke",
        data=settings("Dataset"),
        model=model,
        recipe=recipe,
        loss_type="proxy_anchor",
        loss_options={},
    )
    return run, SyntheticStore(folder)


def trained(
    run: SimpleNamespace, store: SyntheticStore, device: torch.device, state: Path
) -> np.ndarray:
    """The embeddings of the test split after a training."""
    return embed_test(train(run, store, device, state, lambda: None)[0], store, device, run)[0]


def compare_bits(first: np.ndarray, second: np.ndarray) -> str:
    assert np.isfinite(first).all()
    difference = abs(first - second).max()
    assert np.array_equal(first, second), f"the embeddings differ by up to {difference}"
    return "bit for bit"


CHECKS: dict[str, Callable[[torch.device, Path], str]] = {
    check.__name__: check
    for check in (
        about,
        torch_then_faiss,
        faiss_then_torch,
        same_batches,
        same_embeddings,
        same_bits,
        resumed,
        no_waits,
        same_ranks,
        same_clusters,
    )
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("check", choices=CHECKS)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(CHECKS[options.check](torch.device(options.device), Path(folder)))


if __name__ == "__main__":
    main()
