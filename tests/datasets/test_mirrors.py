"""Mirrors of official data sets in Parquet files give the official rows."""

import json
import zipfile
from pathlib import Path

import pytest

from dmlbench.datasets import Row, cars196, cub200, inshop, mirrors, sop
from dmlbench.datasets.parquet import Parquet
from dmlbench.datasets.store.pack import pack
from dmlbench.datasets.store.reader import Store
from dmlbench.utils.errors import DatasetError

from .made_parquet import write_parquet

BIRDS = mirrors.BIRDS.split()
CUB50 = Path(__file__).parents[3] / "shared/data/cub50/cub50.zip"


@pytest.fixture
def counts(monkeypatch):
    """Let a data set have other counts than the official ones."""

    def declare(module, train, test, **facts):
        splits = {"train": train, "test": test}
        monkeypatch.setattr(module, "FACTS", {**module.FACTS, "splits": splits, **facts})

    return declare


@pytest.fixture
def data(tmp_path, monkeypatch):
    """The data folder."""
    monkeypatch.setenv("DMLBENCH_DATA", str(tmp_path / "data"))
    (tmp_path / "data/archives").mkdir(parents=True)
    return tmp_path / "data"


def write_cub(folder):
    """Two images of each of four species, in the split of a classification task; (file, rows)."""
    names = ["Laysan_Albatross", "Brown_Pelican", "White_Pelican", "Whip_poor_Will"]
    paths = [f"{name.title()}_000{k}_4{k}.jpg" for name in names for k in (1, 2)]
    for part in (0, 1):
        name = ("train", "test")[part]
        write_parquet(folder / f"{name}-0.parquet", [0, 1, 2, 3], names, paths[part::2])
    return paths


def test_cub_is_matched_by_the_species_in_the_names_of_the_files(tmp_path, counts):
    counts(cub200, [2, 4], [2, 4])
    write_cub(tmp_path)
    dataset = Parquet(files=str(tmp_path), mirror_of="cub200")
    assert [row[:5] for row in dataset.rows[::2]] == [
        (f"{name}/{name[4:].title()}_0001_41.jpg", name, (), split, "both")
        for name, split in (
            ("002.Laysan_Albatross", "train"),
            ("100.Brown_Pelican", "train"),
            ("101.White_Pelican", "test"),
            ("105.Whip_poor_Will", "test"),
        )
    ]
    assert dataset.FACTS["recall_at"] == cub200.FACTS["recall_at"]
    assert dataset.FACTS["splits"] == {"train": [2, 4], "test": [2, 4]}


def test_a_mirror_of_cub_gives_the_store_of_the_archive(
    tmp_path, counts, data, decode_in_threads, pack_archives
):
    counts(cub200, [2, 4], [2, 4])
    paths = write_cub(tmp_path / "mirror")
    options = {"files": str(tmp_path / "mirror"), "mirror_of": "cub200"}
    pack("parquet", 8, tmp_path / "store", data / "archives", options=options)
    mirror = Store(tmp_path / "store")
    images = {row.path: source for row, source in Parquet(**options).images({})}
    assert len(images) == len(paths)
    listing = "".join(f"{k} {path}\n" for k, path in enumerate(images, start=1))
    members = {f"CUB_200_2011/images/{path}": content for path, content in images.items()}
    archive = {**members, "CUB_200_2011/images.txt": listing.encode()}
    store = pack_archives("cub200", {"CUB_200_2011.tgz": archive}, side=8)
    assert mirror.manifest["content"] == store.manifest["content"]


@pytest.mark.skipif(not CUB50.is_file(), reason="the photographs are not here")
def test_the_real_names_of_cub_are_matched_to_their_folders():
    with zipfile.ZipFile(CUB50) as archive:
        names = [name for name in archive.namelist() if name.endswith(".jpg")]
    match = mirrors.MIRRORED["cub200"]([], Path())
    for name in names:
        path = name.removeprefix("images/")
        row = match(Row(path.rpartition("/")[2], "", (), ""))
        assert row == Row(path, path.partition("/")[0], (), "train")


def test_the_species_of_cub_are_those_of_its_folders():
    assert (len(BIRDS), len(set(BIRDS))) == (200, 200)
    numbers = {name: BIRDS.index(name) + 1 for name in ("Ovenbird", "Artic_Tern", "House_Wren")}
    assert numbers == {"Ovenbird": 99, "Artic_Tern": 141, "House_Wren": 196}


CARS = ["AM General Hummer SUV 2000", "Eagle Talon Hatchback 1998", "FIAT 500 Abarth 2012"]
CARS += ["Ram C-V Cargo Van Minivan 2012"]


def test_cars_are_matched_by_part_model_and_number(tmp_path, counts):
    counts(cars196, [2, 4], [2, 4])
    for part in ("train", "test"):
        paths = [f"0000{k}.jpg" for k in range(4)]
        write_parquet(tmp_path / f"{part}-0.parquet", [0, 1, 2, 3], CARS, paths)
    rows = Parquet(files=str(tmp_path), mirror_of="cars196").rows
    assert {(row.class_name, row.split) for row in rows} == {
        (CARS[0], "train"),
        (CARS[1], "train"),
        (CARS[2], "test"),
        ("Ram C/V Cargo Van Minivan 2012", "test"),
    }
    ram = [row.path for row in rows if row.class_name.startswith("Ram")]
    assert ram == [f"car_data/car_data/{part}/{CARS[3]}/00003.jpg" for part in ("test", "train")]


