import numpy as np
import pytest
from PIL import Image

from dmlbench.datasets import Row
from dmlbench.datasets.store import thumbnails
from dmlbench.datasets.store.duplicates import find_duplicates
from dmlbench.datasets.store.duplicates_file import HOLDOUT, read_duplicates, write_duplicates
from dmlbench.datasets.store.part import Part
from dmlbench.datasets.store.same_picture import match
from dmlbench.datasets.store.thumbnails import (
    hashed_pixels,
    mirrored,
    perceptual_hashes,
    thumbnail,
)
from tests.datasets.store.made_copies import CHANGES, line, photograph, png

PHOTOGRAPHS = 30


def rows_of(images):
    """Rows of {path: image}; the folder of a path is its split, and each image has its class."""
    return [
        (Row(path, f"class of {path}", (), path.partition("/")[0]), png(image))
        for path, image in images.items()
    ]


def found(store, other=None):
    """{path of the test image: {paths of training images}} of all pairs."""
    pairs = find_duplicates(store, other or store)
    paths, test_paths = store.index["path"], (other or store).index["path"]
    copies = {}
    for test, train in zip(pairs.test, pairs.train, strict=True):
        copies.setdefault(test_paths[test], set()).add(paths[train])
    return copies


@pytest.fixture
def made(pack_images, tmp_path):
    """Thirty photographs for training; for the test, seven of them changed, and seven others."""
    images = {f"train/{seed:02}": photograph(seed) for seed in range(PHOTOGRAPHS)}
    for seed, (name, change) in enumerate(CHANGES.items()):
        images[f"test/{name}"] = change(photograph(seed))
        images[f"test/other {seed}"] = photograph(100 + seed)
    return pack_images(rows_of(images), 64, tmp_path / "store", channels=3)


class TestFindDuplicates:
    def test_changed_copies_of_training_images_are_found_and_nothing_else(self, made):
        assert found(made) == {
            f"test/{name}": {f"train/{seed:02}"} for seed, name in enumerate(CHANGES)
        }

    def test_only_a_mirrored_copy_is_called_mirrored(self, made):
        pairs = find_duplicates(made, made)
        paths = made.index["path"][pairs.test]
        assert paths[pairs.mirrored].tolist() == ["test/mirrored"]

    def test_a_store_without_copies_has_no_pairs(self, pack_images, tmp_path):
        images = {f"train/{seed}": photograph(seed) for seed in range(20)}
        images |= {f"test/{seed}": photograph(50 + seed) for seed in range(20)}
        store = pack_images(rows_of(images), 64, tmp_path / "store", channels=3)
        pairs = find_duplicates(store, store)
        assert [len(column) for column in pairs] == [0] * 5
        assert pairs.test.dtype == np.int64

    def test_drawings_of_lines_are_no_copies_unless_they_are_equal(self, pack_images, tmp_path):
        images = {f"train/{left}": line(left, 20, 40) for left in (20, 40, 60)}
        images |= {"test/shorter": line(40, 20, 34), "test/beside": line(43, 20, 40)}
        images |= {"test/equal": line(60, 20, 40)}
        store = pack_images(rows_of(images), 96, tmp_path / "store", channels=1)
        assert found(store) == {"test/equal": {"train/60"}}

    def test_blank_images_are_no_copies_of_each_other(self, pack_images, tmp_path):
        blank = Image.new("RGB", (96, 96), "white")
        images = {"train/blank": blank, "train/photograph": photograph(0), "test/blank": blank}
        store = pack_images(rows_of(images), 64, tmp_path / "store", channels=3)
        assert found(store) == {}

    def test_training_images_of_one_store_are_found_in_the_test_of_another(
        self, made, pack_images, tmp_path
    ):
        images = {"test/copy": photograph(5), "test/new": photograph(200), "train/x": photograph(9)}
        other = pack_images(rows_of(images), 96, tmp_path / "other", channels=1)
        assert found(made, other) == {"test/copy": {"train/05"}}

    def test_a_holdout_is_searched_for_copies_of_all_that_it_may_train_on(
        self, pack_images, tmp_path
    ):
        # 16 classes of three images in four groups; each image is there twice, 24 places apart
        images = [
            (
                Row(
                    f"{place:02}",
                    f"class {place // 3:02}",
                    (f"group {place // 12}",),
                    "train" if place < 24 else "test",
                ),
                png(photograph(place % 24)),
            )
            for place in range(48)
        ]
        stores = tmp_path / "stores"
        stores.mkdir()
        store = pack_images(images, 64, stores / "x", channels=3)
        test = store.split("test", Part(holdout="level_1")).rows.tolist()
        said = write_duplicates(stores, HOLDOUT, "x")
        assert said.startswith(f"{stores}/x/near_duplicates/holdout.json: ")
        pairs = read_duplicates(stores, HOLDOUT, "x")
        assert pairs is not None
        copies = dict(zip(pairs["test"], pairs["train"], strict=True))
        others = {id: (id + 24) % 48 for id in test}
        assert copies == {id: other for id, other in others.items() if other not in test}
        assert any(id < 24 for id in copies)  # the data set itself trains on these
        assert read_duplicates(stores, "x", "x") is None

    def test_a_store_of_jpeg_files_is_searched_too(self, pack_images, tmp_path):
        images = {"train/a": photograph(0), "test/a": photograph(0), "test/b": photograph(1)}
        rows = rows_of(images)
        store = pack_images(rows, 64, tmp_path / "store", channels=3, form="jpeg")
        assert found(store) == {"test/a": {"train/a"}}


class TestMatch:
    def test_the_details_of_two_photographs_do_not_agree(self):
        first, second = (thumbnail(photograph(seed).convert("L")) for seed in (0, 1))
        assert match(first, first).is_same
        assert not match(first, second).is_same

    def test_a_shift_is_found(self):
        pixels = np.asarray(photograph(0).convert("L").resize((80, 80)))
        assert match(pixels[:64, :64].copy(), pixels[3:67, 2:66].copy()).is_same
        assert not match(pixels[:64, :64].copy(), pixels[16:80, 16:80].copy()).is_same


class TestPerceptualHashes:
    def test_they_are_those_of_the_package_imagehash(self):
        imagehash = pytest.importorskip("imagehash")
        pictures = [photograph(seed).convert("L") for seed in range(20)]
        ours = perceptual_hashes(np.stack([hashed_pixels(picture) for picture in pictures]))
        theirs = [np.packbits(imagehash.phash(picture).hash) for picture in pictures]
        np.testing.assert_array_equal(ours, theirs)

    def test_they_are_those_of_the_definition(self):
        """The cosine transform as a loop over plain numbers, of one picture."""
        pixels = hashed_pixels(photograph(3).convert("L")).astype(float)
        side, kept = thumbnails.HASHED_SIDE, thumbnails.FREQUENCIES
        place = np.arange(side)
        cosine = [np.cos(np.pi * k * (2 * place + 1) / (2 * side)) for k in range(kept)]
        low = [[float(cosine[u] @ pixels @ cosine[v]) for v in range(kept)] for u in range(kept)]
        expected = [value > np.median(low) for row in low for value in row]
        bits = np.unpackbits(perceptual_hashes(pixels[None].astype(np.uint8))[0])
        assert bits.astype(bool).tolist() == expected

    def test_a_mirrored_picture_has_another_hash(self):
        pixels = hashed_pixels(photograph(3).convert("L"))[None]
        assert (perceptual_hashes(pixels) != perceptual_hashes(mirrored(pixels))).any()
