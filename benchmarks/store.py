"""How fast images come from a packed store, and from JPEG files as most loaders read them.

Both use one core, and have the same output size. It prints a Markdown table of two comparisons:

- random crops: of files, PIL decodes, resizes the short side and crops; of a store, read and crop;
- random resized crops, as a training draws them: of files, PIL decodes, crops, resizes and flips;
  of a store, what the training itself does on a CPU.

    python benchmarks/store.py                       # synthetic JPEG files of 500 x 375 pixels
    python benchmarks/store.py grocery.zip --side 128 --size 112
"""

from __future__ import annotations

import argparse
import io
import os
import platform
import tempfile
import time
import zipfile
from collections.abc import Callable
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import torch
from PIL import Image

from dmlbench.datasets.store.pack import pack
from dmlbench.datasets.store.reader import Store
from dmlbench.study.settings import Augmentation
from dmlbench.training.batches import crops, draw, floats, random_boxes

BATCH = 112
BILINEAR = Image.Resampling.BILINEAR
Way = Callable[[np.ndarray, int], Any]
"""Rows and a seed -> a batch."""
TARGET = 8
"""Least factor of random crops from a store of pixels."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument(
        "zip", type=Path, nargs="?", help="with JPEG files; default: synthetic ones"
    )
    parser.add_argument("--side", type=int, default=256, help="short side of the store")
    parser.add_argument("--size", type=int, default=224, help="side of the crops")
    parser.add_argument("--images", type=int, default=1008)
    parser.add_argument("--rounds", type=int, default=5, help="the median counts")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if hasattr(os, "sched_setaffinity"):
        core = min(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as folder:
        files = read(options.zip, options.images) if options.zip else synthetic(options.images)
        stores = write(files, options.side, Path(folder))
        if hasattr(os, "sched_setaffinity"):  # after the packing, which uses all cores
            os.sched_setaffinity(0, {core})
        arguments = {"side": options.side, "size": options.size}
        ways: dict[str, dict[str, Way]] = {
            "random crops": {
                "JPEG files, PIL": partial(crops_of_files, files, **arguments),
                "store: pixels": partial(crops_of_store, stores["pixels"], size=options.size),
                "store: jpeg": partial(crops_of_store, stores["jpeg"], size=options.size),
            },
            "random resized crops": {
                "JPEG files, PIL": partial(resized_of_files, files, size=options.size),
                "store: pixels": partial(resized_of_store, stores["pixels"], size=options.size),
                "store: jpeg": partial(resized_of_store, stores["jpeg"], size=options.size),
            },
        }
        rates = {
            (output, name): rate(way, len(files), options.rounds)
            for output, sources in ways.items()
            for name, way in sources.items()
        }
        sizes = {"JPEG files, PIL": sum(map(len, files))}
        for form, store in stores.items():
            sizes[f"store: {form}"] = sum(store.manifest["files"].values())
    width, height = Image.open(io.BytesIO(files[0])).size
    print(
        f"{len(files)} images (the first {width} x {height}), store {options.side}, crops "
        f"{options.size}, batch {BATCH}, one core; {platform.processor() or platform.machine()}, "
        f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores, Python "
        f"{platform.python_version()}, Pillow {PIL.__version__}, torch {torch.__version__}, "
        f"numpy {np.__version__}, {date.today()}\n"
    )
    print(
        "|  | from | images/s | factor | target | MB |\n| --- | --- | ---: | ---: | ---: | ---: |"
    )
    for (output, name), images_per_second in rates.items():
        factor = images_per_second / rates[output, "JPEG files, PIL"]
        target = f"{TARGET}x" if (output, name) == ("random crops", "store: pixels") else ""
        print(
            f"| {output} | {name} | {images_per_second:,.0f} | {factor:.1f}x | {target} "
            f"| {sizes[name] / 1e6:.1f} |"
        )


def synthetic(images: int) -> list[bytes]:
    """JPEG files like those of cameras: smooth with some noise, 500 x 375 pixels, quality 90."""
    random, files = np.random.default_rng(0), []
    for _ in range(images):
        coarse = Image.fromarray(random.integers(0, 256, (12, 16, 3), np.uint8))
        smooth = np.asarray(coarse.resize((500, 375), Image.Resampling.BICUBIC)).astype(int)
        noisy = np.clip(smooth + random.normal(0, 8, (375, 500, 1)), 0, 255).astype(np.uint8)
        files.append(encoded(Image.fromarray(noisy), 90))
    return files


def read(path: Path, images: int) -> list[bytes]:
    """About `images` of the JPEG files in the zip `path`."""
    with zipfile.ZipFile(path) as archive:
        names = sorted(n for n in archive.namelist() if n.lower().endswith((".jpg", ".jpeg")))
        chosen = names[:: max(1, len(names) // images)][:images]
        return [archive.read(name) for name in chosen]


def encoded(image: Image.Image, quality: int) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return file.getvalue()


def write(files: list[bytes], side: int, folder: Path) -> dict[str, Store]:
    """Write the stores of both forms."""
    lines = ["path,label,split"]
    for number, content in enumerate(files):
        (folder / f"{number:06}.jpg").write_bytes(content)
        label = number // 2 % (len(files) // 2)
        lines.append(f"{number:06}.jpg,{label},{'test' if label % 2 else 'train'}")
    (folder / "images.csv").write_text("\n".join(lines))
    stores = {}
    for form in ("pixels", "jpeg"):
        out, options = folder / form, {"file": str(folder / "images.csv")}
        pack("csv", side, out, folder, options=options, form=form)
        stores[form] = Store(out)
    return stores


def crops_of_files(
    files: list[bytes], rows: np.ndarray, seed: int, side: int, size: int
) -> np.ndarray:
    """(B, 3, size, size) uint8."""
    random, batch = np.random.default_rng(seed), np.empty((len(rows), 3, size, size), np.uint8)
    for target, row in zip(batch, rows, strict=True):
        image = Image.open(io.BytesIO(files[row])).convert("RGB")
        scale = side / min(image.size)
        image = image.resize([round(length * scale) for length in image.size], BILINEAR)
        left, top = (int(random.random() * (length - size + 1)) for length in image.size)
        cropped = image.crop((left, top, left + size, top + size))
        target[:] = np.asarray(cropped).transpose(2, 0, 1)
    return batch


def crops_of_store(store: Store, rows: np.ndarray, seed: int, size: int) -> np.ndarray:
    """(B, 3, size, size) uint8."""
    random, batch = np.random.default_rng(seed), np.empty((len(rows), 3, size, size), np.uint8)
    corners = (random.random((len(rows), 2)) * (store.sizes[rows] - size + 1)).astype(int)
    for target, row, (top, left) in zip(batch, rows, corners, strict=True):
        target[:] = store[row][:, top : top + size, left : left + size]
    return batch


def resized_of_files(files: list[bytes], rows: np.ndarray, seed: int, size: int) -> torch.Tensor:
    """(B, 3, size, size) float in [0, 1]."""
    augmentation = Augmentation()
    random, batch = np.random.default_rng(seed), np.empty((len(rows), size, size, 3), np.uint8)
    for target, row in zip(batch, rows, strict=True):
        image = Image.open(io.BytesIO(files[row])).convert("RGB")
        ((top, left, height, width),) = random_boxes(
            np.array([image.size[::-1]]), augmentation.crop_scale, augmentation.crop_ratio, random
        )
        image = image.resize((size, size), BILINEAR, (left, top, left + width, top + height))
        pixels = np.asarray(image)
        target[:] = pixels[:, ::-1] if random.random() < 0.5 else pixels
    return torch.from_numpy(batch).permute(0, 3, 1, 2).float().div_(255)


def resized_of_store(store: Store, rows: np.ndarray, seed: int, size: int) -> torch.Tensor:
    """(B, 3, size, size) float in [0, 1]."""
    boxes, drawn = draw(store.sizes[rows], Augmentation(), np.random.default_rng(seed))
    return floats(crops(store, rows, boxes, size), **drawn)


def rate(way: Way, images: int, rounds: int) -> float:
    """Images per second of the CPU time of this process; the median of the rounds.

    By CPU time, other work on the machine counts less.
    """
    rates = []
    for seed in range(rounds + 1):  # the first one warms up
        order = np.random.default_rng(seed).permutation(images)
        batches = order[: len(order) // BATCH * BATCH].reshape(-1, BATCH)
        began = time.process_time()
        for number, rows in enumerate(batches):
            way(rows, 1000 * seed + number)
        rates.append(batches.size / (time.process_time() - began))
    return float(np.median(rates[1:]))


if __name__ == "__main__":
    main()