def test_cars_of_the_original_archive_are_matched_by_number(tmp_path, counts):
    counts(cars196, [1, 2], [1, 2])
    paths = [f"{k:06}.jpg" for k in (1, 2, 3, 4)]
    write_parquet(tmp_path / "a.parquet", [1, 1, 2, 2], CARS, paths)
    rows = Parquet(files=str(tmp_path), mirror_of="cars196").rows
    assert [row.path for row in rows] == [f"car_ims/{path}" for path in paths]


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("in_path", [False, True])
def test_sop_is_matched_by_product_and_kind(tmp_path, counts, first, in_path):
    counts(sop, [2, 4], [1, 2], super_classes=2)
    numbers = [1, 1, 11318, 11318, 11319, 11319]
    kinds = ["chair", "chair", "mug", "mug", "mug", "mug"]
    paths = [f"{product}0_{k % 2}.JPG" for k, product in enumerate(numbers)]
    if in_path:
        paths = [f"{kind}_final/{path}" for kind, path in zip(kinds, paths, strict=True)]
    labels = [number - 1 + first for number in numbers]
    write_parquet(tmp_path / "train-0.parquet", labels, None, paths, kind=kinds)
    levels = () if in_path else ("kind",)
    rows = Parquet(files=str(tmp_path), mirror_of="sop", levels=levels).rows
    assert [row[:4] for row in rows] == [
        ("chair_final/10_0.JPG", "00001", ("chair",), "train"),
        ("chair_final/10_1.JPG", "00001", ("chair",), "train"),
        ("mug_final/113180_0.JPG", "11318", ("mug",), "train"),
        ("mug_final/113180_1.JPG", "11318", ("mug",), "train"),
        ("mug_final/113190_0.JPG", "11319", ("mug",), "test"),
        ("mug_final/113190_1.JPG", "11319", ("mug",), "test"),
    ]


INSHOP = [
    ("WOMEN/Dresses/id_00000001/02_1_front", "train"),
    ("WOMEN/Dresses/id_00000001/02_2_side", "train"),
    ("MEN/Denim/id_00000002/02_1_front", "query"),
    ("MEN/Denim/id_00000002/02_2_side", "gallery"),
]


@pytest.mark.parametrize(
    "form",
    [
        "img/{}.jpg",
        "{}.jpg",
        lambda path: path.replace("/", "-") + ".png",
        lambda path: "/".join(path.split("/")[2:]) + ".jpg",
        lambda path: path.split("/")[3] + ".jpg",
    ],
)
def test_inshop_is_matched_by_the_end_of_the_path(tmp_path, counts, data, form):
    counts(inshop, [1, 2], [1, 2], roles={"query": 1, "gallery": 1})
    lines = [f"img/{path}.jpg {path.split('/')[2]} {role}" for path, role in INSHOP]
    (data / "archives/inshop_list_eval_partition.txt").write_text(
        "\n".join(["4", "image_name item_id evaluation_status", *lines])
    )
    make = form.format if isinstance(form, str) else form
    labels = [path.split("/")[2] for path, _ in INSHOP]
    write_parquet(tmp_path / "a.parquet", labels, None, [make(path) for path, _ in INSHOP])
    rows = Parquet(files=str(tmp_path / "a.parquet"), mirror_of="inshop").rows
    assert {row.path: row.role for row in rows} == {
        f"img/{path}.jpg": role.replace("train", "both") for path, role in INSHOP
    }
    assert rows[0].levels == ("MEN/Denim", "MEN")


def test_a_mirror_of_inshop_needs_the_list_of_the_authors(tmp_path, data):
    write_parquet(tmp_path / "a.parquet", ["id_1", "id_1"], None, ["a.jpg", "b.jpg"])
    with pytest.raises(DatasetError, match=r"inshop_list_eval_partition\.txt is not there"):
        Parquet(files=str(tmp_path / "a.parquet"), mirror_of="inshop").check()


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        (None, r"8 of 8 images are not matched to cub200:\n +.*row 0: an image without a path"),
        (
            [f"{k}.jpg" for k in range(8)],
            r"8 of 8 images are not matched.*row 0: 0\.jpg",
        ),
        (
            [*[f"Ovenbird_{k}_1.jpg" for k in range(7)], "Ovenbird_0_1.jpg"],
            r"1 of 8 images are not matched.*row 7: Ovenbird_0_1\.jpg is .*row 0 again",
        ),
        (
            [f"Ovenbird_{k}_1.jpg" for k in range(8)],
            r"does not hold the official split:.*train: classes: found 1, expected 100",
        ),
    ],
)
def test_what_is_not_the_official_data_set_is_refused(tmp_path, paths, message):
    file = write_parquet(tmp_path / "a.parquet", [0] * 8, ["Ovenbird"], paths)
    with pytest.raises(DatasetError, match=f"(?s){message}"):
        Parquet(files=str(file), mirror_of="cub200").check()


def test_the_facts_of_a_mirror_are_official_before_it_is_fetched():
    commit = "0" * 40
    facts = Parquet(repo="owner/cub", revision=commit, mirror_of="cub200").FACTS
    assert facts["hub"] == {"repo": "owner/cub", "commit": commit, "files": ["*.parquet"]}
    assert json.loads(json.dumps(facts)) == facts
    assert {name: facts[name] for name in cub200.FACTS} == cub200.FACTS
