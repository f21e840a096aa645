"""External embeddings: one for each test image in the order of the index, or a clear error."""

import io
from types import SimpleNamespace
from unicodedata import normalize

import numpy as np
import pytest

from dmlbench.datasets.store.part import Part
from dmlbench.training.external_embeddings import UnusableFile, read_embeddings


@pytest.fixture(scope="module")
def rows(glyphs):
    return glyphs.split("test", Part(0.1)).rows


@pytest.fixture
def write(tmp_path):
    def write_file(**arrays):
        with (tmp_path / "own.npz").open("wb") as file:
            np.savez(file, **arrays)
        return tmp_path / "own.npz"

    return write_file


def vectors(ids):
    """Embeddings that identify their images."""
    return np.stack([ids, ids**2], axis=1).astype(np.float64)


@pytest.mark.parametrize("named_by", ["id", "path", "bytes"])
def test_embeddings_come_in_the_order_of_the_index_and_others_are_left_out(
    glyphs, rows, write, named_by
):
    ids = np.random.default_rng(0).permutation(len(glyphs))
    names = {"id": ids, "path": glyphs.index["path"][ids].astype(str)}
    names["bytes"] = names["path"].astype("S")
    key = "path" if named_by == "bytes" else named_by
    file = write(embeddings=vectors(ids), **{key: names[named_by]})
    embeddings = read_embeddings(file, glyphs, rows)
    assert embeddings.dtype == np.float32
    np.testing.assert_array_equal(embeddings, vectors(rows).astype(np.float32))


def spoilt(rows, **changes):
    return {"embeddings": vectors(rows), "id": rows} | changes


def with_value(rows, value, dtype=np.float64):
    embeddings = vectors(rows).astype(dtype)
    embeddings[3, 1] = value
    return embeddings


