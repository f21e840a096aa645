"""What no machine without a GPU can tell of the code for one: a check a call.

    python benchmarks/smoke.py same_bits --device cuda

`benchmarks/gpu.py` runs them all. On a CPU they run too, where most have nothing to find. Needs
what `benchmarks/training.py` needs.
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
from bare import Made, found_version, machine, make, settings, there
from torch import Tensor
from torch.nn import functional

from dmlbench.backbones.model import EmbeddingModel
from dmlbench.evaluation import torch_ranking
from dmlbench.evaluation.kmeans import kmeans
from dmlbench.evaluation.ranking import rank, unit
from dmlbench.training import batches, progress
from dmlbench.training.ahead import Each, inputs
from dmlbench.training.checkpoint import Checkpoint
from dmlbench.training.state import Stopped
from dmlbench.training.train import embed, embed_test, train

IMAGES, EPOCHS = 448, 3
MODELS = {
    "cpu": settings("Backbone", type="test_resnet", dim=32, image_size=32, resize=36),
    "cuda": settings("Backbone", type="resnet50", dim=128, image_size=224, resize=256),
}
ALIKE = {"float32": 0.999, "bfloat16": 0.99}
"""Least cosine of an image's embeddings on two devices; a GPU's convolutions round to 10 bits."""


def about(device: torch.device, folder: Path) -> str:
    """The machine, and what is installed."""
    packages = ("torch", "torchvision", "timm", "numpy", "Pillow", "pytorch-metric-learning")
    print(f"{machine(device.type, *packages)}, {platform.platform()}")
    for name in ("faiss", "scipy", "pyarrow", "pydantic", "sklearn"):
        print(f"{name}: {'installed' if there(name) else 'missing'}")
    if device.type == "cpu":
        return "cpu miniature"
    if shutil.which("nvidia-smi"):
        asked = "--query-gpu=name,driver_version,memory.total,power.limit"
        subprocess.run(["nvidia-smi", asked, "--format=csv"], check=False)
    print(f"CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}")
    return torch.cuda.get_device_name()


def torch_then_faiss(device: torch.device, folder: Path) -> str:
    """Both find the same neighbours in one process, torch's libraries loaded first."""
    found = neighbours_of_torch(device)
    return compared(found, *neighbours_of_faiss()) if there("faiss") else "skipped: no faiss here"


def faiss_then_torch(device: torch.device, folder: Path) -> str:
    """The same, faiss's first. (torch is imported, but has not touched the GPU.)"""
    if not there("faiss"):
        return "skipped: no faiss here"
    theirs = neighbours_of_faiss()
    return compared(neighbours_of_torch(device), *theirs)


def vectors() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(4000, 64)).astype(np.float32)


def neighbours_of_torch(device: torch.device) -> np.ndarray:
    points = torch.from_numpy(vectors()).to(device)
    return (points[:100] @ points.T).argmax(1).cpu().numpy()


def neighbours_of_faiss() -> tuple[np.ndarray, str]:
    import faiss

    index, gpus = faiss.IndexFlatIP(64), getattr(faiss, "get_num_gpus", int)()
    if gpus:
        index = faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), 0, index)
    index.add(vectors())
    where = f"faiss {found_version('faiss')} sees {gpus} GPUs"
    return index.search(vectors()[:100], 1)[1][:, 0], where


def compared(found: np.ndarray, theirs: np.ndarray, where: str) -> str:
    same = np.mean(found == theirs)
    assert same > 0.98, f"{where}; {same:.0%} of the neighbours are torch's"
    return f"{where}; {same:.0%} of the neighbours are torch's"


def same_embeddings(device: torch.device, folder: Path) -> str:
    """The first weights give on this device what they give on a CPU."""
    run, store = tiny(device, folder)
    rows, said = store.split("test").rows, []
    torch.manual_seed(0)
    model = EmbeddingModel(run.model, run.recipe, store.channels).eval()
    expected = torch.from_numpy(embed(model, store, rows, torch.device("cpu"), run))
    for precision, least in ALIKE.items():
        run.recipe.gpu_precision = precision
        found = torch.from_numpy(embed(model.to(device), store, rows, device, run))
        cosine = functional.cosine_similarity(found, expected).min().item()
        said.append(f"{precision}: cosine {cosine:.6f}")
        assert cosine > least, said[-1]
    return ", ".join(said)


def same_bits(device: torch.device, folder: Path) -> str:
    """The same seed gives the same embeddings."""
    run, store = tiny(device, folder)
    one, other = (trained(run, store, device, folder / name) for name in ("one", "other"))
    return equal(one, other)


def resumed(device: torch.device, folder: Path) -> str:
    """A training that was stopped, in an epoch and between two, ends as one that was not."""
    run, store = tiny(device, folder)
    whole = trained(run, store, device, folder / "whole")
    steps = IMAGES // run.recipe.batch_size
    for most in (3, steps - 3):
        with contextlib.suppress(Stopped):
            train(run, store, device, folder / "parts", stop_after(most))
    return equal(whole, trained(run, store, device, folder / "parts"))


def stop_after(steps: int) -> Callable[[], str | None]:
    asked = iter(range(10**6))
    return lambda: "stop" if next(asked) == steps else None


def no_waits(device: torch.device, folder: Path) -> str:
    """In the midst of an epoch no step waits for the GPU."""
    if device.type != "cuda":
        return "skipped: it is seen on a GPU alone"
    run, store = tiny(device, folder)
    progress.EVERY = float("inf")  # what is read once a second
    Checkpoint.due = lambda self: False
    asked = iter(range(10**6))

    def watch() -> None:
        step = next(asked)
        if step in (4, 12):
            torch.cuda.set_sync_debug_mode("error" if step == 4 else "default")

    train(run, store, device, folder / "state", watch)
    return "none of 8 steps does"


