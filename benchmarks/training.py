"""How many images per second a training processes, compared with a limit and a peer.

- the training itself, on a packed store;
- the limit: the same model, loss and optimizer, on one batch that stays on the device;
- the peer: an ImageFolder with the transforms of torchvision in a DataLoader with one worker per
  core, a model of timm and the loss of pytorch-metric-learning.

Each is a process. They take turns, and the medians count. It prints a Markdown table. The images
are synthetic: JPEG files, and the store of them.

Each is measured with batch norms that learn, and with frozen ones, which are folded into the
convolutions: the path of pretrained weights.

    python benchmarks/training.py                  # CPU, the settings of the demo, one thread
    python benchmarks/training.py --device cuda    # ResNet-50 at 224 pixels, batches of 112, bf16
    python benchmarks/training.py --device cuda --compile    # recipe.gpu_compile as well
    python benchmarks/training.py --batch-norm frozen        # only these

On a CPU the files have the size of Omniglot's, which has the settings of the demo too. It needs
torch, torchvision, timm and what those need. If dmlbench is not installed, put PYTHONPATH=. before
the command. pytorch-metric-learning may be a folder on PYTHONPATH too; without it the peer has our
loss.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import timm
import torch
from bare import (
    SyntheticStore,
    describe_machine,
    hold_gpu,
    is_installed,
    make_store,
    replace_missing,
    settings,
)
from torch.utils.data import ConcatDataset, DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder
from turns import TURN, Turns, Way, end, start, window

from dmlbench.backbones.model import EmbeddingModel
from dmlbench.losses import create_loss
from dmlbench.training import determinism, prefetch
from dmlbench.training import train as training
from dmlbench.training.process import keep_freed_memory
from dmlbench.utils.cores import usable_cores

CPU = {
    "model": settings("Backbone", type="test_resnet", dim=128, image_size=32),
    "recipe": settings(
        "Recipe",
        epochs=10**6,
        batch_size=80,
        lr=3e-3,
        augmentation=settings("Augmentation", crop_scale=(0.6, 1.0), flip=False),
    ),
    "channels": 1,
    "file": (105, 105),
    "repeat": 1,  # 56 steps per epoch, as in the demo
    "window": 40,
}
CUDA = {
    "model": settings("Backbone", type="resnet50", dim=512, image_size=224, resize=256),
    "recipe": settings("Recipe", epochs=10**6),
    "channels": 3,
    "file": (500, 375),
    "repeat": 10,  # 400 steps per epoch; Stanford Online Products has 531
    "window": 100,
}
THREADS = 4
"""Threads that prepare batches for a GPU. The targets assume so many; a training uses up to 8."""
TARGETS = {"of the limit": {"cpu": 0.92, "cuda": 0.95}, "of the peer": {"cpu": 1.3, "cuda": 2.0}}
BATCH_NORM = {"learnt": False, "frozen": True}
"""The setting `freeze_bn` of each kind."""
MAX_DATA_WAIT = {"cuda": 0.02}
"""The share of the time that a training may wait for data."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--backbone", help="any model of timm")
    parser.add_argument("--batch", type=int)
    parser.add_argument("--size", type=int, help="of the crops, in pixels")
    parser.add_argument("--side", type=int, help="short side of the store")
    parser.add_argument("--images", type=int, default=4480)
    parser.add_argument("--store", choices=["pixels", "jpeg"], default="pixels")
    parser.add_argument("--window", type=int, help="steps of a turn")
    parser.add_argument("--rounds", type=int, default=5, help="most turns of each")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="no turn begins later")
    parser.add_argument("--batch-norm", nargs="+", choices=BATCH_NORM, default=[*BATCH_NORM])
    parser.add_argument("--compile", action="store_true", help="measure recipe.gpu_compile too")
    options = parser.parse_args()
    if options.compile and options.device == "cpu":
        parser.error("--compile: only a training on a GPU is compiled")
    setting = SimpleNamespace(**(CUDA if options.device == "cuda" else CPU))
    setting.device, setting.compile, model = options.device, options.compile, setting.model
    setting.window = options.window or setting.window
    model.type = options.backbone or model.type
    model.resize = options.side or options.size or model.resize or model.image_size
    model.image_size = options.size or model.image_size
    setting.recipe.batch_size = options.batch or setting.recipe.batch_size
    measured, seconds = {}, options.seconds / len(options.batch_norm)
    with hold_gpu(options.device), tempfile.TemporaryDirectory() as folder:
        setting.folder = Path(folder)
        make_store(
            setting.folder,
            options.images,
            setting.file,
            setting.channels,
            model.resize,
            form=options.store,
            repeat=setting.repeat,
        )
        for kind in options.batch_norm:
            setting.recipe.freeze_bn = BATCH_NORM[kind]
            measured[kind] = measure(setting, options.rounds, time.monotonic() + seconds)
    print(describe(setting, options.store))  # it asks the GPU for its name: not before a fork
    for kind, windows in measured.items():
        show(setting, kind, windows)


