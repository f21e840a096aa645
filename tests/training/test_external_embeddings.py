"""External embeddings: one for each test image in the order of the index, or a clear error."""

import numpy as np
import pytest

from dmlbench.training.external_embeddings import UnusableFile, read_embeddings


@pytest.fixture(scope="module")
def rows(glyphs):
    return glyphs.split("test", 0.1).rows


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
        r"1 embeddings hold NaN or infinity: \d+$",
    ),
    "too large for float32": (
        lambda rows, paths: spoilt(rows, embeddings=with_value(rows, 1e300)),
        "1 embeddings hold NaN or infinity",
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


@pytest.mark.parametrize("content", [b"", b"no zip", b"PK\x03\x04 cut off", b"\x93NUMPY", None])
def test_a_file_that_is_not_an_npz_is_refused(glyphs, rows, tmp_path, content):
    if content is not None:
        (tmp_path / "own.npz").write_bytes(content)
    with pytest.raises(UnusableFile, match=r"own\.npz: this is not an \.npz"):
        read_embeddings(tmp_path / "own.npz", glyphs, rows)


def test_a_damaged_file_is_refused(glyphs, rows, write):
    file = write(**spoilt(rows))
    content = bytearray(file.read_bytes())
    content[200:300] = bytes(100)
    file.write_bytes(content)
    with pytest.raises(UnusableFile, match=r"own\.npz: its arrays cannot be read: .*CRC"):
        read_embeddings(file, glyphs, rows)
