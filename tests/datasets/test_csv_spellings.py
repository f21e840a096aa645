"""A table finds its images however another system spells their names."""

import os
import zipfile
from pathlib import Path
from unicodedata import normalize

import pytest

from dmlbench.datasets.csv import Csv
from dmlbench.utils.errors import DatasetError

from .made_csv import HEADER, encode, example_rows, options, pack_csv, write_csv

pytestmark = pytest.mark.usefixtures("cache_folder", "decode_in_threads")

ROWS = [row.replace("Apple", "Äpfel").replace("Anjou", "Añjou") for row in example_rows()]
PATHS = [row.partition(",")[0] for row in ROWS]


def write_images(folder, form):
    for path in PATHS:
        (folder / normalize(form, path)).parent.mkdir(parents=True, exist_ok=True)
        (folder / normalize(form, path)).write_bytes(encode(path))


@pytest.fixture
def packed(tmp_path):
    """The content of the store of a table and its images in NFC."""
    file = write_csv(tmp_path / "plain", ROWS)
    return pack_csv(tmp_path / "plain store", file)


@pytest.mark.parametrize("images", ["NFC", "NFD"])
@pytest.mark.parametrize("table", ["NFC", "NFD"])
@pytest.mark.parametrize("zipped", [False, True], ids=["folder", "zip"])
def test_both_forms_of_unicode_give_the_same_store(tmp_path, packed, table, images, zipped):
    file = write_csv(tmp_path / "my", [normalize(table, row) for row in ROWS], images=False)
    write_images(tmp_path / "my", images)
    given = {}
    if zipped:
        with zipfile.ZipFile(tmp_path / "my.zip", "w") as archive:
            for path in PATHS:
                archive.writestr(normalize(images, path), encode(path))
        given = {"images": str(tmp_path / "my.zip")}
    store = pack_csv(tmp_path / "store", file, **given)
    assert store.manifest["content"] == packed.manifest["content"]
    assert store.manifest["facts"] == packed.manifest["facts"]


def test_labels_that_differ_only_in_their_form_are_one_class(tmp_path):
    forms = ["Añjou", normalize("NFD", "Añjou"), " Añjou\u00a0"]
    rows = [*ROWS[:6], *(f"{k}.png,{form},Pear,test" for k, form in enumerate(forms)), *ROWS[9:]]
    rows = [row.replace(",Pear,", f",{normalize('NFD', 'Père')},") for row in rows]
    rows[-1] = rows[-1].replace(normalize("NFD", "Père"), "Père")
    facts = Csv(**options(write_csv(tmp_path, rows, images=False))).FACTS
    assert facts["splits"] == {"train": [2, 6], "test": [2, 6]}


def test_classes_that_differ_in_case_are_two(tmp_path):
    rows = [*ROWS, "a.png,fuji,Äpfel,train", "b.png,fuji,Äpfel,train"]
    facts = Csv(**options(write_csv(tmp_path, rows, images=False))).FACTS
    assert facts["splits"]["train"] == [3, 8]


def test_one_path_in_two_forms_is_there_twice(tmp_path):
    rows = [*ROWS, normalize("NFD", ROWS[0])]
    with pytest.raises(DatasetError, match=r"line 14: path Äpfel/Gala_0\.png is on line 2 already"):
        _ = Csv(**options(write_csv(tmp_path, rows, images=False))).FACTS


def test_columns_are_named_in_either_form(tmp_path):
    header = normalize("NFD", HEADER.replace("coarse", "größe"))
    file = write_csv(tmp_path, ROWS, header, images=False)
    assert Csv(**options(file, levels=("größe",))).FACTS["splits"]["test"] == [2, 6]


SPELLINGS = {
    "backslashes": lambda path, folder: path.replace("/", "\\"),
    "a folder of Windows": lambda path, folder: f".\\{path}".replace("/", "\\"),
    "a point": lambda path, folder: f"./{path}",
    "two slashes": lambda path, folder: path.replace("/", "//"),
    "up and down": lambda path, folder: f"x/../{path}",
    "absolute": lambda path, folder: f"{folder}/{path}",
    "absolute, by a link": lambda path, folder: f"{folder.parent}/link/{path}",
}


@pytest.mark.parametrize("case", SPELLINGS)
def test_paths_in_other_spellings_give_the_same_store(tmp_path, packed, case):
    (tmp_path / "link").symlink_to("my")
    rows = [
        f"{SPELLINGS[case](path, tmp_path / 'my')},{row.partition(',')[2]}"
        for path, row in zip(PATHS, ROWS, strict=True)
    ]
    write_images(tmp_path / "my", "NFC")
    file = write_csv(tmp_path / "link", rows, images=False)
    store = pack_csv(tmp_path / "store", file)
    assert store.manifest["content"] == packed.manifest["content"]
    assert store.manifest["facts"] == packed.manifest["facts"]


