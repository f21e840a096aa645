import json
import pickle
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from dmlbench.datasets import Row
from dmlbench.datasets.store.part import Part
from dmlbench.datasets.store.reader import Store
from dmlbench.utils.errors import DatasetError

from .made_images import solid

few_examples = settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@few_examples
@given(
    sizes=st.lists(st.tuples(st.integers(5, 12), st.integers(5, 12)), min_size=1, max_size=8),
    channels=st.sampled_from([1, 3]),
    seed=st.integers(0, 1000),
)
def test_images_of_any_size_come_back_as_pillow_decodes_them(
    pack_images: Callable[..., Store],
    png: Callable[[np.ndarray], bytes],
    sizes: list[tuple[int, int]],
    channels: int,
    seed: int,
):
    rng = np.random.default_rng(seed)
    images, expected = [], []
    for number, (height, width) in enumerate(sizes):
        shape = (height, width, channels)
        array = rng.integers(1, 256, shape, np.uint8)
        encoded = png(array[:, :, 0] if channels == 1 else array)
        images.append((Row(f"{number}", f"{number}", (), "test"), encoded))
        side = min(height, width)
        size = (round(width * 5 / side), round(height * 5 / side))
        shrunk = Image.fromarray(array[:, :, 0] if channels == 1 else array)
        shrunk = shrunk.resize(size, Image.Resampling.BILINEAR)
        expected.append(np.asarray(shrunk).reshape(size[1], size[0], channels).transpose(2, 0, 1))
    with tempfile.TemporaryDirectory() as folder:
        store = pack_images(images, 5, Path(folder) / "store", channels)
        for image, size, pixels in zip(store, store.sizes, expected, strict=True):
            assert image.dtype == np.uint8
            assert tuple(size) == pixels.shape[1:]
            np.testing.assert_array_equal(image, pixels)


def test_a_split_has_its_images_with_dense_labels_and_parents(glyphs: Store):
    index = glyphs.index
    for name in ("train", "test"):
        split = glyphs.split(name)
        assert split.rows.dtype == split.labels.dtype == np.int64
        np.testing.assert_array_equal(split.rows, np.flatnonzero(index["split"] == name))
        assert set(split.labels) == set(range(len(split.class_names)))
        assert split.class_names == sorted(split.class_names)
        names = [split.class_names[label] for label in split.labels]
        assert names == index["class_name"][split.rows].tolist()
        assert split.parents is not None
        assert split.parents.dtype == np.int64
        assert split.parents.shape == (1, len(split.class_names))
        scripts = np.unique(index["level_1"][split.rows])
        by_parent = scripts[split.parents[0][split.labels]]
        np.testing.assert_array_equal(by_parent, index["level_1"][split.rows])


def test_without_super_classes_there_are_no_parents(
    pack_images: Callable[..., Store], tmp_path: Path
):
    images = [(Row(f"{i}", f"{i}", (), "train"), solid) for i in range(4)]
    store = pack_images(images, 2, tmp_path / "store")
    assert store.split("train").parents is None
    assert len(store.split("train", Part(0.5)).class_names) == 2


@given(fractions=st.tuples(*[st.floats(0.001, 1.0)] * 2), name=st.sampled_from(["train", "test"]))
@settings(few_examples, max_examples=20)
def test_a_share_keeps_every_script_and_complete_classes_and_a_larger_share_contains_it(
    glyphs: Store, fractions: tuple[float, float], name: str
):
    whole, (small, large) = glyphs.split(name), sorted(fractions)
    split, larger = glyphs.split(name, Part(small)), glyphs.split(name, Part(large))
    assert split.parents is not None
    assert whole.parents is not None
    exact = np.bincount(whole.parents[0]) * small
    kept = np.bincount(split.parents[0])
    assert len(kept) == 5
    assert (np.abs(kept - np.maximum(exact, 1)) <= 0.5).all()
    assert set(split.class_names) <= set(larger.class_names) <= set(whole.class_names)
    assert set(split.rows) <= set(whole.rows)
    counts = dict(zip(whole.class_names, np.bincount(whole.labels), strict=True))
    assert [counts[c] for c in split.class_names] == np.bincount(split.labels).tolist()


