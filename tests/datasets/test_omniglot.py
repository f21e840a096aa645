import hashlib
import io
import random
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from dmlbench.datasets import omniglot
from dmlbench.datasets.store.pack import pack
from dmlbench.datasets.store.reader import Store
from dmlbench.utils.errors import DatasetError

REAL = Path(__file__).parents[2].parent / "shared" / "data" / "omniglot"
REAL_CHECKSUMS = {  # of archives with the official images, but other bytes
    "images_background.zip": "md5:1c74c59a0f2f53fa5ec046c0d11a45ec",
    "images_evaluation.zip": "md5:847c35a95dba8d9f1465e6c3b1d6c1a2",
}


@pytest.fixture
def small_omniglot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A small Omniglot in its real layout: 2 alphabets train, 1 tests, 3 characters, 4 drawings."""
    monkeypatch.setattr(omniglot, "DRAWINGS", 4)
    monkeypatch.setitem(omniglot.FACTS, "splits", {"train": [6, 24], "test": [3, 12]})
    rng = np.random.default_rng(0)
    alphabets = {"background": ["Greek", "Angelic_(old)"], "evaluation": ["Tibetan"]}
    members: dict[str, dict[str, bytes]] = {}
    for half, names in alphabets.items():
        files = members[f"images_{half}.zip"] = {}
        for alphabet in names:
            for character in range(1, 4):
                for drawing in range(1, 5):
                    pixels = rng.integers(0, 2, (105, 105)).astype(bool)
                    file = io.BytesIO()
                    Image.fromarray(pixels).save(file, "PNG")
                    path = f"images_{half}/{alphabet}/character{character:02}/00{character}"
                    files[f"{path}_{drawing:02}.png"] = file.getvalue()
    folder = tmp_path / "archives"
    folder.mkdir()

    def write(seed: int = 0) -> dict[str, str]:
        """Write the archives with their members shuffled by `seed`; return the checksums."""
        checksums = {}
        for name, files in members.items():
            with zipfile.ZipFile(folder / name, "w") as archive:
                shuffled = list(files)
                random.Random(seed).shuffle(shuffled)
                for path in shuffled:
                    archive.writestr(path, files[path])
                    macos, _, leaf = path.rpartition("/")
                    archive.writestr(f"__MACOSX/{macos}/._{leaf}", b"resource fork")
                archive.writestr("images/._odd.png", b"resource fork")
            digest = hashlib.md5((folder / name).read_bytes()).hexdigest()
            checksums[name] = f"md5:{digest}"
        return checksums

    return SimpleNamespace(members=members, folder=folder, write=write)


def test_alphabets_characters_and_drawings_become_levels_classes_and_images(
    small_omniglot: SimpleNamespace, tmp_path: Path
):
    pack("omniglot", 105, tmp_path / "store", small_omniglot.folder, small_omniglot.write())
    store = Store(tmp_path / "store")
    train, test = store.split("train"), store.split("test")
    assert train.class_names == [
        f"{alphabet}/character0{i}" for alphabet in ("Angelic_(old)", "Greek") for i in (1, 2, 3)
    ]
    assert test.class_names == [f"Tibetan/character0{i}" for i in (1, 2, 3)]
    assert train.parents is not None
    assert train.parents.tolist() == [[0, 0, 0, 1, 1, 1]]
    assert set(store.index["level_1"]) == {"Angelic_(old)", "Greek", "Tibetan"}
    content = {
        path: data for files in small_omniglot.members.values() for path, data in files.items()
    }
    assert sorted(store.index["path"]) == sorted(content)
    for image, path in zip(store, store.index["path"], strict=True):
        original = np.asarray(Image.open(io.BytesIO(content[path])).convert("L"))
        np.testing.assert_array_equal(image[0], original)


def test_the_order_inside_the_archives_does_not_change_the_store(
    small_omniglot: SimpleNamespace, tmp_path: Path
):
    contents = set()
    for seed in (0, 1):
        pack("omniglot", 28, tmp_path / "store", small_omniglot.folder, small_omniglot.write(seed))
        contents.add(Store(tmp_path / "store").manifest["content"])
    assert len(contents) == 1


def test_an_incomplete_archive_is_refused_with_the_counts_and_the_class_that_differ(
    small_omniglot: SimpleNamespace, tmp_path: Path, decode_nothing: None
):
    files = small_omniglot.members["images_evaluation.zip"]
    files.pop(next(iter(files)))
    with pytest.raises(DatasetError) as error:
        pack("omniglot", 28, tmp_path / "store", small_omniglot.folder, small_omniglot.write())
    assert str(error.value).splitlines()[1:] == [
        "    test: images: found 11, expected 12",
        "    Tibetan/character01 has 3 drawings, expected 4",
    ]


def test_a_damaged_image_is_named_and_other_files_are_left_out(
    small_omniglot: SimpleNamespace, tmp_path: Path
):
    files = small_omniglot.members["images_background.zip"]
    path = next(iter(files))
    whole, files[path] = files[path], files[path][:100]
    with pytest.raises(DatasetError, match=rf"{path}: cannot decode"):
        pack("omniglot", 28, tmp_path / "store", small_omniglot.folder, small_omniglot.write())
    files |= {path: whole, "images_background/readme.txt": b"hello"}
    pack("omniglot", 28, tmp_path / "store", small_omniglot.folder, small_omniglot.write())
    assert Store(tmp_path / "store").manifest["splits"] == {"train": [6, 24], "test": [3, 12]}


@pytest.mark.skipif(not REAL.is_dir(), reason="the real archives are not on this machine")
def test_the_real_archives_hold_the_official_split(tmp_path: Path):
    pack("omniglot", 28, tmp_path / "store", REAL, REAL_CHECKSUMS)
    store = Store(tmp_path / "store")
    assert store.manifest["splits"] == {"train": [964, 19280], "test": [659, 13180]}
    train, test = store.split("train"), store.split("test")
    assert train.parents is not None
    assert test.parents is not None
    assert (train.parents.max() + 1, test.parents.max() + 1) == (30, 20)
    assert set(np.bincount(store.index["label"])) == {20}
    row = test.rows[1234]
    with zipfile.ZipFile(REAL / "images_evaluation.zip") as archive:
        original = Image.open(io.BytesIO(archive.read(store.index["path"][row]))).convert("L")
    expected = np.asarray(original.resize((28, 28), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(store[row][0], expected)
