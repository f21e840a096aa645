"""How many images per second a training processes, compared with a limit and a peer.

- the training itself, on a packed store;
- the limit: the same model, loss and optimizer, on one batch that stays on the device;
- the peer: an ImageFolder with the transforms of torchvision in a DataLoader with one worker per
  core, a model of timm and the loss of pytorch-metric-learning.

Each is a process. They take turns, and the medians count. It prints a Markdown table. The images
are synthetic: JPEG files, and the store of them.

    python benchmarks/training.py                  # CPU, the settings of the demo, one thread
    python benchmarks/training.py --device cuda    # ResNet-50 at 224 pixels, batches of 112, bf16
    python benchmarks/training.py --device cuda --compile    # recipe.gpu_compile as well

On a CPU the files have the size of Omniglot's, which has the settings of the demo too. It needs
torch, torchvision, timm and what those need. If dmlbench is not installed, put PYTHONPATH=. before
the command. pytorch-metric-learning may be a folder on PYTHONPATH too; without it the peer has our
loss.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from types import SimpleNamespace
from typing import Any

try:
    import numpy as np
    import timm
    import torch
    from bare import (
        SyntheticStore,
        describe_machine,
        is_installed,
        make_store,
        replace_missing,
        settings,
    )
    from torch.utils.data import ConcatDataset, DataLoader
    from torchvision import transforms
    from torchvision.datasets import ImageFolder

    from dmlbench.backbones.model import EmbeddingModel
    from dmlbench.losses import create_loss
    from dmlbench.training import prefetch
    from dmlbench.training import train as training
    from dmlbench.training.process import keep_freed_memory
    from dmlbench.utils.cores import usable_cores
except ModuleNotFoundError as error:
    raise SystemExit(f"this machine has no {error.name}: pip install {error.name}") from None

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
WARM_UP = {"cpu": 10, "cuda": 50}
"""Steps before each window. They use up the batches that were prepared during the other turns. The
workers of the peer prepare batches after its turn too, and become idle in this time."""
TARGETS = {"of the limit": {"cpu": 0.92, "cuda": 0.95}, "of the peer": {"cpu": 1.3, "cuda": 2.0}}
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
    parser.add_argument("--rounds", type=int, default=9, help="most turns of each")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="no turn begins later")
    parser.add_argument("--compile", action="store_true", help="measure recipe.gpu_compile too")
    options = parser.parse_args()
    if options.compile and options.device == "cpu":
        parser.error("--compile: only a training on a GPU is compiled")
    start = time.monotonic()
    setting = SimpleNamespace(**(CUDA if options.device == "cuda" else CPU))
    setting.device, setting.compile, model = options.device, options.compile, setting.model
    setting.window = options.window or setting.window
    model.type = options.backbone or model.type
    model.resize = options.side or options.size or model.resize or model.image_size
    model.image_size = options.size or model.image_size
    setting.recipe.batch_size = options.batch or setting.recipe.batch_size
    with tempfile.TemporaryDirectory() as folder:
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
        seconds = measure(setting, options.rounds, start + options.seconds)
    show(setting, options.store, seconds)


class Turns:
    """It is called at the beginning of each step. After a window, it waits for the other turns."""

    def __init__(self, pipe: Connection, setting: SimpleNamespace) -> None:
        self.pipe, self.setting, self.step, self.waited = pipe, setting, 0, 0.0

    def __call__(self) -> None:
        if self.step == WARM_UP[self.setting.device]:
            self.start = self.clocks()
        if self.step == WARM_UP[self.setting.device] + self.setting.window:
            ends = self.clocks()
            self.pipe.send([end - start for start, end in zip(self.start, ends, strict=True)])
            self.step = 0
        if not self.step:
            self.pipe.recv()
        self.step += 1

    def clocks(self) -> tuple[float, float, float]:
        """Seconds of the clock, of the processors, and of waiting for data."""
        if self.setting.device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter(), processor_seconds(), self.waited

    def timed(self, batches: Iterable[Any]) -> Iterator[Any]:
        """The batches; the time to wait for each is counted."""
        batches = iter(batches)
        while True:
            start = time.perf_counter()
            batch = next(batches, None)
            self.waited += time.perf_counter() - start
            if batch is None:
                return
            yield batch


def processor_seconds() -> float:
    """Seconds that processors worked for this process and its workers."""
    ticks = 0
    for worker in multiprocessing.active_children():
        status = Path(f"/proc/{worker.pid}/stat")
        if status.exists():
            ticks += sum(map(int, status.read_text().rpartition(")")[2].split()[11:13]))
    return time.process_time() + ticks / os.sysconf("SC_CLK_TCK")


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
    )
    store, device = SyntheticStore(setting.folder), torch.device(setting.device)
    training.train(run, store, device, setting.folder / f"state-{os.getpid()}", turn)


def compiled(setting: SimpleNamespace, turn: Turns) -> None:
    setting.recipe.gpu_compile = True
    ours(setting, turn)


def limit(setting: SimpleNamespace, turn: Turns) -> None:
    keep_freed_memory()
    recipe, device = setting.recipe, torch.device(setting.device)
    training.set_up(recipe, device)
    classes = len(SyntheticStore(setting.folder).split("train").class_names)
    model = EmbeddingModel(setting.model, recipe, setting.channels).to(device)
    loss = create_loss("proxy_anchor", classes, setting.model.dim).to(device)
    optimizer = training.create_optimizer(recipe, model, loss.param_groups(recipe.lr))
    side = setting.model.image_size
    images = torch.rand(recipe.batch_size, setting.channels, side, side, device=device)
    labels = torch.arange(recipe.batch_size, device=device) // recipe.images_per_class % classes
    while True:
        turn()
        with training.autocast(recipe, device):
            embeddings = model(images)
        value = loss(embeddings, labels)
        optimizer.zero_grad(set_to_none=True)
        value.backward()
        optimizer.step()


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


WAYS: dict[str, Callable[[SimpleNamespace, Turns], None]] = {
    "dmlbench": ours,
    "limit: one resident batch": limit,
    "peer: ImageFolder, DataLoader": peer,
    "dmlbench, compiled": compiled,
}


def take_turns(name: str, setting: SimpleNamespace, pipe: Connection) -> None:
    """Run a way in this process, until the other end of the pipe is closed."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # the lines of the training are not for the table
    try:
        WAYS[name](setting, Turns(pipe, setting))
    except EOFError:
        return


