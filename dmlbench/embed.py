"""`dmlbench embed`: a trained run's model on images of one's own."""

from __future__ import annotations

import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from safetensors.torch import load_file
from tqdm import tqdm

from dmlbench.backbones.model import EmbeddingModel
from dmlbench.datasets import DatasetError, Row, listed
from dmlbench.datasets.archives import open_zip
from dmlbench.datasets.decoding import Decoded, Source, decode, from_file, from_zip
from dmlbench.datasets.images import unpacked
from dmlbench.datasets.metadata import is_zip
from dmlbench.files import MissingResult, read_result, replacing
from dmlbench.training.batches import central_boxes, crops, floats
from dmlbench.training.train import EMBED_BATCH, autocast, set_up

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dmlbench.run import Run
    from dmlbench.study import Study

SUFFIXES = frozenset(
    {
        *(".avif", ".bmp", ".gif", ".jp2", ".jpeg", ".jpg", ".pgm"),
        *(".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp"),
    }
)
"""Of the files that are taken from a folder or a zip."""


def embed(study: Study, run: Run, places: Sequence[Path], output: Path) -> None:
    """Write the .npz `output`: `embeddings` float32 (n, dim), `path` (n,) and the `train_key` of
    the model of `run`. Images pass what the images of its test pass: the same decoding, the same
    transform, the same batches.

    Args:
        places: images, and folders and zips of images. An image in a folder or zip is called by
            its path there, others as they are given.

    Raises:
        MissingResult: the run has no model that fits the study.
        DatasetError: there are no images, or some cannot be decoded; nothing is written then.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = _model(study, run).to(device)
    set_up(run.recipe, device)
    found = find(places)
    names = [name for inside in found.values() for name in inside]
    channels, form = run.facts["channels"], run.data.store
    chunks = decode(_sources(found), run.model.side, channels, form)
    with (
        replacing(output) as temporary,
        zipfile.ZipFile(temporary, "w") as archive,
        tqdm(total=len(names), unit=" images", disable=None) as progress,
    ):
        with archive.open("embeddings.npy", "w", force_zip64=True) as file:
            head = {"descr": "<f4", "fortran_order": False, "shape": (len(names), run.model.dim)}
            np.lib.format.write_array_header_1_0(file, head)
            for batch in _batches(chunks, channels, form):
                file.write(_embed(model, run, batch, device).tobytes())
                progress.update(len(batch))
        for name, values in {"path": np.array(names), "train_key": np.array(run.train_key)}.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, values, allow_pickle=False)


def _model(study: Study, run: Run) -> EmbeddingModel:
    """The trained model of `run`, in eval mode."""
    folder = study.folder / "runs" / run.path
    if not run.trains:
        raise MissingResult(f"{run.path}: this is no training: there is no model of it.")
    trained = read_result(folder / "run.json")
    if trained["train_key"] != run.train_key:
        raise MissingResult(
            f"{folder}: it was trained by other settings or code (`dmlbench plan STUDY --diff` "
            f"says which) under {trained['provenance']['git_commit']}. `snakemake` makes it anew."
        )
    if trained["status"] != "ok":
        raise MissingResult(f"{folder}: this training failed: {trained['error']['message']}")
    weights = folder / "model.safetensors"
    if not weights.is_file():
        raise MissingResult(
            f"{weights}: the weights were not kept. Say `keep_model: true` in the study, and have "
            f"this run trained again:\n"
            f"  snakemake --configfile STUDY --forcerun {folder}/run.json"
        )
    settings = run.model.model_copy(update={"pretrained": False})  # nothing is to be fetched
    model = EmbeddingModel(settings, run.recipe, run.facts["channels"])
    model.load_state_dict(load_file(weights))
    return model.eval()


def find(places: Sequence[Path]) -> dict[Path, list[str]]:
    """Names of the images in each of `places`, each name once.

    Raises DatasetError.
    """
    found = {place: _inside(place) for place in places}
    counts = Counter(name for names in found.values() for name in names)
    if twice := [name for name, count in counts.items() if count > 1]:
        where = "in more than one place; give the folder above them"
        raise DatasetError(listed(f"{len(twice)} images are {where}", twice))
    return found


def _inside(place: Path) -> list[str]:
    if place.is_dir():
        names = [str(file.relative_to(place)) for file in place.rglob("*") if file.is_file()]
    elif is_zip(place):
        with open_zip(place) as (_, members):
            names = [*members]
    elif place.is_file():
        return [str(place)]
    else:
        raise DatasetError(f"{place}: there is no such image, folder or zip.")
    images = [name for name in names if _is_image(Path(name))]
    if not images:
        raise DatasetError(f"{place}: no images are in it ({' '.join(sorted(SUFFIXES))}).")
    return sorted(images)


def _is_image(name: Path) -> bool:
    """By its suffix; what hides, or is macOS's beside the image, is none."""
    hidden = any(part.startswith((".", "__MACOSX")) for part in name.parts)
    return name.suffix.lower() in SUFFIXES and not hidden


def _sources(found: Mapping[Path, list[str]]) -> Iterator[tuple[Row, Source]]:
    for place, names in found.items():
        if is_zip(place):
            with open_zip(place) as (archive, members):
                for name in names:
                    yield _row(name, place), from_zip(archive, members[name])
        else:
            for name in names:
                inside = place.is_dir()
                file = place / name if inside else place
                yield _row(name, place if inside else None), partial(from_file, str(file))


def _row(name: str, place: Path | None) -> Row:
    return Row(name, "", (), "test", origin=str(place or ""))


def _batches(
    chunks: Iterator[Decoded], channels: int, form: str
) -> Iterator[list[NDArray[np.uint8]]]:
    """EMBED_BATCH images at a time, each (C, H, W)."""
    images: list[NDArray[np.uint8]] = []
    for chunk in chunks:
        content, start = np.frombuffer(chunk.content, np.uint8), 0
        for image in chunk.images:
            end = start + image.bytes
            shape = channels, image.height, image.width
            images.append(unpacked(content[start:end], form, shape))
            start = end
        while len(images) >= EMBED_BATCH:
            yield images[:EMBED_BATCH]
            del images[:EMBED_BATCH]
    if images:
        yield images


@torch.no_grad()
def _embed(
    model: EmbeddingModel, run: Run, images: list[NDArray[np.uint8]], device: torch.device
) -> NDArray[np.float32]:
    side = run.model.image_size
    boxes = central_boxes(np.array([image.shape[1:] for image in images]), side)
    squares = crops(images, np.arange(len(images)), boxes, side)
    with autocast(run.recipe, device):
        return model(floats(squares.to(device))).float().cpu().numpy()
