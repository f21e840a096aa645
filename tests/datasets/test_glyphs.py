import time
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import ImageFont

from dmlbench.datasets import glyphs as glyphs_module
from dmlbench.datasets.store.pack import pack
from dmlbench.datasets.store.reader import Store
from dmlbench.utils.errors import DatasetError


def letter_of(class_name: str) -> str:
    return chr(int(class_name.split()[0].removeprefix("U+"), 16))


@pytest.fixture(scope="module")
def letters(glyphs: Store) -> list[str]:
    return sorted({letter_of(name) for name in glyphs.index["class_name"]})


def test_the_classes_are_plain_letters_of_five_scripts(glyphs: Store, letters: list[str]):
    assert 500 < len(letters) < 580
    assert set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZßøλшԱქ") <= set(letters)
    assert not set("éÑάй") & set(letters)  # letters with accents
    assert not set("0+;") & set(letters)
    for letter, script in zip(
        "qλшԱქ", ["Latin", "Greek", "Cyrillic", "Armenian", "Georgian"], strict=True
    ):
        name = f"U+{ord(letter):04X} {unicodedata.name(letter)}"
        assert set(glyphs.index["level_1"][glyphs.index["class_name"] == name]) == {script}


def test_letters_that_look_the_same_are_one_class(letters: list[str]):
    assert "A" in letters
    assert not {"\N{GREEK CAPITAL LETTER ALPHA}", "\N{CYRILLIC CAPITAL LETTER A}"} & set(letters)
    font = ImageFont.truetype(str(glyphs_module._font_folder() / "DejaVuSans.ttf"), 64)
    drawn = np.zeros((len(letters), 96, 96), np.float32)
    for canvas, letter in zip(drawn, letters, strict=True):
        mask, (_, top) = font.getmask2(letter)
        pixels = np.array(mask).reshape(mask.size[::-1])
        pixels = pixels[:, np.flatnonzero(pixels.any(axis=0))[0] :]
        canvas[top : top + len(pixels), : pixels.shape[1]] = pixels / 255
    flat = drawn.reshape(len(letters), -1)
    distances = (flat**2).sum(1)[:, None] + (flat**2).sum(1) - 2 * flat @ flat.T
    np.fill_diagonal(distances, np.inf)
    assert distances.min() > 2  # Latin o and Armenian oh: 0.4


def test_twelve_faces_draw_every_letter_twice_and_four_more_where_they_can(glyphs: Store):
    counts = np.bincount(glyphs.index["label"])
    assert set(counts) <= {24, 26, 28, 30, 32}
    assert 14_000 < len(glyphs) < 16_000
    paths = set(glyphs.index["path"])
    assert len(paths) == len(glyphs)
    assert {"U+0041/DejaVuSansMono-BoldOblique-0", "U+0041/STIXGeneralBolIta-1"} <= paths


def test_half_of_the_classes_of_every_script_train_and_the_others_test(glyphs: Store):
    index = glyphs.index
    halves = {}
    for split in ("train", "test"):
        of_split = index["split"] == split
        halves[split] = {
            script: set(index["class_name"][of_split & (index["level_1"] == script)])
            for script in ("Latin", "Greek", "Cyrillic", "Armenian", "Georgian")
        }
    for script, train in halves["train"].items():
        test = halves["test"][script]
        assert len(train) >= 20
        assert len(test) - len(train) in (0, 1)
        assert not train & test


def test_the_bytes_do_not_depend_on_the_number_of_processes(glyphs: Store, tmp_path: Path):
    pack("glyphs", 32, tmp_path / "again", tmp_path, workers=1)
    again = Store(tmp_path / "again")
    assert again.manifest == glyphs.manifest
    for name in ("images.bin", "index.parquet", "protocols.parquet"):
        assert (again.path / name).read_bytes() == (glyphs.path / name).read_bytes()


def test_no_image_is_blank_or_cut_off(glyphs: Store):
    pixels = np.stack([*glyphs])
    assert pixels.max(axis=(1, 2, 3)).min() > 200
    border = np.ones((32, 32), bool)
    border[1:-1, 1:-1] = False
    assert (pixels[:, 0, border].max(axis=1) > 100).mean() < 0.01


def test_a_nearest_mean_of_pixels_finds_many_classes(glyphs: Store):
    """The means of the first copies find the second copies: the letters are really drawn."""
    pixels = np.stack([*glyphs])
    labels = glyphs.index["label"]
    second = np.char.endswith(glyphs.index["path"].astype(str), "-1")
    vectors = pixels.reshape(len(pixels), -1).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    means = np.stack([vectors[(labels == c) & ~second].mean(0) for c in range(labels.max() + 1)])
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    right = (vectors[second] @ means.T).argmax(axis=1) == labels[second]
    assert 0.15 < right.mean() < 0.6  # chance: 0.002; above 0.6 the distortion would be too easy


def test_every_side_shows_the_same_drawing_and_every_copy_a_different_one():
    face = glyphs_module._font_folder() / "DejaVuSerif.ttf"
    for letter in "kЖქ":
        small = np.asarray(glyphs_module.draw(face, letter, 0, 32), float).ravel()
        large = glyphs_module.draw(face, letter, 0, 96)
        assert large.size == (96, 96)
        shrunk = np.asarray(large.reduce(3), float).ravel()
        other = np.asarray(glyphs_module.draw(face, letter, 1, 32), float).ravel()
        assert np.corrcoef(small, shrunk)[0, 1] > 0.95
        assert np.corrcoef(small, other)[0, 1] < 0.9


def test_drawing_takes_milliseconds():
    face = glyphs_module._font_folder() / "DejaVuSans.ttf"
    start = time.perf_counter()
    for copy in range(200):
        glyphs_module.draw(face, "g", copy, 32)
    assert time.perf_counter() - start < 1  # 0.05 s measured


def test_missing_fonts_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr("matplotlib.get_data_path", lambda: str(tmp_path))
    with pytest.raises(DatasetError, match=r"lacks DejaVuSans, .*reinstall matplotlib"):
        list(glyphs_module.images({}))
