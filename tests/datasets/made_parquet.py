"""Parquet files with images, as the library `datasets` writes them."""

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def encode(shade: int) -> bytes:
    file = io.BytesIO()
    Image.new("L", (9, 8), shade % 256).save(file, "PNG")
    return file.getvalue()


def write_parquet(
    file: Path,
    labels: Sequence[Any],
    names: Sequence[str] | Mapping[str, str] | None = None,
    paths: Sequence[str | None] | None = None,
    images: Sequence[Any] | None = None,
    image: str = "image",
    label: str = "label",
    row_group: int = 3,
    **columns: Any,
) -> Path:
    """Write one file.

    Args:
        file: where.
        labels: of the rows.
        names: of the classes, for the metadata; None: no metadata.
        paths: of the images; None: none.
        images: structs; None: small ones, each with another shade.
        image: name of the column of images.
        label: name of the column of labels.
        row_group: rows of a group.
        columns: further columns.
    """
    if images is None:
        paths = paths or [None] * len(labels)
        images = [{"bytes": encode(k), "path": path} for k, path in enumerate(paths)]
    table = pa.table({image: pa.array(images, IMAGE), label: labels, **columns})
    if names is not None:
        features = {image: {"_type": "Image"}, label: {"names": names, "_type": "ClassLabel"}}
        note = json.dumps({"info": {"features": features}})
        table = table.replace_schema_metadata({"huggingface": note})
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, file, row_group_size=row_group)
    return file
