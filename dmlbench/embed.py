"""`dmlbench embed`: embed the user's own images with the model of a trained run."""

from __future__ import annotations

import zipfile
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor
from tqdm import tqdm

from dmlbench.backbones.concatenated import ConcatenatedModels
from dmlbench.backbones.model import EmbeddingModel
from dmlbench.datasets import Row
from dmlbench.datasets.archives.reading import open_zip
from dmlbench.datasets.decoding import DecodedChunk, Source, decode, from_file, from_zip
from dmlbench.datasets.folder import list_files
from dmlbench.datasets.metadata import is_zip
from dmlbench.datasets.names import normalize_path
from dmlbench.datasets.store.images import unpack_image
from dmlbench.training.batches import central_boxes, crops, floats
from dmlbench.training.determinism import repeatable
from dmlbench.training.embedding import EMBED_BATCH
from dmlbench.training.execution import autocast, set_up
from dmlbench.utils.device import choose_device
from dmlbench.utils.errors import DatasetError, MissingResult
from dmlbench.utils.files import replacing
from dmlbench.utils.text import count_of, listed

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dmlbench.study.run import Run
    from dmlbench.study.study import Study

NEED_OTHER_PROGRAMS = frozenset({"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"})
"""Formats that Pillow recognizes, and decodes only with the help of other programs."""


def embed(study: Study, run: Run, places: Sequence[Path], output: Path) -> None:
    """Embed images with the model of `run`, exactly as the run embedded its test images.

    Decoding, transform and size of batches are the same.

    Args:
        places: images, and folders and zips of images. What is in them and is no image is left out;
            a line on the standard output counts it.
        output: the .npz file to write. It holds `embeddings`, float32 (n, dim); `path` (n,),
            relative to the folder or zip, or as given if a place is an image; and the `train_key`
            of the model. `embeddings:` of a study takes it, from whichever folder it was made. If
            the embeddings are compared by hyperbolic distance, the file also holds `curvature` and
            `radius`, and only `dmlbench.score` takes them.

    Raises:
        MissingResult: the run has no model, or one of other settings or code.
        DatasetError: there are no images, two have the same name, or some cannot be decoded.
            Nothing is written then.
        UserError: torch cannot compute on the GPU, or not in the precision of the run.
    """
    device = choose_device(run.recipe.gpu_precision)
    model = load_model(study, run).to(device)
    set_up(run.recipe, device)
    images = find_images(places)
    names = [name for files in images.values() for name in files]
    channels, form = run.facts["channels"], run.data.store
    chunks = decode(_sources(images), run.model.side, channels, form)
    with (
        replacing(output) as temporary,
        zipfile.ZipFile(temporary, "w") as archive,
        tqdm(total=len(names), unit=" images", disable=None) as progress,
    ):
        with archive.open("embeddings.npy", "w", force_zip64=True) as file:
            shape = len(names), run.embedding_dim
            head = {"descr": "<f4", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, head)
            for batch in _batches(chunks, channels, form):
                file.write(_embed(model, run, batch, device).tobytes())
                progress.update(len(batch))
        more = {
            "path": names,
            "train_key": run.train_key,
            **(run.ball._asdict() if run.ball else {}),
        }
        for name, values in more.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, np.array(values), allow_pickle=False)


def load_model(study: Study, run: Run) -> EmbeddingModel | ConcatenatedModels:
    """The trained model of `run`, in eval mode; several models as one."""
    files = study.files.run(run.path)
    folder = files.folder
    if not run.trains:
        raise MissingResult(f"{run.path}: this is no training, so it has no model.")
    trained = files.load_run()
    if trained["train_key"] != run.train_key:
        raise MissingResult(
            f"{folder}: this model was trained with other settings or code (`dmlbench plan STUDY "
            f"--diff` shows which), at commit {trained['provenance']['git_commit']}. `snakemake` "
            f"trains it again."
        )
    if trained["status"] != "ok":
        raise MissingResult(f"{folder}: this training failed: {trained['error']['message']}")
    train_again = f"snakemake --configfile STUDY --forcerun {files.run}"
    if not files.model.is_file():
        raise MissingResult(
            f"{files.model}: the weights were not kept. Set `keep_model: true` in the study, and "
            f"train this run again:\n"
            f"  {train_again}"
        )
    if not files.is_whole(files.model, trained):
        raise MissingResult(
            f"{files.model}: damaged: it is not the file that its training wrote. Train this run "
            f"again:\n  {train_again}"
        )
    settings = run.model.model_copy(update={"pretrained": False})  # fetch no weights
    models = [
        EmbeddingModel(settings, run.recipe, run.facts["channels"]) for _ in range(run.models)
    ]
    model = ConcatenatedModels(models) if run.models > 1 else models[0]
    model.load_state_dict(load_file(files.model))
    return model.eval()


