"""What the benchmarks share: synthetic images, settings without pydantic, and missing libraries.

It needs only torch, torchvision and timm, with what those need (numpy, Pillow): a GPU machine may
have no more, and no network. On every other machine the benchmarks use the same code, so that there
is one way.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import datetime
import importlib
import importlib.util
import io
import os
import platform
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, NoReturn

import numpy as np
import torch
from PIL import Image

from dmlbench.datasets.decoding import load_scaled, pack_image
from dmlbench.datasets.store.images import Images
from dmlbench.training.provenance import processor
from dmlbench.utils.cores import usable_cores
from dmlbench.utils.gpu_lease import lease_gpu
from dmlbench.utils.modules import PACKAGE

IMAGES_PER_CLASS = 56
DISTINCT_IMAGES = 400
"""All other images are copies of these; no reader notices."""
TEST_IMAGES = 8
"""They are of two other classes."""
Check = Callable[[torch.device, Path], str]
"""It takes a device and an empty folder, and returns its last line."""


class Settings(SimpleNamespace):
    """Settings by name. A loop over them gives pairs of name and value, as in pydantic's models."""

    part = None
    """Of a data set: a SyntheticStore has only whole splits."""

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        return iter(vars(self).items())


def settings(model: str, **values: Any) -> Settings:
    """The `model` of a study's settings with these values.

    The defaults are read from the source, because pydantic may be missing. Only the names of the
    values are checked.

    Raises:
        TypeError: the model has no such setting.
    """
    files = [PACKAGE / "study" / name for name in ("settings.py", "backbone_settings.py")]
    nodes = [node for file in files for node in ast.parse(file.read_bytes()).body]
    (body,) = (n.body for n in nodes if isinstance(n, ast.ClassDef) and n.name == model)
    defaults: dict[str, Any] = {}
    for node in body:
        if isinstance(node, ast.AnnAssign):
            name, default = ast.unparse(node.target), node.value
            if isinstance(default, ast.Call):  # another model
                defaults[name] = settings(ast.unparse(default.func))
            else:
                defaults[name] = default and ast.literal_eval(default)
    if unknown := values.keys() - defaults.keys():
        raise TypeError(f"{model} has no {', '.join(sorted(unknown))}")
    return Settings(**defaults | values)


class SyntheticStore(Images):
    """The store that `make_store` writes. It has no tables, which would need pyarrow."""

    def __init__(self, folder: Path) -> None:
        with np.load(folder / "index.npz", allow_pickle=False) as table:
            self.test, self.label = table["test"], table["label"]
            packing = table["sizes"], table["offsets"], table["lengths"]
            form, channels = str(table["form"]), int(table["channels"])
        super().__init__(folder / "images.bin", form, channels, *packing)

    def split(self, name: str, part: None = None) -> SimpleNamespace:
        """The images and classes of the split "train" or "test"; every class, always."""
        rows = np.flatnonzero(self.test == (name == "test"))
        classes, labels = np.unique(self.label[rows], return_inverse=True)
        return SimpleNamespace(rows=rows, labels=labels, class_names=classes, parents=None)


def make_store(
    folder: Path,
    images: int,
    size: tuple[int, int],
    channels: int,
    side: int,
    *,
    form: str = "pixels",
    with_files: bool = True,
    repeat: int = 1,
    per_class: int = IMAGES_PER_CLASS,
) -> None:
    """Write a store of synthetic images, decoded from JPEG files.

    Args:
        images: training images.
        size: width and height of the files.
        side: short side of the images in the store.
        form: "pixels" or "jpeg", how the store keeps them.
        with_files: write the files of the training images too, into a folder per class in train/.
        repeat: how often the index names each training image, so that an epoch has more steps
            than there are images for.
        per_class: training images of a class.
    """
    distinct = min(DISTINCT_IMAGES, images + TEST_IMAGES)
    with ThreadPoolExecutor(usable_cores()) as pool:
        contents = [*pool.map(lambda n: _jpeg(n, size, channels), range(distinct))]
        pictures = [*pool.map(lambda content: load_scaled(content, side, channels), contents)]
        packed = [*pool.map(lambda image: pack_image(image, form), pictures)]
    source = np.arange(images + TEST_IMAGES) % distinct
    label = np.arange(images + TEST_IMAGES) // per_class
    label[images:] = label.max() + 1 + np.arange(TEST_IMAGES) // (TEST_IMAGES // 2)
    with (folder / "images.bin").open("wb") as file:
        for number in source:
            file.write(packed[number])
    lengths = np.array([len(content) for content in packed])[source]
    rows = np.append(np.tile(np.arange(images), repeat), np.arange(images, images + TEST_IMAGES))
    np.savez(
        folder / "index.npz",
        test=rows >= images,
        label=label[rows],
        sizes=np.array([(image.height, image.width) for image in pictures])[source[rows]],
        offsets=(np.cumsum(lengths) - lengths)[rows],
        lengths=lengths[rows],
        form=form,
        channels=channels,
    )
    for number in range(images if with_files else 0):
        path = folder / "train" / str(label[number]) / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(contents[source[number]])


