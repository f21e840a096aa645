"""How many images a second a training takes, side by side: the training itself on a packed store;
its limit, the same model, loss and optimiser fed one batch that stays on the device; and the peer
way, an ImageFolder with torchvision's transforms behind a DataLoader with a worker a core, timm's
model and pytorch-metric-learning's loss. Each is a process of its own; they take turns, and
medians count. Prints a Markdown table. The images are made: JPEG files, and the store of them.

    python benchmarks/training.py                  # CPU, the demo's settings, one thread
    python benchmarks/training.py --device cuda    # ResNet-50 at 224 pixels, batches of 112, bf16

On CPU the files are as large as Omniglot's, which has the demo's settings too. Needs torch,
torchvision, timm, numpy, Pillow, pyarrow, pydantic, safetensors, tqdm; without
pytorch-metric-learning the peer has our loss.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import io
import multiprocessing
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from importlib.metadata import PackageNotFoundError, version
from multiprocessing.connection import Connection
from pathlib import Path
from types import SimpleNamespace
from typing import Any

try:
    import numpy as np
    import timm
    import torch
    from PIL import Image
    from torch.utils.data import DataLoader
    from torchvision import transforms
    from torchvision.datasets import ImageFolder

    from dmlbench.backbones.model import EmbeddingModel
    from dmlbench.datasets import usable_cores
    from dmlbench.datasets.pack import pack
    from dmlbench.datasets.store import Store
    from dmlbench.losses import create_loss
    from dmlbench.settings import Backbone, Dataset, Recipe
    from dmlbench.training import train as training
    from dmlbench.training.device import keep_freed_memory
except ModuleNotFoundError as error:
    raise SystemExit(f"this machine has no {error.name}: pip install {error.name}") from None

CPU = {
    "model": Backbone(type="test_resnet", dim=128, image_size=32),
    "recipe": Recipe(
        epochs=10**6,
        batch_size=80,
        lr=3e-3,
        augmentation={"crop_scale": (0.6, 1.0), "flip": False},
    ),
    "channels": 1,
    "file": (105, 105),
    "window": 40,
}
CUDA = {
    "model": Backbone(type="resnet50", dim=512, image_size=224, resize=256),
    "recipe": Recipe(epochs=10**6),
    "channels": 3,
    "file": (500, 375),
    "window": 100,
}
IMAGES_PER_CLASS, DIFFERENT = 56, 400
"""DIFFERENT: files; the others are copies, which nobody who reads them knows."""
WARM_UP = 10
"""Steps before each window: what was prepared while others had their turn is used up."""
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
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    setting = SimpleNamespace(**(CUDA if options.device == "cuda" else CPU))
    setting.device = options.device
    setting.window = options.window or setting.window
    size = options.size or setting.model.image_size
    changes = {
        "type": options.backbone or setting.model.type,
        "image_size": size,
        "resize": options.side or (size if options.size else setting.model.resize),
    }
    setting.model = Backbone(**(setting.model.model_dump() | changes))
    if options.batch:
        setting.recipe = setting.recipe.model_copy(update={"batch_size": options.batch})
    with tempfile.TemporaryDirectory() as folder:
        setting.folder = Path(folder)
        make(setting, options.images, options.store)
        found = measure(setting, options.rounds)
    show(setting, options.store, found)


def make(setting: SimpleNamespace, images: int, form: str) -> None:
    """JPEG files in a folder a class, and the store of them."""
    random, width, height = np.random.default_rng(0), *setting.file
    contents = []
    for _ in range(min(DIFFERENT, images)):
        coarse = Image.fromarray(random.integers(0, 256, (12, 16, 3), np.uint8))
        smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC)).astype(int)
        noisy = np.clip(smooth + random.normal(0, 8, (height, width, 1)), 0, 255)
        image, file = Image.fromarray(noisy.astype(np.uint8)), io.BytesIO()
        image.convert("L" if setting.channels == 1 else "RGB").save(file, "JPEG", quality=90)
        contents.append(file.getvalue())
    lines = ["path,label,split"]
    for number in range(images + 4):  # a store has test classes too
        split = "train" if number < images else "test"
        label = number // IMAGES_PER_CLASS if split == "train" else f"test {number % 2}"
        path = f"{split}/{label}/{number}.jpg"
        (setting.folder / path).parent.mkdir(parents=True, exist_ok=True)
        (setting.folder / path).write_bytes(contents[number % len(contents)])
        lines.append(f"{path},{label},{split}")
    (setting.folder / "images.csv").write_text("\n".join(lines))
    own = {"file": str(setting.folder / "images.csv"), "channels": setting.channels}
    out = setting.folder / "store"
    with contextlib.redirect_stdout(sys.stderr):  # which leaves the table alone
        pack("csv", setting.model.side, out, setting.folder, options=own, form=form)


class Turns:
    """Called at the beginning of each step: lets the others have their turn after `window`."""

    def __init__(self, pipe: Connection, setting: SimpleNamespace) -> None:
        self.pipe, self.setting, self.step, self.waited = pipe, setting, 0, 0.0

    def __call__(self) -> None:
        if self.step == WARM_UP:
            self.start = self.clocks()
        if self.step == WARM_UP + self.setting.window:
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
    inputs = training.inputs
    training.inputs = lambda *given: turn.timed(inputs(*given))
    run = SimpleNamespace(
        **{"recipe": setting.recipe, "model": setting.model, "data": Dataset(type="csv")},
        **{"loss_type": "proxy_anchor", "loss_options": {}, "seed": 0, "train_key": "benchmark"},
    )
    store = Store(setting.folder / "store")
    training.train(run, store, torch.device(setting.device), setting.folder / "state", turn)


def limit(setting: SimpleNamespace, turn: Turns) -> None:
    keep_freed_memory()
    recipe, device = setting.recipe, torch.device(setting.device)
    training.set_up(recipe, device)
    store = Store(setting.folder / "store")
    classes = len(store.split("train").class_names)
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
        images,
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
    try:
        from pytorch_metric_learning.losses import ProxyAnchorLoss
    except ModuleNotFoundError:
        return create_loss("proxy_anchor", classes, dim)
    return ProxyAnchorLoss(classes, dim)


WAYS: dict[str, Callable[[SimpleNamespace, Turns], None]] = {
    "dmlbench": ours,
    "limit: one resident batch": limit,
    "peer: ImageFolder, DataLoader": peer,
}


def take_turns(name: str, setting: SimpleNamespace, pipe: Connection) -> None:
    """A way in a process of its own, until the other end of the pipe is closed."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # the training's lines are not the table's
    try:
        WAYS[name](setting, Turns(pipe, setting))
    except EOFError:
        return