def ours(setting: SimpleNamespace, turn: Turns) -> None:
    keep_freed_memory()
    prefetch.THREADS = THREADS
    device_batches = training.device_batches
    training.device_batches = lambda *arguments: turn.timed(device_batches(*arguments))
    run = SimpleNamespace(
        recipe=setting.recipe,
        model=setting.model,
        data=settings("Dataset"),
        loss_type="proxy_anchor",
        loss_options={},
        seed=0,
        train_key="benchmark",
        last_epoch=None,
    )
    store, device = SyntheticStore(setting.folder), torch.device(setting.device)
    state = setting.folder / f"state-{os.getpid()}"
    training.train(run, store, store.split("train"), device, state, turn)


def compiled(setting: SimpleNamespace, turn: Turns) -> None:
    setting.recipe.gpu_compile = True
    ours(setting, turn)


def limit(setting: SimpleNamespace, turn: Turns) -> None:
    keep_freed_memory()
    device = torch.device(setting.device)
    training.set_up(setting.recipe, device)
    step = resident_step(setting, device)
    try:
        step()
    except RuntimeError as error:  # as in a training, see determinism.py
        if not (refusal := determinism.REFUSAL.search(str(error))):
            raise
        determinism.allow_other_kernels([refusal[1]])
    while True:
        turn()
        step()


def resident_step(setting: SimpleNamespace, device: torch.device) -> Callable[[], None]:
    """A step of the training on one batch that stays on the device."""
    recipe, classes = setting.recipe, 80
    model = EmbeddingModel(setting.model, recipe, setting.channels).to(device)
    forward = torch.compile(model, dynamic=False) if training.compiles(recipe, device) else model
    loss = create_loss("proxy_anchor", classes, setting.model.dim).to(device)
    optimizer = training.create_optimizer(recipe, model, loss.param_groups(recipe.lr))
    side = setting.model.image_size
    images = torch.rand(recipe.batch_size, setting.channels, side, side, device=device)
    labels = torch.arange(recipe.batch_size, device=device) // recipe.images_per_class % classes

    def step() -> None:
        with training.autocast(recipe, device):
            embeddings = forward(images)
        value = loss(embeddings, labels)
        optimizer.zero_grad(set_to_none=True)
        value.backward()
        optimizer.step()

    return step


def peer(setting: SimpleNamespace, turn: Turns) -> None:
    recipe, device = setting.recipe, torch.device(setting.device)
    augmentation, side = recipe.augmentation, setting.model.image_size
    if setting.device == "cpu":
        torch.set_num_threads(recipe.cpu_threads)
    gray = setting.channels == 1
    transform = transforms.Compose(
        [
            *([transforms.Grayscale()] if gray else []),
            transforms.RandomResizedCrop(side, augmentation.crop_scale, augmentation.crop_ratio),
            *([transforms.RandomHorizontalFlip()] if augmentation.flip else []),
            transforms.ToTensor(),
            transforms.Normalize([0.5] * setting.channels, [0.5] * setting.channels),
        ]
    )
    images = ImageFolder(str(setting.folder / "train"), transform)
    loader = DataLoader(
        ConcatDataset([images] * setting.repeat),
        recipe.batch_size,
        shuffle=True,
        drop_last=True,
        num_workers=usable_cores(),
        pin_memory=setting.device == "cuda",
        persistent_workers=True,
    )
    dim = setting.model.dim
    model = timm.create_model(setting.model.type, num_classes=dim, in_chans=setting.channels)
    model = model.to(device).train()
    for layer in model.modules() if recipe.freeze_bn else ():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.eval().requires_grad_(False)
    loss = peer_loss(len(images.classes), dim).to(device)
    optimizer = torch.optim.AdamW(
        [*model.parameters(), *loss.parameters()], recipe.lr, weight_decay=recipe.weight_decay
    )
    while True:
        for batch, labels in turn.timed(loader):
            turn()
            batch = batch.to(device, non_blocking=True)
            labels = labels.to(device, non_blocking=True)
            with training.autocast(recipe, device):
                embeddings = model(batch)
            value = loss(embeddings.float(), labels)
            optimizer.zero_grad()
            value.backward()
            optimizer.step()