def test_a_folder_that_was_unpacked_with_backslashes_in_its_names_is_read(tmp_path, packed):
    file = write_csv(tmp_path / "my", ROWS, images=False)
    for path in PATHS:
        (tmp_path / "my" / path.replace("/", "\\")).write_bytes(encode(path))
    store = pack_csv(tmp_path / "store", file)
    assert store.manifest["content"] == packed.manifest["content"]


def test_an_image_that_is_there_in_two_forms_is_refused(tmp_path):
    file = write_csv(tmp_path, [normalize("NFD", row) for row in ROWS], images=False)
    write_images(tmp_path, "NFD")
    nfd = tmp_path / normalize("NFD", "Äpfel")
    Csv(**options(file)).check()
    os.link(nfd / "Gala_0.png", tmp_path / "Äpfel\\Gala_0.png")
    with pytest.raises(DatasetError, match=r"1 image is not in .*(.|\n)*line 2: 2 files have"):
        Csv(**options(file)).check()


MISSING = {
    "another case": ("A.PNG", lambda top: (top / "a.png").touch(), "no file A.PNG; there is a.png"),
    "a folder": ("a.png", lambda top: (top / "a.png").mkdir(), "a.png is a folder"),
    "a broken link": (
        "a.png",
        lambda top: (top / "a.png").symlink_to("nowhere"),
        "a.png is a link to a file that is not there",
    ),
    "the images' folder in the path": (
        "my/a.png",
        lambda top: (top / "a.png").touch(),
        "no file my/a.png; there is a.png",
    ),
    "a file in place of a folder": ("a/b.png", lambda top: (top / "a").touch(), "no file a/b.png"),
    "nothing": ("a.png", lambda top: None, "no file a.png"),
}


@pytest.mark.parametrize("case", MISSING)
def test_a_missing_image_is_refused_with_what_is_there_instead(tmp_path, case):
    path, prepare, message = MISSING[case]
    file = write_csv(tmp_path / "my", example_rows())
    prepare(tmp_path / "my")
    file.write_text("\n".join([file.read_text(), f"{path},Anjou,Pear,test"]))
    with pytest.raises(DatasetError) as caught:
        Csv(**options(file)).check()
    assert str(caught.value) == (
        f"1 image is not in {tmp_path}/my:\n    {file}, line 15: {message}"
    )


@pytest.mark.parametrize(
    ("member", "message"),
    [
        ("top/0.png", "no file 0.png; there is top/0.png"),
        ("0.PNG", "no file 0.png; there is 0.PNG"),
        ("1.png/2.png", "no file 0.png"),
    ],
)
def test_an_image_that_a_zip_lacks_is_refused_with_what_is_there_instead(tmp_path, member, message):
    rows = [f"{k}.png,{'ab'[k // 2]},{('train', 'test')[k // 2]}" for k in range(4)]
    file = write_csv(tmp_path, rows, "path,label,split", images=False)
    with zipfile.ZipFile(tmp_path / "images.zip", "w") as archive:
        for name in ("1.png", "2.png", "3.png", member):
            archive.writestr(name, encode("x"))
    with pytest.raises(DatasetError) as caught:
        Csv(file=str(file), images=str(tmp_path / "images.zip")).check()
    assert str(caught.value) == (
        f"1 image is not in {tmp_path}/images.zip:\n    {file}, line 2: {message}"
    )


@pytest.mark.parametrize("path", ["/etc/a.png", "../a.png", "C:\\a.png", "a/../../b.png", ".."])
def test_a_path_out_of_the_images_folder_is_refused(tmp_path, path):
    file = write_csv(tmp_path, [*ROWS, f"{path},Fuji,Äpfel,train"], images=False)
    with pytest.raises(DatasetError, match=r"line 14: path .* leads out of the images' folder"):
        _ = Csv(**options(file)).rows


def test_an_address_is_no_path(tmp_path):
    file = write_csv(tmp_path, [*ROWS, "https://a.org/a.png,Fuji,Äpfel,train"], images=False)
    with pytest.raises(DatasetError, match=r"line 14: path https:/a\.org/a\.png is an address"):
        _ = Csv(**options(file)).rows


def test_a_file_or_a_folder_that_cannot_be_read_in_place_of_the_images_is_refused(
    tmp_path, monkeypatch
):
    file = write_csv(tmp_path)
    with pytest.raises(DatasetError, match=r"images: .*my\.csv is neither a folder nor a \.zip"):
        Csv(**options(file, images=str(file))).check()

    def refuse(folder):
        raise PermissionError(13, "Permission denied", str(folder))

    monkeypatch.setattr("os.scandir", refuse)
    with pytest.raises(DatasetError, match=rf"images: cannot read {tmp_path}/\w+: Permission"):
        Csv(**options(file)).check()


def test_a_folder_may_be_named_as_a_zip(tmp_path):
    file = write_csv(tmp_path / "photos.zip")
    assert Path(Csv(**options(file, images=str(file.parent))).place).is_dir()
    Csv(**options(file, images=str(file.parent))).check()