def measure(setting: SimpleNamespace, rounds: int) -> dict[str, np.ndarray]:
    """Seconds a step of each way in each round, (rounds, 3): wall, processors, waiting."""
    context, pipes = multiprocessing.get_context("spawn"), {}
    found: dict[str, list[list[float]]] = {name: [] for name in WAYS}
    try:
        for name in WAYS:
            pipes[name], end = context.Pipe()
            context.Process(target=take_turns, args=(name, setting, end)).start()
            end.close()
        for _ in range(rounds):
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
    mine, bare, theirs = found.values()
    batch, device = setting.recipe.batch_size, setting.device
    where = torch.cuda.get_device_name() + ", " if device == "cuda" else ""
    width, height = setting.file
    packages = ("torch", "torchvision", "timm", "pytorch-metric-learning", "numpy", "Pillow")
    print(
        f"{datetime.date.today()}, {where}{usable_cores()} cores of {processor()}, load "
        f"{os.getloadavg()[0]:.1f}, Python {platform.python_version()}, "
        + ", ".join(f"{name} {found_version(name)}" for name in packages)
        + f"; {setting.model.type} at {setting.model.image_size} of {setting.model.side} pixels, "
        f"{'gray' if setting.channels == 1 else 'colour'}, batches of {batch}, Proxy Anchor, "
        f"AdamW, {'bfloat16' if device == 'cuda' else f'{setting.recipe.cpu_threads} thread'}; "
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
    for what, other in {"of the limit": bare, "of the peer": theirs}.items():
        wall, cpu = np.median(other[:, :2] / mine[:, :2], axis=0)
        bar = BARS[what][device]
        missed = "" if wall >= bar else " **missed**"
        print(f"| images/s, {what} | {wall:.3f}{missed} | {cpu:.3f} | >= {bar} |")
    if device in DATA_WAIT:
        share = np.median(mine[:, 2] / mine[:, 0])
        missed = "" if share <= DATA_WAIT[device] else " **missed**"
        print(f"| waiting for data | {share:.3f}{missed} | | <= {DATA_WAIT[device]} |")


def found_version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "missing"


def processor() -> str:
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


if __name__ == "__main__":
    main()