def measure(setting: SimpleNamespace, rounds: int, until: float) -> dict[str, np.ndarray]:
    """Seconds per step of each way in each round, (rounds, 3): clock, processors, waiting.

    After the monotonic time `until`, no round begins except the first.
    """
    context, pipes = multiprocessing.get_context("spawn"), {}
    names = [name for name, way in WAYS.items() if setting.compile or way is not compiled]
    windows: dict[str, list[list[float]]] = {name: [] for name in names}
    try:
        for name in names:
            pipes[name], end = context.Pipe()
            context.Process(target=take_turns, args=(name, setting, end)).start()
            end.close()
        for number in range(rounds):
            if number and time.monotonic() > until:
                break
            for name, pipe in pipes.items():
                pipe.send("your turn")
                windows[name].append(pipe.recv())
    finally:  # the processes end with their pipes, and the folder is removed after them
        for pipe in pipes.values():
            pipe.close()
        for process in multiprocessing.active_children():
            process.join()
    return {name: np.array(seconds) / setting.window for name, seconds in windows.items()}


def show(setting: SimpleNamespace, form: str, measured: dict[str, np.ndarray]) -> None:
    """Print the tables."""
    own, limit_seconds, peer_seconds, *compiled_seconds = measured.values()
    batch, device, model = setting.recipe.batch_size, setting.device, setting.model
    width, height = setting.file
    packages = ("torch", "torchvision", "timm", "pytorch-metric-learning", "numpy", "Pillow")
    on_gpu = f"bfloat16, {THREADS} threads prepare batches"
    print(
        f"{describe_machine(device, *packages)}; {model.type} at {model.image_size} of "
        f"{model.resize} pixels, {'gray' if setting.channels == 1 else 'colour'}, batches of "
        f"{batch}, Proxy Anchor, AdamW, "
        f"{on_gpu if device == 'cuda' else f'{setting.recipe.cpu_threads} thread'}; "
        f"store of {form}; files of {width} x {height}, {usable_cores()} workers of the peer's "
        f"loader; medians of {len(own)} turns of {setting.window} steps.\n"
    )
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
