"""Packing when the disk is too small, full or unreadable, or memory is short."""

import errno
import os
import shutil
import zipfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from dmlbench.datasets import decoding
from dmlbench.datasets.archives.reading import read_archive
from dmlbench.datasets.store import journal
from dmlbench.datasets.store.reader import Store
from dmlbench.utils.errors import DatasetError

from .made_images import NumberedImages, numbered_images, some_images


def test_a_disk_that_is_too_small_is_refused_before_the_packing_begins(
    pack_images: Callable[..., Store], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
):
    free = SimpleNamespace(free=110e9)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: free)
    inat = {"splits": {"train": [5690, 325846], "test": [2452, 136093]}, "channels": 3}
    with pytest.raises(DatasetError) as caught:
        pack_images(some_images(), 256, tmp_path / "store", **inat)
    text = str(caught.value)
    assert "needs about 121 GB, and 110 GB are free" in text
    assert "`store: jpeg`" in text
    assert "DMLBENCH_DATA" in text
    capsys.readouterr()
    with pytest.raises(DatasetError, match="expected 5,690"):  # it begins
        pack_images(some_images(), 256, tmp_path / "store", form="jpeg", **inat)
    assert "461,939 images will take about 30 GB; 110 GB are free" in capsys.readouterr().out
    free.free = 1e9
    with pytest.raises(DatasetError, match=r"Make room or keep data on another disk"):
        pack_images(some_images(), 256, tmp_path / "store", form="jpeg", **inat)


def test_a_disk_that_fills_up_is_named_and_finished_work_is_kept(
    pack_images: Callable[..., Store], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(journal, "COMMIT_SECONDS", 0)
    monkeypatch.setattr(decoding, "usable_cores", lambda: 1)
    add, chunks = journal.Journal.add, []

    def full(self: journal.Journal, chunk: object) -> None:
        chunks.append(chunk)
        if len(chunks) == 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        add(self, chunk)

    splits = {"train": [2, 100], "test": [2, 100]}
    with monkeypatch.context() as patch:
        patch.setattr(journal.Journal, "add", full)
        with pytest.raises(DatasetError, match=r"no space is left.*`store: jpeg`"):
            pack_images(NumberedImages(), 4, tmp_path / "store", splits=splits)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=0))
        with pytest.raises(DatasetError, match="0 GB are free"):
            pack_images(NumberedImages(), 4, tmp_path / "store", splits=splits)
    decoded: list[int] = []
    pack_images(NumberedImages(200, decoded), 4, tmp_path / "store", splits=splits)
    assert sorted(decoded) == list(range(64, 200))


def unreadable(side: int) -> Image.Image:
    raise OSError(errno.EIO, "Input/output error", "a.png")


@pytest.mark.parametrize("where", ["image", "archive"])
def test_finished_work_is_kept_if_the_disk_cannot_be_read(
    pack_images: Callable[..., Store], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
):
    monkeypatch.setattr(journal, "COMMIT_SECONDS", 0)
    monkeypatch.setattr(decoding, "usable_cores", lambda: 1)
    archive = tmp_path / "a.zip"
    with zipfile.ZipFile(archive, "w") as writer:
        writer.writestr("a.png", b"")

    class Failing(list):
        def __iter__(self):
            for number, (row, image) in enumerate(numbered_images()):
                if number == 190 and where == "archive":
                    next(read_archive(archive))
                yield row, unreadable if number == 190 else image

    with monkeypatch.context() as patch:
        patch.setattr(zipfile.ZipFile, "read", lambda *_: unreadable(0))
        with pytest.raises(DatasetError, match=r"Input/output error.* What is decoded is kept"):
            pack_images(Failing([next(numbered_images())]), 4, tmp_path / "store")
    decoded: list[int] = []
    pack_images(NumberedImages(200, decoded), 4, tmp_path / "store")
    assert sorted(decoded) == list(range(decoded[0], 200))
    assert decoded[0] > 0


@pytest.mark.parametrize("source", [os._exit, partial(np.full, 2**55)], ids=["killed", "memory"])
def test_a_process_out_of_memory_is_named_and_finished_work_is_kept(
    pack_images: Callable[..., Store],
    png: Callable[[np.ndarray], bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    source: Callable[[int], object],
):
    monkeypatch.setattr(journal, "COMMIT_SECONDS", 0)
    monkeypatch.setattr(decoding, "ProcessPoolExecutor", ProcessPoolExecutor)
    monkeypatch.setattr(decoding, "usable_cores", lambda: 1)
    images = [(row, png(np.asarray(draw(4)))) for row, draw in numbered_images()]
    with pytest.raises(
        DatasetError, match=r"memory was short.*fewer cores.* What is decoded is kept"
    ):
        pack_images([*images[:190], (images[190][0], source)], 4, tmp_path / "store")
    assert (tmp_path / "store/partial/journal").read_bytes().count(b"\n") > 1