def _jpeg(seed: int, size: tuple[int, int], channels: int) -> bytes:
    """A smooth image with some noise; its file is as large as that of a photograph."""
    random, (width, height) = np.random.default_rng(seed), size
    coarse = Image.fromarray(random.integers(0, 256, (12, 16, 3), np.uint8))
    smooth = np.asarray(coarse.resize(size, Image.Resampling.BICUBIC)).astype(int)
    noisy = np.clip(smooth + random.normal(0, 8, (height, width, 1)), 0, 255)
    image, file = Image.fromarray(noisy.astype(np.uint8)), io.BytesIO()
    image.convert("L" if channels == 1 else "RGB").save(file, "JPEG", quality=90)
    return file.getvalue()


class MissingModule(ModuleType):
    """A library that others import and nothing calls. A call raises ModuleNotFoundError."""

    __path__ = ()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)

        def call(*_: Any, **options: Any) -> NoReturn:
            raise ModuleNotFoundError(f"{self.__name__}.{name}: it is missing", name=self.__name__)

        return call


def replace_missing(*modules: str) -> None:
    """Put a MissingModule in place of each of `modules` that is missing; packages come first."""
    for name in modules:
        if not is_installed(name):
            sys.modules[name] = MissingModule(name)
            package, _, part = name.rpartition(".")
            if package:
                setattr(sys.modules[package], part, sys.modules[name])


def is_installed(module: str) -> bool:
    """Whether `module` can be imported, and is not a MissingModule."""
    if module in sys.modules:
        return not isinstance(sys.modules[module], MissingModule)
    return importlib.util.find_spec(module) is not None


def describe_machine(device: str, *packages: str) -> str:
    """Date, device, load and versions, for the head of a table."""
    gpu = f"{torch.cuda.get_device_name()}, " if device.startswith("cuda") else ""
    return (
        f"{datetime.date.today()}, {gpu}{usable_cores()} cores of {processor()}, load "
        f"{os.getloadavg()[0]:.1f}, Python {platform.python_version()}, "
        + ", ".join(f"{name} {package_version(name)}" for name in packages)
    )


def package_version(package: str) -> str:
    """The version of `package`; "missing" if it cannot be imported."""
    try:
        return version(package)
    except PackageNotFoundError:
        name = package.replace("-", "_")
    # a folder on PYTHONPATH has no metadata
    return importlib.import_module(name).__version__ if is_installed(name) else "missing"


def hold_gpu(device: str) -> contextlib.AbstractContextManager[object]:
    """Hold a lease of one GPU, if `device` is one. Call it before torch uses the GPU."""
    return lease_gpu() if device == "cuda" else contextlib.nullcontext()


def run_checks(checks: Sequence[Check], description: str) -> None:
    """The command of a script of checks: `SCRIPT CHECK ... [--device cpu]`.

    A check prints its lines and returns one more, which is the remark of a summary. One that fails
    does not stop the next.

    Raises:
        SystemExit: a check failed; it says which, and why.
    """
    by_name = {check.__name__: check for check in checks}
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("check", choices=by_name, nargs="+")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda")
    options = parser.parse_args()
    failures = []
    for name in options.check:
        try:
            with hold_gpu(options.device), tempfile.TemporaryDirectory() as folder:
                remark = by_name[name](torch.device(options.device), Path(folder))
                print(f"\n{remark}", flush=True)  # it is no row of the table before it
        except Exception as error:
            traceback.print_exc()
            failures.append(f"{name}: {type(error).__name__}: {error}")
    if failures:
        raise SystemExit("; ".join(failures))
