"""How many images a second a training takes, side by side: the training itself on a packed store;
its limit, the same model, loss and optimiser fed one batch that stays on the device; and the peer
way, an ImageFolder with torchvision's transforms behind a DataLoader with a worker a core, timm's
model and pytorch-metric-learning's loss. Each is a process of its own; they take turns, and
medians count. Prints a Markdown table. The images are made: JPEG files, and the store of them.

    python benchmarks/training.py                  # CPU, the demo's settings, one thread
    python benchmarks/training.py --device cuda    # ResNet-50 at 224 pixels, batches of 112, bf16
    python benchmarks/training.py --device cuda --compile    # beside it, recipe.gpu_compile

On CPU the files are as large as Omniglot's, which has the demo's settings too. Needs torch,
torchvision, timm and what those need, and where dmlbench is not installed PYTHONPATH=. before it.
pytorch-metric-learning may be carried along as a folder, by PYTHONPATH too; without it the peer has
our loss.
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
    from bare import Made, machine, make, settings, stand_in, there
    from torch.utils.data import ConcatDataset, DataLoader
    from torchvision import transforms
    from torchvision.datasets import ImageFolder

    from dmlbench.backbones.model import EmbeddingModel
    from dmlbench.datasets import usable_cores
    from dmlbench.losses import create_loss
    from dmlbench.training import ahead
    from dmlbench.training import train as training
    from dmlbench.training.process import keep_freed_memory
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
    "times": 1,  # 56 steps an epoch, as many as the demo's
    "window": 40,
}
CUDA = {
    "model": settings("Backbone", type="resnet50", dim=512, image_size=224, resize=256),
    "recipe": settings("Recipe", epochs=10**6),
    "channels": 3,
    "file": (500, 375),
    "times": 10,  # 400 steps an epoch; Stanford Online Products has 531
    "window": 100,
}
THREADS = 4
"""That prepare batches for a GPU: as the bar has it, where a training takes up to 8."""
WARM_UP = {"cpu": 10, "cuda": 50}
"""Steps before each window: what was prepared while others had their turn is used up, and the
peer's workers are at rest, who after its turn prepare what it will ask for next."""
BARS = {"of the limit": {"cpu": 0.92, "cuda": 0.95}, "of the peer": {"cpu": 1.3, "cuda": 2.0}}
DATA_WAIT = {"cuda": 0.02}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--backbone", help="any of timm")
    parser.add_argument("--batch", type=int)
    parser.add_argument("--size", type=int, help="of the crops, in pixels")
    parser.add_argument("--side", type=int, help="short side of the store")
    parser.add_argument("--images", type=int, default=4480)
    parser.add_argument("--store", choices=["pixels", "jpeg"], default="pixels")
    parser.add_argument("--window", type=int, help="steps of a turn")
    parser.add_argument("--rounds", type=int, default=9, help="turns of each, at most")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="no turn begins later")
    parser.add_argument("--compile", action="store_true", help="beside it, recipe.gpu_compile")
    options = parser.parse_args()
    if options.compile and options.device == "cpu":
        parser.error("--compile: only what runs on a GPU is compiled")
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
        make(
            *(setting.folder, options.images, setting.file, setting.channels, model.resize),
            form=options.store,
            times=setting.times,
        )
        found = measure(setting, options.rounds, start + options.seconds)
    show(setting, options.store, found)


class Turns:
    """Called at the beginning of each step: lets the others have their turn after `window`."""

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
        """Seconds by the wall, of processors, and waiting for data."""
        if self.setting.device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter(), processors(), self.waited

    def timed(self, batches: Iterable[Any]) -> Iterator[Any]:
        batches = iter(batches)
        while True:
            start = time.perf_counter()
            batch = next(batches, None)
            self.waited += time.perf_counter() - start
            if batch is None:
                return
            yield batch


def processors() -> float:
    """Seconds of this process and of its workers."""
    ticks = 0
    for worker in multiprocessing.active_children():
        status = Path(f"/proc/{worker.pid}/stat")
        if status.exists():
            ticks += sum(map(int, status.read_text().rpartition(")")[2].split()[11:13]))
    return time.process_time() + ticks / os.sysconf("SC_CLK_TCK")


def ours(setting: SimpleNamespace, turn: Turns) -> None:
    keep_freed_memory()
    ahead.THREADS = THREADS
    inputs = training.inputs
    training.inputs = lambda *given: turn.timed(inputs(*given))
    run = SimpleNamespace(
        **{"recipe": setting.recipe, "model": setting.model, "data": settings("Dataset")},
        **{"loss_type": "proxy_anchor", "loss_options": {}, "seed": 0, "train_key": "benchmark"},
    )
    store, device = Made(setting.folder), torch.device(setting.device)
    training.train(run, store, device, setting.folder / f"state-{os.getpid()}", turn)


def compiled(setting: SimpleNamespace, turn: Turns) -> None:
    setting.recipe.gpu_compile = True
    ours(setting, turn)