WRONG = {
    "missing images": (
        lambda rows, paths: {"embeddings": vectors(rows[2:]), "path": paths[2:]},
        r"2 of \d+ test images have no embedding: U\+.*, U\+",
    ),
    "unknown images": (
        lambda rows, paths: {"embeddings": vectors(rows), "path": [*paths[1:], "none.png"]},
        "images that the data set does not have: none.png",
    ),
    "twice": (
        lambda rows, paths: spoilt(np.append(rows, rows[4])),
        r"more than one embedding of \d+$",
    ),
    "NaN": (
        lambda rows, paths: spoilt(rows, embeddings=with_value(rows, np.nan)),
        r"1 embedding holds NaN or infinity: \d+$",
    ),
    "too large for float32": (
        lambda rows, paths: spoilt(rows, embeddings=with_value(rows, 1e300)),
        "1 embedding holds NaN or infinity",
    ),
    "one dimension": (
        lambda rows, paths: spoilt(rows, embeddings=np.ones(len(rows))),
        r"float64 \(\d+,\); they must be floating-point numbers \(n, D\)",
    ),
    "no dimension": (
        lambda rows, paths: spoilt(rows, embeddings=np.ones((len(rows), 0))),
        r"they must be floating-point",
    ),
    "integers": (
        lambda rows, paths: spoilt(rows, embeddings=vectors(rows).astype(int)),
        "int64",
    ),
    "lengths": (lambda rows, paths: spoilt(rows, id=rows[:-1]), r"\d+ embeddings of \d+ images"),
    "id of floats": (
        lambda rows, paths: spoilt(rows, id=rows.astype(float)),
        r"id is float64 \(\d+,\); it must be integers \(n,\)",
    ),
    "both names": (lambda rows, paths: spoilt(rows, path=paths), "either path or id"),
    "no names": (lambda rows, paths: {"embeddings": vectors(rows)}, "it holds embeddings; it must"),
    "bytes that are not UTF-8": (
        lambda rows, paths: {
            "embeddings": vectors(rows),
            "path": np.full(len(rows), b"\xff.png"),
        },
        "path is not UTF-8: invalid start byte",
    ),
    "hyperbolic": (
        lambda rows, paths: spoilt(rows, curvature=0.1, radius=2.3),
        r"compared by hyperbolic distance, and those of a study by cosine: dmlbench\.score",
    ),
    "other arrays": (
        lambda rows, paths: {f"{k}{'x' * 200}": rows for k in range(9)},
        r"it holds 0x{79}, 1x{79}, 2x{79}, 3x{79}, 4x{79} and 4 more; it must hold embeddings",
    ),
    "complex numbers": (
        lambda rows, paths: spoilt(rows, embeddings=vectors(rows).astype(complex)),
        "embeddings are complex128",
    ),
    "embeddings as objects": (
        lambda rows, paths: spoilt(rows, embeddings=vectors(rows).astype(object)),
        "its arrays cannot be read: Object arrays cannot be loaded",
    ),
    "objects": (
        lambda rows, paths: {"embeddings": vectors(rows), "path": np.array(paths, object)},
        r"np\.array\(paths, dtype=str\)",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_file_is_refused_with_its_name_and_the_reason(glyphs, rows, write, case):
    arrays, message = WRONG[case]
    file = write(**arrays(rows, glyphs.index["path"][rows].astype(str)))
    with pytest.raises(UnusableFile, match=message) as caught:
        read_embeddings(file, glyphs, rows)
    assert str(caught.value).startswith(f"{file}: ")
    assert "\n" not in str(caught.value)


NO_NPZ = {
    b"": "this is not an .npz file: it is empty",
    b"no zip": "this is not an .npz file",
    b"PK\x03\x04 cut off": "this is not an .npz file",
    b"\x93NUMPY\x01\0": "this is an .npy file, which holds one array: save it with np.savez(file, "
    "embeddings=embeddings, path=paths)",
}


@pytest.mark.parametrize("content", NO_NPZ)
def test_a_file_that_is_not_an_npz_is_refused(glyphs, rows, tmp_path, content):
    (tmp_path / "own.npz").write_bytes(content)
    with pytest.raises(UnusableFile) as caught:
        read_embeddings(tmp_path / "own.npz", glyphs, rows)
    assert str(caught.value) == f"{tmp_path}/own.npz: {NO_NPZ[content]}"


def test_a_folder_and_a_file_that_is_not_there_are_refused(glyphs, rows, tmp_path):
    for path, reason in ((tmp_path, "Is a directory"), (tmp_path / "none.npz", "No such file")):
        with pytest.raises(UnusableFile, match=f"^{path}: it cannot be read: {reason}"):
            read_embeddings(path, glyphs, rows)


@pytest.fixture
def spelt_store():
    """A store of images in two folders, with the same names in both."""
    folders = {"Äpfel/train": 3, "Äpfel/test": 4}
    paths = [f"{folder}/{k}.png" for folder, count in folders.items() for k in range(count)]
    return SimpleNamespace(index={"path": np.array(sorted(paths), object)})


MOVES = {
    "as in the index": lambda path: path,
    "NFD": lambda path: normalize("NFD", path),
    "backslashes": lambda path: path.replace("/", "\\"),
    "a point": lambda path: f"./{path}",
    "the folder above": lambda path: f"my/{path}",
    "the folder above, in NFD": lambda path: f"./{normalize('NFD', f'müsli/{path}')}",
    "from a folder beside it": lambda path: f"../my/{path}",
    "absolute": lambda path: f"/data/my/{path}",
    "a folder inside": lambda path: path.removeprefix("Äpfel/"),
    "the folder of the test images": lambda path: path.removeprefix("Äpfel/test/"),
}


@pytest.mark.parametrize("case", MOVES)
def test_paths_fit_whichever_folder_they_are_relative_to(spelt_store, write, case):
    ids = np.arange(3, -1, -1)  # the test images are the first four
    paths = [MOVES[case](spelt_store.index["path"][k]) for k in ids]
    file = write(embeddings=vectors(ids), path=np.array(paths))
    embeddings = read_embeddings(file, spelt_store, np.arange(4))
    np.testing.assert_array_equal(embeddings, vectors(np.arange(4)))


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["0.png", "1.png"], "do not have|does not have: 0.png, 1.png"),
        (["my/test/0.png", "my/other/1.png"], "does not have: my/other/1.png, my/test/0.png"),
        (["Äpfel/test/0.png", "Äpfel/9.png"], "does not have: Äpfel/9.png"),
        (["Äpfel/test/0.png", "./Äpfel//test/0.png"], "more than one embedding of Äpfel/test/0"),
    ],
)
def test_paths_that_fit_nowhere_or_in_two_folders_are_refused(spelt_store, write, names, message):
    file = write(embeddings=vectors(np.arange(2)), path=np.array(names))
    rows = np.array([], int) if names[0] == "0.png" else np.arange(4)  # else the test decides
    with pytest.raises(UnusableFile, match=message):
        read_embeddings(file, spelt_store, rows)


def truncate(content):
    return content[: len(content) // 2] + content[-200:]


def zero(content):
    return content[:200] + bytes(100) + content[300:]


def damage_deflated(content):
    with io.BytesIO() as file:
        with np.load(io.BytesIO(content)) as arrays:
            np.savez_compressed(file, **arrays)
        packed = bytearray(file.getvalue())
    packed[80:120] = b"\xff" * 40
    return bytes(packed)


@pytest.mark.parametrize("damage", [truncate, zero, damage_deflated])
def test_a_damaged_file_is_refused(glyphs, rows, write, damage):
    file = write(**spoilt(rows))
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(UnusableFile, match=r"own\.npz: its arrays cannot be read: ") as caught:
        read_embeddings(file, glyphs, rows)
    assert "\n" not in str(caught.value)