def same_inputs(device: torch.device, folder: Path) -> str:
    """Batches made ahead and copied beside a computation are those made when they are asked for;
    what a device makes of the last one is what a CPU does."""
    run, store = tiny(device, folder)
    how = run.recipe.augmentation
    keys = [np.random.default_rng(n).integers(0, IMAGES, 64) for n in range(40)]
    side = run.model.image_size

    def prepare(rows: np.ndarray, each: Each) -> dict[str, Tensor]:
        boxes, drawn = batches.draw(store.sizes[rows], how, np.random.default_rng(rows))
        return {"squares": batches.crops(store, rows, boxes, side, each), **drawn}

    def summed(parts: dict[str, Tensor]) -> dict[str, Tensor]:
        squares = parts["squares"]
        weights = torch.arange(3 * side * side, device=squares.device).view(3, side, side)
        return {**parts, "squares": (squares * weights).sum((1, 2, 3))}

    busy, found = torch.rand(*(2 * [8192 if device.type == "cuda" else 8]), device=device), []
    for parts in inputs(prepare, keys, device):
        busy @ busy  # the copies of later batches overtake what reads this one
        found.append(summed(parts))
        last = parts
    for at_device, rows in zip(found, keys, strict=True):
        expected = prepare(rows, map)
        for name, values in summed(expected).items():
            assert torch.equal(at_device[name].cpu(), values), name
    pixels = [batches.floats(**parts).cpu() for parts in (last, expected)]
    torch.testing.assert_close(*pixels, atol=1e-3, rtol=0)
    return f"{len(keys)} batches"


def same_ranks(device: torch.device, folder: Path) -> str:
    """The ranks on this device are those of plain sorting, ties by the lower row."""
    if device.type == "cpu":
        return "skipped: on a CPU faiss has part in it"
    labels = np.random.default_rng(0).integers(300, size=3000)
    points = np.random.default_rng(1).normal(size=(3000, 64)) + 2 * labels[:, None] % 7
    points[::50] = points[0]  # many that are equal
    points, rows = unit(points), np.arange(3000)
    similarities = (points.astype(np.float64) @ points.astype(np.float64).T).astype(np.float32)
    np.fill_diagonal(similarities, -np.inf)
    order = np.argsort(-similarities, axis=1, kind="stable")
    relevant = (labels[order] == labels[:, None]) & (order != rows[:, None])
    expected = relevant.nonzero()[1] + 1
    differ = 0
    for torch_ranking.COMPARED in (0, 10**9):  # by sorting, by comparing
        ranking = rank(points, labels, rows, rows, device=device.type)
        differ = max(differ, np.count_nonzero(ranking.ranks != expected))
    assert differ <= 3, f"{differ} of {len(expected)} ranks differ"  # of 10⁸ one rounds otherwise
    return f"{len(expected)} ranks, {differ} differ"


def same_clusters(device: torch.device, folder: Path) -> str:
    """k-means on this device is twice the same, and ends as well as by torch on the CPU."""
    labels = np.random.default_rng(0).integers(300, size=6000)
    centres, noise = (np.random.default_rng(n).normal(size=(6000, 64)) for n in (1, 2))
    points = unit(centres[labels] + noise)
    points[::50] = points[0]  # many that are equal
    here = "cpu:0" if device.type == "cpu" else device.type  # on "cpu" faiss has part in it
    one, other, expected = (kmeans(points, 300, 0, 20, 1, device=d) for d in (here, here, "cpu:0"))
    assert np.array_equal(one, other)
    found, least = inertia(points, one), inertia(points, expected)
    assert abs(found / least - 1) < 0.02, f"inertia {found:.1f}, and {least:.1f} on the CPU"
    return f"inertia {found:.1f}, and {least:.1f} on the CPU"


def inertia(points: np.ndarray, clusters: np.ndarray) -> float:
    means = np.zeros((clusters.max() + 1, points.shape[1]))
    np.add.at(means, clusters, points)
    means /= np.bincount(clusters)[:, None].clip(1)
    return float(np.square(points - means[clusters]).sum())


def tiny(device: torch.device, folder: Path) -> tuple[SimpleNamespace, Made]:
    """A training of seconds, and its images."""
    model = MODELS[device.type]
    colours = {"brightness": 0.2, "contrast": 0.2, "saturation": 0.2, "hue": 0.05}
    how = settings("Augmentation", jitter=settings("Jitter", **colours))
    recipe = settings("Recipe", epochs=EPOCHS, batch_size=32, freeze_bn=True, augmentation=how)
    make(folder, IMAGES, (300, 260), 3, model.resize, files=False)
    run = SimpleNamespace(
        **{"dataset": "made", "seed": 0, "train_key": "smoke", "data": settings("Dataset")},
        **{"model": model, "recipe": recipe, "loss_type": "proxy_anchor", "loss_options": {}},
    )
    return run, Made(folder)


def trained(run: SimpleNamespace, store: Made, device: torch.device, state: Path) -> np.ndarray:
    """Embeddings of the test split."""
    return embed_test(train(run, store, device, state, lambda: None)[0], store, device, run)[0]


def equal(one: np.ndarray, other: np.ndarray) -> str:
    assert np.isfinite(one).all()
    assert np.array_equal(one, other), f"the embeddings differ by up to {abs(one - other).max()}"
    return "bit for bit"


CHECKS: dict[str, Callable[[torch.device, Path], str]] = {
    check.__name__: check
    for check in (
        *(about, torch_then_faiss, faiss_then_torch, same_inputs, same_embeddings),
        *(same_bits, resumed, no_waits, same_ranks, same_clusters),
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