def limit(setting: SimpleNamespace, turn: Turns) -> None:
    keep_freed_memory()
    recipe, device = setting.recipe, torch.device(setting.device)
    training.set_up(recipe, device)
    classes = len(Made(setting.folder).split("train").class_names)
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
    recipe, how, device = setting.recipe, setting.recipe.augmentation, torch.device(setting.device)
    if setting.device == "cpu":
        torch.set_num_threads(recipe.cpu_threads)
    gray = setting.channels == 1
    transform = transforms.Compose(
        [
            *([transforms.Grayscale()] if gray else []),
            transforms.RandomResizedCrop(setting.model.image_size, how.crop_scale, how.crop_ratio),
            *([transforms.RandomHorizontalFlip()] if how.flip else []),
            transforms.ToTensor(),
            transforms.Normalize([0.5] * setting.channels, [0.5] * setting.channels),
        ]
    )
    images = ImageFolder(str(setting.folder / "train"), transform)
    loader = DataLoader(
        ConcatDataset([images] * setting.times),
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
        for inputs, labels in turn.timed(loader):
            turn()
            inputs = inputs.to(device, non_blocking=True)
            labels = labels.to(device, non_blocking=True)
            with training.autocast(recipe, device):
                embeddings = model(inputs)
            value = loss(embeddings.float(), labels)
            optimizer.zero_grad()
            value.backward()
            optimizer.step()


def peer_loss(classes: int, dim: int) -> torch.nn.Module:
    if not there("pytorch_metric_learning"):
        return create_loss("proxy_anchor", classes, dim)
    stand_in("scipy", "scipy.stats", "scipy.special")  # for other losses of it
    from pytorch_metric_learning.losses import ProxyAnchorLoss

    return ProxyAnchorLoss(classes, dim)


WAYS: dict[str, Callable[[SimpleNamespace, Turns], None]] = {
    "dmlbench": ours,
    "limit: one resident batch": limit,
    "peer: ImageFolder, DataLoader": peer,
    "dmlbench, compiled": compiled,
}


def take_turns(name: str, setting: SimpleNamespace, pipe: Connection) -> None:
    """A way in a process of its own, until the other end of the pipe is closed."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # the training's lines are not the table's
    try:
        WAYS[name](setting, Turns(pipe, setting))
    except EOFError:
        return


def measure(setting: SimpleNamespace, rounds: int, until: float) -> dict[str, np.ndarray]:
    """Seconds a step of each way in each round, (rounds, 3): wall, processors, waiting. After the
    monotonic time `until` no round begins but the first."""
    context, pipes = multiprocessing.get_context("spawn"), {}
    names = [name for name, way in WAYS.items() if setting.compile or way is not compiled]
    found: dict[str, list[list[float]]] = {name: [] for name in names}
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
                found[name].append(pipe.recv())
    finally:  # the processes end with their pipes, and the folder is removed after them
        for pipe in pipes.values():
            pipe.close()
        for process in multiprocessing.active_children():
            process.join()
    return {name: np.array(seconds) / setting.window for name, seconds in found.items()}


def show(setting: SimpleNamespace, form: str, found: dict[str, np.ndarray]) -> None:
    mine, bare, theirs, *other = found.values()
    batch, device, model = setting.recipe.batch_size, setting.device, setting.model
    width, height = setting.file
    packages = ("torch", "torchvision", "timm", "pytorch-metric-learning", "numpy", "Pillow")
    how = f"bfloat16, {THREADS} threads prepare batches"
    print(
        f"{machine(device, *packages)}; {model.type} at {model.image_size} of {model.resize} "
        f"pixels, {'gray' if setting.channels == 1 else 'colour'}, batches of {batch}, Proxy "
        f"Anchor, AdamW, {how if device == 'cuda' else f'{setting.recipe.cpu_threads} thread'}; "
        f"store of {form}; files of {width} x {height}, {usable_cores()} workers of the peer's "
        f"loader; medians of {len(mine)} turns of {setting.window} steps.\n"
    )
    print("|  | images/s | ms a step | CPU ms a step, workers too | waiting for data |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for name, seconds in found.items():
        wall, cpu, _ = np.median(seconds, axis=0) * 1e3
        share = np.median(seconds[:, 2] / seconds[:, 0])
        waits = "" if seconds is bare else f"{share:.1%}"
        print(f"| {name} | {1e3 * batch / wall:,.0f} | {wall:.1f} | {cpu:.1f} | {waits} |")
    print("\n| dmlbench | ratio, median of the turns | by CPU time | asked for |")
    print("| --- | ---: | ---: | ---: |")
    for what, seconds in {"of the limit": bare, "of the peer": theirs}.items():
        wall, cpu = np.median(seconds[:, :2] / mine[:, :2], axis=0)
        bar = BARS[what][device]
        missed = "" if wall >= bar else " **missed**"
        print(f"| images/s, {what} | {wall:.3f}{missed} | {cpu:.3f} | >= {bar} |")
    for seconds in other:
        wall, cpu = np.median(mine[:, :2] / seconds[:, :2], axis=0)
        print(f"| images/s, compiled, of not compiled | {wall:.3f} | {cpu:.3f} | |")
    if device in DATA_WAIT:
        share = np.median(mine[:, 2] / mine[:, 0])
        missed = "" if share <= DATA_WAIT[device] else " **missed**"
        print(f"| waiting for data | {share:.3f}{missed} | | <= {DATA_WAIT[device]} |")


if __name__ == "__main__":
    main()
