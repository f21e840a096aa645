"""How fast the types for the user's own images are packed: a folder and Parquet, against a CSV.

The same JPEG files are packed from a CSV beside them, from their folders, and from Parquet files.
The types take turns within a round, so other work on the machine meets all of them. It prints a
Markdown table with the median of the ratios to the CSV within a round.

    python benchmarks/own_images.py
"""

from __future__ import annotations

import argparse
import io
import os
import platform
import resource
import tempfile
import time
from collections.abc import Mapping
from contextlib import redirect_stderr, redirect_stdout
from datetime import date
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import PIL
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from dmlbench.datasets.store.pack import pack
from dmlbench.datasets.store.reader import Store

TARGET = 1.1
"""Largest ratio of the time to that of the CSV."""
ROW_GROUP = 1000
IMAGES_PER_CLASS = 20
IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


class Cost(NamedTuple):
    """Seconds of one packing."""

    wall: float
    cpu: float
    """Of this process and of its workers."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--side", type=int, default=64, help="short side of the stores")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        types = write(folder, options.images)
        costs: dict[str, list[Cost]] = {type: [] for type in types}
        contents = {}
        for number in range(options.rounds):
            order = list(types) if number % 2 else list(reversed(types))
            for type in order:
                out = folder / "stores" / f"{type}-{number}"
                costs[type].append(measure(type, options.side, out, types[type]))
                contents[type] = Store(out).manifest["splits"]
    assert len({str(content) for content in contents.values()}) == 1
    print(
        f"{options.images:,} JPEG files of 160 x 120 pixels, store {options.side}, "
        f"{options.rounds} rounds; {platform.processor() or platform.machine()}, load "
        f"{os.getloadavg()[0]:.1f} on {os.cpu_count()} cores, Python {platform.python_version()}, "
        f"Pillow {PIL.__version__}, pyarrow {pa.__version__}, {date.today()}\n"
    )
    print(
        "| type | wall s | images/s | CPU s | ratio, wall | ratio, CPU | target |\n"
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |"
    )
    for type, measured in costs.items():
        wall, cpu = median(cost.wall for cost in measured), median(cost.cpu for cost in measured)
        ratios = [
            median(a[k] / b[k] for a, b in zip(measured, costs["csv"], strict=True)) for k in (0, 1)
        ]
        print(
            f"| {type} | {wall:.1f} | {options.images / wall:,.0f} | {cpu:.1f} "
            f"| {ratios[0]:.2f} | {ratios[1]:.2f} | {'' if type == 'csv' else TARGET} |"
        )


def write(folder: Path, images: int) -> dict[str, Mapping[str, Any]]:
    """Write the same images in three forms; the options of each type."""
    files = [jpeg(number) for number in range(100)]
    lines, rows = ["path,label,split"], []
    for number in range(images):
        label = number // IMAGES_PER_CLASS
        split = "test" if label % 2 else "train"
        path = f"{split}/{label:05}/{number:06}.jpg"
        target = folder / "images" / path
        target.parent.mkdir(parents=True, exist_ok=True)
        content = files[number % len(files)]
        target.write_bytes(content)
        lines.append(f"images/{path},{label:05},{split}")
        rows.append(({"bytes": content, "path": path}, f"{label:05}", split))
    (folder / "images.csv").write_text("\n".join(lines))
    pictures, labels, splits = zip(*rows, strict=True)
    table = pa.table(
        {"image": pa.array(pictures, IMAGE), "label": pa.array(labels), "split": pa.array(splits)}
    )
    pq.write_table(table, folder / "images.parquet", row_group_size=ROW_GROUP)
    return {
        "csv": {"file": str(folder / "images.csv")},
        "folder": {"folder": str(folder / "images")},
        "parquet": {"files": str(folder / "images.parquet")},
    }


def jpeg(number: int) -> bytes:
    """A smooth image with some noise, as cameras give."""
    random, file = np.random.default_rng(number), io.BytesIO()
    smooth = Image.fromarray(random.integers(0, 256, (6, 8, 3), np.uint8)).resize((160, 120))
    pixels = np.asarray(smooth).astype(int) + random.normal(0, 8, (120, 160, 1))
    Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(file, "JPEG", quality=90)
    return file.getvalue()


def measure(type: str, side: int, out: Path, options: Mapping[str, Any]) -> Cost:
    """Pack a store, and say what it cost."""
    began, before = time.perf_counter(), cpu_seconds()
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        pack(type, side, out, out.parent, options=options)
    return Cost(time.perf_counter() - began, cpu_seconds() - before)


def cpu_seconds() -> float:
    """CPU time of this process and of its ended children."""
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


if __name__ == "__main__":
    main()
