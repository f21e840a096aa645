"""A packing that was killed or failed: the next packing uses what is intact."""

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from dmlbench.datasets import Row, decoding
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


@pytest.fixture
def photographs(
    png: Callable[[np.ndarray], bytes], monkeypatch: pytest.MonkeyPatch
) -> dict[str, tuple[Row, object]]:
    """Six images of three classes, by path; no picture is like another."""
    monkeypatch.setattr(decoding, "usable_cores", lambda: 1)
    pixels = np.random.default_rng(0).integers(0, 256, (6, 8, 8), dtype=np.uint8)
    rows = [Row(f"{n}.png", "abc"[n // 2], (), "test" if n > 3 else "train") for n in range(6)]
    return {row.path: (row, png(image)) for row, image in zip(rows, pixels, strict=True)}


@pytest.fixture
def decoded_paths(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths of all images that come to a decoder, in their order."""
    paths: list[str] = []
    original = decoding._decode_chunk

    def record(chunk: list[tuple[Row, object]], *settings: object) -> decoding.DecodedChunk:
        paths.extend(row.path for row, _ in chunk)
        return original(chunk, *settings)

    monkeypatch.setattr(decoding, "_decode_chunk", record)
    return paths


def test_after_a_damaged_image_only_this_image_is_decoded_again(
    pack_images: Callable[..., Store],
    tmp_path: Path,
    photographs: dict[str, tuple[Row, object]],
    decoded_paths: list[str],
):
    whole = pack_images([*photographs.values()], 4, tmp_path / "whole")
    row, content = photographs["2.png"]
    damaged = photographs | {"2.png": (row, content[:60])}
    with pytest.raises(DatasetError) as error:
        pack_images([*damaged.values()], 4, tmp_path / "store")
    assert str(error.value).splitlines()[1].startswith("    2.png: cannot decode")
    assert str(error.value).splitlines()[2].startswith("What is decoded is kept")
    decoded_paths.clear()
    store = pack_images([*photographs.values()], 4, tmp_path / "store")
    assert decoded_paths == ["2.png"]
    # another order in images.bin: other offsets in the index, and so other digests
    order = {"files": {}, "digests": {}, "digest": ""}
    assert store.manifest | order == whole.manifest | order
    assert not (tmp_path / "store/partial").exists()


def test_images_that_changed_are_decoded_again_and_those_that_are_gone_leave_no_bytes(
    pack_images: Callable[..., Store],
    tmp_path: Path,
    photographs: dict[str, tuple[Row, object]],
    decoded_paths: list[str],
):
    wrong = {"splits": {"train": [9, 9], "test": [9, 9]}}
    with pytest.raises(DatasetError, match=r"(?s)expected 9 and 9\nWhat is decoded is kept"):
        pack_images([*photographs.values()], 4, tmp_path / "store", **wrong)
    del photographs["0.png"]
    photographs["1.png"] = (
        photographs["1.png"][0]._replace(class_name="b"),
        photographs["1.png"][1],
    )
    photographs["4.png"] = (photographs["4.png"][0], photographs["5.png"][1])
    decoded_paths.clear()
    store = pack_images([*photographs.values()], 4, tmp_path / "store")
    assert decoded_paths == ["1.png", "4.png"]
    fresh = pack_images([*photographs.values()], 4, tmp_path / "fresh")
    assert store.manifest["content"] == fresh.manifest["content"]
    assert (store.path / "images.bin").stat().st_size == 5 * 4 * 4
    assert [image.tolist() for image in store] == [image.tolist() for image in fresh]


def test_a_kill_while_unused_images_are_removed_loses_the_packing_and_packs_nothing_wrong(
    pack_images: Callable[..., Store],
    tmp_path: Path,
    photographs: dict[str, tuple[Row, object]],
    monkeypatch: pytest.MonkeyPatch,
):
    with pytest.raises(DatasetError, match="expected 9"):
        pack_images([*photographs.values()], 4, tmp_path / "store", splits={"train": [9, 9]})
    del photographs["0.png"]
    replace = Path.replace

    def killed(path: Path, target: Path) -> None:
        if path.name == "journal.new":
            raise Killed
        replace(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", killed)
        with pytest.raises(Killed):
            pack_images([*photographs.values()], 4, tmp_path / "store")
    store = pack_images([*photographs.values()], 4, tmp_path / "store")
    fresh = pack_images([*photographs.values()], 4, tmp_path / "fresh")
    assert store.manifest | {"files": {}} == fresh.manifest | {"files": {}}


def test_a_file_that_changed_is_decoded_again(
    pack_images: Callable[..., Store],
    tmp_path: Path,
    photographs: dict[str, tuple[Row, object]],
    decoded_paths: list[str],
):
    images = []
    for path, (row, content) in photographs.items():
        (tmp_path / path).write_bytes(content)
        images.append((row, partial(decoding.from_file, str(tmp_path / path))))
    with pytest.raises(DatasetError, match="expected 9"):
        pack_images(images, 4, tmp_path / "store", splits={"train": [9, 9]})
    os.utime(tmp_path / "3.png", ns=(1, 1))
    decoded_paths.clear()
    pack_images(images, 4, tmp_path / "store")
    assert decoded_paths == ["3.png"]
