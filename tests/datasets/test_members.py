"""Archives that people packed again: other folders, other formats, other letters, other files."""

import io
import re
import tarfile
import zipfile

import pytest

from dmlbench.datasets import Row
from dmlbench.datasets.members import Members
from dmlbench.utils.errors import DatasetError

LAYOUT = "birds/ with list.txt and images/<species>/<image>.jpg"
PATHS = ("images/Wren/1.jpg", "images/Wren/2.jpg", "images/Owl/3.jpg")
ROWS = {
    path: Row(path, path.split("/")[1], (), "test", origin=f"list.txt, line {line}")
    for line, path in enumerate(PATHS, start=1)
}
CONTENT = {"list.txt": b"the list", **{path: path.encode() for path in PATHS}}


@pytest.fixture(params=["zip", "tar", "tgz"])
def members(request, tmp_path):
    """Write files into an archive, whose name does not say what it is, and open it."""

    def write(files):
        path = tmp_path / "birds.tgz"
        if request.param == "zip":
            with zipfile.ZipFile(path, "w") as archive:
                for name, content in files.items():
                    archive.writestr(name, content)
        else:
            with tarfile.open(path, "w:gz" if request.param == "tgz" else "w") as archive:
                for name, content in files.items():
                    entry = tarfile.TarInfo(name)
                    entry.size = len(content)
                    archive.addfile(entry, io.BytesIO(content))
        return Members(path, LAYOUT)

    return write


@pytest.mark.parametrize(
    "rename",
    [
        lambda path: f"birds/{path}",
        lambda path: path,
        lambda path: f"Downloads/birds (1)/birds/{path}",
        lambda path: f"images/{path}",
        lambda path: f"./birds//{path}",
        lambda path: f"birds/{path}".upper(),
        lambda path: f"birds\\{path}".replace("/", "\\"),
    ],
)
def test_folders_above_letters_and_separators_do_not_matter(members, rename):
    files = members({rename(path): content for path, content in CONTENT.items()})
    assert dict(files.images(ROWS)) == {ROWS[path]: CONTENT[path] for path in PATHS}
    assert files.find("list.txt").casefold().endswith("list.txt")


def test_files_beside_the_images_are_left_out_and_other_images_are_reported(members, capsys):
    extra = {
        "birds/images/Wren/copy.jpg": b"?",
        "birds/readme.md": b"",
        "masks/images/Wren/1.jpg": b"mask",
        "birds/images/Wren/1.png": b"mask",
    }
    files = members({f"birds/{path}": content for path, content in CONTENT.items()} | extra)
    assert dict(files.images(ROWS)) == {ROWS[path]: CONTENT[path] for path in PATHS}
    assert "birds.tgz: 2 images left out, not listed: " in capsys.readouterr().out


def test_of_two_names_that_differ_in_case_the_exact_one_is_taken(members):
    twins = {"images/wren/1.JPG": b"before", **CONTENT, "images/WREN/1.jpg": b"after"}
    assert dict(members(twins).images(ROWS))[ROWS[PATHS[0]]] == CONTENT[PATHS[0]]


def test_missing_images_are_named_with_line_and_class_before_the_first_image(members):
    files = members({f"birds/{path}": b"" for path in PATHS[:1]})
    with pytest.raises(DatasetError) as error:
        next(files.images(ROWS))
    title, *lines = str(error.value).splitlines()
    assert title.endswith("birds.tgz: 2 images of 3 are not in it, of 2 classes:")
    assert lines == [
        "    list.txt, line 2: no images/Wren/2.jpg, of the class Wren",
        "    list.txt, line 3: no images/Owl/3.jpg, of the class Owl",
    ]


def test_of_many_missing_images_some_are_named_and_the_others_counted(members):
    rows = {f"images/a/{n}.jpg": Row(f"{n}", "a", (), "test") for n in range(50)}
    with pytest.raises(
        DatasetError, match=r"49 images of 50 are not in it, of 1 class(?s:.*)\.\.\. and 29 more"
    ):
        next(members({"images/a/0.jpg": b""}).images(rows))


@pytest.mark.parametrize(
    ("names", "found"),
    [
        ([], "no files"),
        (["Wren/1.jpg", "Owl/3.jpg", "a.txt"], "Owl/ (1 file), Wren/ (1 file), a.txt"),
        (["x/birds/Wren/1.jpg", "x/birds/b.txt"], "x/birds/Wren/ (1 file), x/birds/b.txt"),
        (["x/1.jpg"], "x/1.jpg"),
        (
            [f"{folder}/{n}" for folder in "abcde" for n in (1, 2)],
            "a/ (2 files), b/ (2 files), c/ (2 files) and 2 more",
        ),
    ],
)
def test_another_layout_is_described_beside_the_expected_one(members, names, found):
    files = members(dict.fromkeys(names, b""))
    layouts = f"    expected  {LAYOUT}; folders above do not matter\n    found     {found}"
    cases = [
        (lambda: next(files.images(ROWS)), f"{PATHS[0]} (list.txt, line 1)"),
        (lambda: files.find("list.txt"), "list.txt"),
    ]
    for search, path in cases:
        with pytest.raises(DatasetError) as error:
            search()
        problem = f"it has another layout than the expected one: there is no {path}."
        assert str(error.value) == f"{files.archive}: {problem}\n{layouts}"
    with pytest.raises(DatasetError, match="it has another layout than the expected one\\.\n"):
        next(files.match(re.compile(r"images/(\w+)/\d\.jpg")))


def test_a_pattern_matches_below_any_folder(members):
    files = members({f"{folder}/{path}": b"" for folder in ("x/birds", "copy") for path in CONTENT})
    matches = files.match(re.compile(r"images/(\w+)/\d\.jpg"))
    assert sorted((match[0], match[1]) for match in matches) == [
        (path, path.split("/")[1]) for path in sorted(PATHS)
    ]