def peer_loss(classes: int, dim: int) -> torch.nn.Module:
    if not is_installed("pytorch_metric_learning"):
        return create_loss("proxy_anchor", classes, dim)
    replace_missing("scipy", "scipy.stats", "scipy.special")  # for its other losses
    from pytorch_metric_learning.losses import ProxyAnchorLoss

    return ProxyAnchorLoss(classes, dim)


WAYS: dict[str, Way] = {
    "dmlbench": ours,
    "limit: one resident batch": limit,
    "peer: ImageFolder, DataLoader": peer,
    "dmlbench, compiled": compiled,
}


def measure(setting: SimpleNamespace, rounds: int, until: float) -> dict[str, np.ndarray]:
    """Seconds per step of each way in each round, (rounds, 3): clock, processors, waiting.

    After the monotonic time `until`, no round begins except the first.
    """
    pipes, windows = {}, {}
    names = [name for name, way in WAYS.items() if setting.compile or way is not compiled]
    try:
        for name in names:
            pipes[name], windows[name] = start(WAYS[name], setting), []
        for number in range(rounds):
            if number and time.monotonic() > until:
                break
            for name, pipe in pipes.items():
                pipe.send(TURN)
                windows[name].append(window(pipe))
    finally:  # the folder is removed after the processes
        end(pipes.values())
    return {name: np.array(seconds) / setting.window for name, seconds in windows.items()}


def describe(setting: SimpleNamespace, form: str) -> str:
    """The machine and the settings, for the head of the tables."""
    device, model = setting.device, setting.model
    width, height = setting.file
    packages = ("torch", "torchvision", "timm", "pytorch-metric-learning", "numpy", "Pillow")
    on_gpu = f"bfloat16, {THREADS} threads prepare batches"
    return (
        f"{describe_machine(device, *packages)}; {model.type} at {model.image_size} of "
        f"{model.resize} pixels, {'gray' if setting.channels == 1 else 'colour'}, batches of "
        f"{setting.recipe.batch_size}, Proxy Anchor, AdamW, "
        f"{on_gpu if device == 'cuda' else f'{setting.recipe.cpu_threads} thread'}; "
        f"store of {form}; files of {width} x {height}, {usable_cores()} workers of the peer's "
        f"loader; medians of turns of {setting.window} steps."
    )


def show(setting: SimpleNamespace, kind: str, measured: dict[str, np.ndarray]) -> None:
    """Print the tables of a kind of batch norm."""
    own, limit_seconds, peer_seconds, *compiled_seconds = measured.values()
    batch, device = setting.recipe.batch_size, setting.device
    print(f"\nBatch norms: {kind}; {len(own)} turns.\n")
    print("|  | images/s | ms a step | CPU ms a step, workers too | waiting for data |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for name, seconds in measured.items():
        wall, cpu, _ = np.median(seconds, axis=0) * 1e3
        share = np.median(seconds[:, 2] / seconds[:, 0])
        waits = "" if seconds is limit_seconds else f"{share:.1%}"
        print(f"| {name} | {1e3 * batch / wall:,.0f} | {wall:.1f} | {cpu:.1f} | {waits} |")
    print("\n| dmlbench | ratio, median of the turns | by CPU time | target |")
    print("| --- | ---: | ---: | ---: |")
    for name, seconds in {"of the limit": limit_seconds, "of the peer": peer_seconds}.items():
        wall, cpu = np.median(seconds[:, :2] / own[:, :2], axis=0)
        target = TARGETS[name][device]
        missed = "" if wall >= target else " **missed**"
        print(f"| images/s, {name} | {wall:.3f}{missed} | {cpu:.3f} | >= {target} |")
    for seconds in compiled_seconds:
        wall, cpu = np.median(own[:, :2] / seconds[:, :2], axis=0)
        print(f"| images/s, compiled, of not compiled | {wall:.3f} | {cpu:.3f} | |")
    if device in MAX_DATA_WAIT:
        share = np.median(own[:, 2] / own[:, 0])
        missed = "" if share <= MAX_DATA_WAIT[device] else " **missed**"
        print(f"| waiting for data | {share:.3f}{missed} | | <= {MAX_DATA_WAIT[device]} |")


if __name__ == "__main__":
    main()
