"""A packing that was killed: the next packing uses what is intact."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from dmlbench.datasets import decoding
from dmlbench.datasets.store import journal
from dmlbench.datasets.store.reader import Store
from dmlbench.utils.errors import DatasetError

from .made_images import Killed, NumberedImages, numbered_images


def cut_journal(folder: Path) -> None:
    os.truncate(folder / "journal", (folder / "journal").stat().st_size - 5)


def garble_journal(folder: Path) -> None:
    content = (folder / "journal").read_bytes()
    start = content.rindex(b"class 2")
    (folder / "journal").write_bytes(content[:start] + b"class 3" + content[start + 7 :])


def cut_images(folder: Path) -> None:
    os.truncate(folder / "images.bin", (folder / "images.bin").stat().st_size - 5)


def add_to_images(folder: Path) -> None:
    with (folder / "images.bin").open("ab") as file:
        file.write(b"x" * 999)


def empty_journal(folder: Path) -> None:
    (folder / "journal").write_bytes(b"")


def no_images(folder: Path) -> None:
    (folder / "images.bin").unlink()


@pytest.mark.parametrize("form", ["pixels", "jpeg"])
@pytest.mark.parametrize(
    ("damage", "kept"),
    [
        (lambda folder: None, 96),
        (cut_journal, 64),
        (garble_journal, 64),
        (cut_images, 64),
        (add_to_images, 96),
        (empty_journal, 0),
        (no_images, 0),
    ],
)
def test_the_intact_part_of_a_killed_packing_is_used(
    pack_images: Callable[..., Store],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    damage: Callable[[Path], None],
    kept: int,
    form: str,
):
    monkeypatch.setattr(journal, "COMMIT_SECONDS", 0)
    monkeypatch.setattr(decoding, "usable_cores", lambda: 1)  # chunks arrive one by one
    reference = pack_images(NumberedImages(), 4, tmp_path / "whole", form=form)
    with pytest.raises(Killed):
        pack_images(NumberedImages(190), 4, tmp_path / "store", form=form)
    partial = tmp_path / "store" / "partial"
    damage(partial)
    decoded: list[int] = []
    store = pack_images(NumberedImages(200, decoded), 4, tmp_path / "store", form=form)
    assert sorted(decoded) == list(range(kept, 200))
    for name in ("images.bin", "index.parquet", "protocols.parquet"):
        assert (store.path / name).read_bytes() == (reference.path / name).read_bytes()
    assert store.manifest == reference.manifest
    assert not partial.exists()


def test_the_work_of_a_different_packing_is_dropped(
    pack_images: Callable[..., Store], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(journal, "COMMIT_SECONDS", 0)
    with pytest.raises(Killed):
        pack_images(NumberedImages(190), 4, tmp_path / "store")
    decoded: list[int] = []
    pack_images(NumberedImages(200, decoded), 2, tmp_path / "store")
    assert sorted(decoded) == list(range(200))


def test_a_duplicate_image_is_also_found_after_a_kill(
    pack_images: Callable[..., Store], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(journal, "COMMIT_SECONDS", 0)
    with pytest.raises(Killed):
        pack_images(NumberedImages(190), 4, tmp_path / "store")
    assert (tmp_path / "store/partial/journal").stat().st_size > 1000
    duplicated = [*numbered_images(), next(numbered_images())]
    with pytest.raises(DatasetError, match="found twice: 000"):
        pack_images(duplicated, 4, tmp_path / "store")