def find_images(places: Sequence[Path]) -> dict[Path, dict[str, str]]:
    """{normalised name: file or member of the zip} of the images in each of `places`, sorted.

    Raises:
        DatasetError: a place does not exist or has no images, or a name is in two places.
    """
    images = {place: _find_in(place) for place in places}
    counts = Counter(name for files in images.values() for name in files)
    if duplicates := [name for name, count in counts.items() if count > 1]:
        verb = "is" if len(duplicates) == 1 else "are"
        title = (
            f"{count_of(len(duplicates), 'image')} {verb} in more than one place; give the folder "
            f"above them"
        )
        raise DatasetError(listed(title, duplicates))
    return images


def _find_in(place: Path) -> dict[str, str]:
    if not place.exists():
        raise DatasetError(f"{place}: there is no such image, folder or zip.")
    if not place.is_dir() and not is_zip(place):
        return {normalize_path(str(place)): str(place)}
    files = [file for file in list_files(place) if not file.endswith("/")]
    suffixes = image_suffixes()
    images: dict[str, str] = {}
    left_out: Counter[str] = Counter()
    twice = []
    for file in sorted(files):
        name = normalize_path(file)
        if kind := _no_image(place, file, suffixes):
            left_out[kind] += 1
        elif name in images:
            twice.append(name)
        else:
            images[name] = file
    if twice:
        raise DatasetError(listed(f"{place}: files whose names differ only in spelling", twice))
    kinds = ", ".join(f"{count} {kind}" for kind, count in left_out.most_common())
    summary = f"{count_of(left_out.total(), 'file')} left out: {kinds}"
    if not images:
        raise DatasetError(f"{place}: no images are in it{'; ' + summary if left_out else ''}.")
    if left_out:
        print(f"{place}: {summary}", flush=True)
    return dict(sorted(images.items()))


def image_suffixes() -> frozenset[str]:
    """The suffixes of the image files that the installed Pillow reads, in lower case.

    >>> sorted({".jfif", ".jpe", ".avif", ".txt", ".pdf"} & image_suffixes())
    ['.avif', '.jfif', '.jpe']
    """
    suffixes = Image.registered_extensions()
    readable = {"MPO", *Image.OPEN} - NEED_OTHER_PROGRAMS  # the reader of JPEG reads MPO
    return frozenset(suffix for suffix, format in suffixes.items() if format in readable)


def _no_image(place: Path, file: str, suffixes: Collection[str]) -> str:
    """What a file in `place` is, if it is no image: for the line about the files left out."""
    path = Path(file)
    if any(part.startswith((".", "__MACOSX")) for part in path.parts):
        return "hidden"
    if path.suffix.lower() not in suffixes:
        return path.suffix.lower() or "without a suffix"
    if place.is_dir() and not (place / path).is_file():
        return "links to nothing" if (place / path).is_symlink() else "that are no files"
    return ""


def _sources(images: Mapping[Path, Mapping[str, str]]) -> Iterator[tuple[Row, Source]]:
    for place, files in images.items():
        if place.is_dir():
            for name, file in files.items():
                yield _row(name, place), partial(from_file, str(place / file))
        elif is_zip(place):
            with open_zip(place) as (archive, members):
                for name, file in files.items():
                    yield _row(name, place), from_zip(archive, members[file])
        else:
            for name in files:
                yield _row(name, None), partial(from_file, str(place))


def _row(name: str, place: Path | None) -> Row:
    return Row(name, "", (), "test", origin=str(place or ""))


def _batches(
    chunks: Iterator[DecodedChunk], channels: int, form: str
) -> Iterator[list[NDArray[np.uint8]]]:
    """Lists of EMBED_BATCH images (the last one shorter), each uint8 (C, H, W)."""
    images: list[NDArray[np.uint8]] = []
    for chunk in chunks:
        content, start = np.frombuffer(chunk.content, np.uint8), 0
        for image in chunk.images:
            end = start + image.bytes
            shape = channels, image.height, image.width
            images.append(unpack_image(content[start:end], form, shape))
            start = end
        while len(images) >= EMBED_BATCH:
            yield images[:EMBED_BATCH]
            del images[:EMBED_BATCH]
    if images:
        yield images


@torch.no_grad()
@repeatable
def _embed(
    model: torch.nn.Module, run: Run, images: list[NDArray[np.uint8]], device: torch.device
) -> NDArray[np.float32]:
    """Embeddings (n, dim) of a batch, from the central square of each image."""
    side = run.model.image_size
    boxes = central_boxes(np.array([image.shape[1:] for image in images]), side)
    squares = crops(images, np.arange(len(images)), boxes, side)
    with autocast(run.recipe, device):
        embeddings: Tensor = model(floats(squares.to(device)))
        return embeddings.cpu().numpy()
