"""What benchmarks stand on where there is nothing but torch, torchvision and timm, with what those
need (numpy, Pillow): a GPU machine may have no more, and no network. Everywhere else they stand on
the same, so that there is one way."""

from __future__ import annotations

import ast
import datetime
import importlib
import importlib.util
import io
import os
import platform
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, NoReturn

import numpy as np
import torch
from PIL import Image

from dmlbench import source
from dmlbench.datasets import usable_cores
from dmlbench.datasets.decoding import encoded, scaled
from dmlbench.datasets.images import Images
from dmlbench.training.provenance import processor

IMAGES_PER_CLASS, DIFFERENT = 56, 400
"""DIFFERENT: files; the others are copies, which nobody who reads them knows."""
TEST = 8
"""Images of two other classes."""


class Settings(SimpleNamespace):
    """Settings by name; in a loop pairs of name and value, as those of pydantic's models."""

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        return iter(vars(self).items())


def settings(model: str, **values: Any) -> Settings:
    """What `model` of dmlbench/settings.py is with these values: its defaults are read from its
    source, as pydantic may be missing, and nothing is checked but the names."""
    tree = ast.parse((source.PACKAGE / "settings.py").read_bytes())
    (body,) = (n.body for n in tree.body if isinstance(n, ast.ClassDef) and n.name == model)
    found: dict[str, Any] = {}
    for node in body:
        if isinstance(node, ast.AnnAssign):
            name, default = ast.unparse(node.target), node.value
            if isinstance(default, ast.Call):  # another model
                found[name] = settings(ast.unparse(default.func))
            else:
                found[name] = default and ast.literal_eval(default)
    if unknown := values.keys() - found.keys():
        raise TypeError(f"{model} has no {', '.join(sorted(unknown))}")
    return Settings(**found | values)


class Made(Images):
    """What a training asks of a store, without its tables, which need pyarrow."""

    def __init__(self, folder: Path) -> None:
        with np.load(folder / "index.npz") as table:
            self.test, self.label = table["test"], table["label"]
            packing = table["sizes"], table["offsets"], table["lengths"]
            form, channels = str(table["form"]), int(table["channels"])
        super().__init__(folder / "images.bin", form, channels, *packing)

    def split(self, name: str, class_fraction: float = 1.0) -> SimpleNamespace:
        rows = np.flatnonzero(self.test == (name == "test"))
        classes, labels = np.unique(self.label[rows], return_inverse=True)
        return SimpleNamespace(rows=rows, labels=labels, class_names=classes, parents=None)


def make(
    folder: Path,
    images: int,
    size: tuple[int, int],
    channels: int,
    side: int,
    form: str = "pixels",
    files: bool = True,
    times: int = 1,
) -> None:
    """`images` training images as a store has them, decoded from JPEG files of `size` (width,
    height), which stand in a folder a class under train/ if `files` are wanted. The index names
    each `times` times, for epochs of more steps than images would be made for."""
    with ThreadPoolExecutor(usable_cores()) as pool:
        contents = [*pool.map(lambda n: _jpeg(n, size, channels), range(DIFFERENT))]
        pictures = [*pool.map(lambda content: scaled(content, side, channels), contents)]
        packed = [*pool.map(lambda image: encoded(image, form), pictures)]
    copied = np.arange(images + TEST) % DIFFERENT
    label = np.arange(images + TEST) // IMAGES_PER_CLASS
    label[images:] = label.max() + 1 + np.arange(TEST) // (TEST // 2)
    with (folder / "images.bin").open("wb") as file:
        for number in copied:
            file.write(packed[number])
    lengths = np.array([len(content) for content in packed])[copied]
    rows = np.append(np.tile(np.arange(images), times), np.arange(images, images + TEST))
    np.savez(
        folder / "index.npz",
        test=rows >= images,
        label=label[rows],
        sizes=np.array([(image.height, image.width) for image in pictures])[copied[rows]],
        offsets=(np.cumsum(lengths) - lengths)[rows],
        lengths=lengths[rows],
        form=form,
        channels=channels,
    )
    for number in range(images if files else 0):
        path = folder / "train" / str(label[number]) / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(contents[copied[number]])


def _jpeg(seed: int, size: tuple[int, int], channels: int) -> bytes:
    """A smooth image with some noise, as large as a photograph in its file."""
    random, (width, height) = np.random.default_rng(seed), size
    coarse = Image.fromarray(random.integers(0, 256, (12, 16, 3), np.uint8))
    smooth = np.asarray(coarse.resize(size, Image.Resampling.BICUBIC)).astype(int)
    noisy = np.clip(smooth + random.normal(0, 8, (height, width, 1)), 0, 255)
    image, file = Image.fromarray(noisy.astype(np.uint8)), io.BytesIO()
    image.convert("L" if channels == 1 else "RGB").save(file, "JPEG", quality=90)
    return file.getvalue()


class Absent(ModuleType):
    """Stands for a library that others import and that nothing calls; a call says so."""

    __path__ = ()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)

        def call(*given: Any, **named: Any) -> NoReturn:
            raise ModuleNotFoundError(f"{self.__name__}.{name}: it is missing", name=self.__name__)

        return call


def stand_in(*modules: str) -> None:
    """Put an Absent in the place of those modules that are missing; a package before its parts."""
    for name in modules:
        if not there(name):
            sys.modules[name] = Absent(name)
            package, _, part = name.rpartition(".")
            if package:
                setattr(sys.modules[package], part, sys.modules[name])


def there(module: str) -> bool:
    """Whether it can be imported, and is no stand-in."""
    if module in sys.modules:
        return not isinstance(sys.modules[module], Absent)
    return importlib.util.find_spec(module) is not None


def machine(device: str, *packages: str) -> str:
    """What a table says of where it was made."""
    gpu = f"{torch.cuda.get_device_name()}, " if device.startswith("cuda") else ""
    return (
        f"{datetime.date.today()}, {gpu}{usable_cores()} cores of {processor()}, load "
        f"{os.getloadavg()[0]:.1f}, Python {platform.python_version()}, "
        + ", ".join(f"{name} {found_version(name)}" for name in packages)
    )


def found_version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        module = package.replace("-", "_")
    carried = importlib.import_module(module) if there(module) else None
    return "missing" if carried is None else carried.__version__