def test_the_share_is_the_same_on_every_machine(pack_images: Callable[..., Store], tmp_path: Path):
    images = [(Row(f"{i}", f"class {i}", ("s",), "train"), solid) for i in range(10)]
    store = pack_images(images, 2, tmp_path / "store")
    pinned = ["class 3", "class 8", "class 9"]
    assert store.split("train", Part(0.3)).class_names == pinned
    shuffled = pack_images(images[::-1], 2, tmp_path / "shuffled")
    assert shuffled.split("train", Part(0.3)).class_names == pinned


def test_an_impossible_share_or_split_is_refused(glyphs: Store):
    for fraction in (0, -0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match="class_fraction"):
            glyphs.split("train", Part(fraction))
    with pytest.raises(DatasetError, match="no images in the split 'validation'"):
        glyphs.split("validation")


def test_an_incomplete_store_is_refused(glyphs: Store, tmp_path: Path):
    def refused(message: str) -> None:
        with pytest.raises(DatasetError, match=f"no complete store.*{message}.*Delete the folder"):
            Store(tmp_path)

    refused("manifest.json")
    for path in glyphs.path.iterdir():
        if path.is_file():
            (tmp_path / path.name).write_bytes(path.read_bytes())
    assert len(Store(tmp_path)) == len(glyphs)
    pixels = (tmp_path / "images.bin").read_bytes()
    (tmp_path / "images.bin").write_bytes(pixels[:-1])
    refused(r"images\.bin has .* bytes and not")
    (tmp_path / "images.bin").write_bytes(pixels)
    index = (tmp_path / "index.parquet").read_bytes()
    (tmp_path / "index.parquet").write_bytes(index[: len(index) // 2])
    refused("")
    (tmp_path / "index.parquet").write_bytes(index)
    (tmp_path / "manifest.json").write_text(json.dumps(glyphs.manifest | {"format": 0}))
    refused("format is 0")
    (tmp_path / "manifest.json").write_text("{")
    refused("")


def test_an_image_is_a_read_only_view_of_the_file(glyphs: Store):
    with pytest.raises(ValueError, match="read-only"):
        glyphs[5][:] = 255
    assert np.shares_memory(glyphs[5], glyphs._content)


def test_another_process_gets_the_path_and_not_the_pixels(glyphs: Store):
    assert len(pickle.dumps(glyphs)) < 1000
    again = pickle.loads(pickle.dumps(glyphs))
    np.testing.assert_array_equal(np.stack([*again]), np.stack([*glyphs]))


@pytest.mark.parametrize("channels", [1, 3])
def test_a_store_of_jpeg_files_gives_nearly_the_same_pixels(
    pack_images: Callable[..., Store],
    png: Callable[[np.ndarray], bytes],
    tmp_path: Path,
    channels: int,
):
    images = []
    for number, (height, width) in enumerate([(40, 60), (50, 40), (40, 40)]):
        ramp = np.linspace(10 * number, 200, height * width * channels)
        array = ramp.reshape(height, width, channels).astype(np.uint8)
        encoded = png(array[:, :, 0] if channels == 1 else array)
        images.append((Row(f"{number}", f"{number}", (), "test"), encoded))
    pixels, jpeg = (
        pack_images(images[::-1], 40, tmp_path / form, channels, form=form)
        for form in ("pixels", "jpeg")
    )
    np.testing.assert_array_equal(pixels.sizes, jpeg.sizes)
    again = pickle.loads(pickle.dumps(jpeg))
    for expected, image, same in zip(pixels, jpeg, again, strict=True):
        assert (image.dtype, image.shape) == (np.uint8, expected.shape)
        assert np.abs(image.astype(int) - expected).max() <= 6
        np.testing.assert_array_equal(same, image)


def test_images_are_read_at_their_offsets(
    pack_images: Callable[..., Store], png: Callable[[np.ndarray], bytes], tmp_path: Path
):
    images = [
        (Row(f"{9 - i}", "c", (), "train"), png(np.full((4, 4), i, np.uint8))) for i in range(9)
    ]
    store = pack_images(images, 4, tmp_path / "store")
    assert [store[row][0, 3, 3] for row in (0, 3, 8)] == [8, 5, 0]


def test_columns_are_read_when_they_are_first_used(glyphs: Store):
    store = Store(glyphs.path)
    assert list(store.index)[:4] == ["id", "path", "label", "class_name"]
    assert len(store.index) == len(list(store.index))
    assert not {"path", "digest"} & store.index._columns.keys()
    assert store.index["path"][0] == min(store.index["path"])
    with pytest.raises(KeyError):
        store.index["nothing"]
    assert store.pairs is None
    assert set(store.protocols["protocol"]) == {"zero_shot"}
