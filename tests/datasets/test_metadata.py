"""The rows of a CSV: every problem is named with its line."""

import zipfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dmlbench.datasets.csv import Csv
from dmlbench.datasets.metadata import draw_split, read_rows
from dmlbench.utils.errors import DatasetError

from .made_csv import HEADER, example_rows, options, write_csv

pytestmark = pytest.mark.usefixtures("cache_folder")


@given(
    st.dictionaries(st.text("abc", min_size=1), st.sampled_from("xyz"), min_size=2), st.integers()
)
def test_without_a_split_half_of_the_classes_of_each_super_class_train(classes, seed):
    labels = [label for label in classes for _ in range(2)]
    supers = [(classes[label], "top") for label in labels]
    split = dict(zip(labels, drawn := draw_split(labels, supers, seed), strict=True))
    assert [split[label] for label in labels] == drawn
    for group in {"all", *classes.values()}:
        drawn_splits = [split[label] for label in classes if group in ("all", classes[label])]
        assert abs(drawn_splits.count("train") - drawn_splits.count("test")) <= 1


def test_the_drawn_split_depends_only_on_its_seed(tmp_path):
    rows = [row.rpartition(",")[0] for row in example_rows()]
    file = write_csv(tmp_path, rows, "path,label,coarse", images=False)
    splits = {
        seed: tuple(row.split for row in read_rows(file, ["coarse"], [], seed, tmp_path))
        for seed in range(9)
    }
    assert splits[0] == tuple(row.split for row in read_rows(file, ["coarse"], [], 0, tmp_path))
    assert len(set(splits.values())) > 1
    drawn = {row.class_name: row.split for row in read_rows(file, ["coarse"], [], 0, tmp_path)}
    # written down: if the draw changes, runs train again and score other classes
    assert drawn == {"Fuji": "test", "Gala": "train", "Anjou": "train", "Conference": "test"}


WRONG = {
    "both splits": (
        {2: "Apple/Gala_1.png,Gala,Apple,test"},
        "line 3: split of class 'Gala' is 'test', and 'train' on line 2",
    ),
    "two super-classes": (
        {3: "Apple/Gala_2.png,Gala,Pear,train"},
        "line 4: coarse of class 'Gala' is 'Pear', and 'Apple' on line 2",
    ),
    "one image": (
        {12: "Pear/Lone_2.png,Lone,Pear,test"},
        "line 13: class 'Lone' has only this image",
    ),
    "empty label": ({5: "Apple/Fuji_1.png, ,Apple,train"}, "line 6: label is empty"),
    "empty level": ({5: "Apple/Fuji_1.png,Fuji,,train"}, "line 6: coarse is empty"),
    "twice": ({6: example_rows()[3]}, "line 7: path Apple/Fuji_0.png is on line 5 already"),
    "split": (
        {4: "Apple/Fuji_0.png,Fuji,Apple,Train"},
        "line 5: split is 'Train', and not train or validation or test",
    ),
    "outside": (
        {4: "../Fuji_0.png,Fuji,Apple,train"},
        "line 5: path ../Fuji_0.png leads out of the images' folder",
    ),
    "short row": ({4: "Apple/Fuji_0.png,Fuji"}, "line 5: 2 values for 4 columns"),
    "open quote": (
        {12: '"Pear/Conference_2.png,Conference'},
        'line 13: a quote (") is opened here and never closed',
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_row_is_named_with_its_line(tmp_path, case):
    changes, message = WRONG[case]
    rows = example_rows()
    for number, row in changes.items():
        rows[number - 1] = row
    file = write_csv(tmp_path, rows, images=False)
    with pytest.raises(DatasetError) as error:
        _ = Csv(**options(file)).FACTS
    assert message in str(error.value)
    assert str(file) in str(error.value)


def test_all_wrong_rows_are_named_in_order_up_to_a_limit(tmp_path):
    rows = [f"{k}.png,{'' if k % 2 else 'a'},x,train" for k in range(60)]
    with pytest.raises(DatasetError) as error:
        _ = Csv(**options(write_csv(tmp_path, rows, images=False))).FACTS
    first, *lines, last = str(error.value).splitlines()
    assert first.endswith("my.csv: 30 problems:")
    assert [line.strip() for line in lines] == [
        f"line {k + 2}: label is empty" for k in range(1, 40, 2)
    ]
    assert last.strip() == "... and 10 more"


HEADERS = {
    "path,label,coarse,splt": "column 'splt' is unknown. Did you mean 'split'?",
    "path,class,coarse,split": "column 'label' is missing",
    "path,label,top,split": "column 'coarse' is missing",
    "path,label,coarse,role": "column 'role' needs a column 'split'",
    "path,label,coarse,coarse": "column 'coarse' is there twice",
    "image;label;coarse;split": "column 'path' is missing; the columns are image, label, coarse",
    "path,label,coarse,": "4 values for 3 columns",
    "path,,coarse,split": "column 2 has no name",
}


@pytest.mark.parametrize("header", HEADERS)
def test_a_wrong_column_is_named(tmp_path, header):
    with pytest.raises(DatasetError) as error:
        _ = Csv(**options(write_csv(tmp_path, header=header, images=False))).FACTS
    assert HEADERS[header] in str(error.value)


def test_an_unknown_column_must_be_ignored_explicitly(tmp_path):
    rows = [f"{row},{k}" for k, row in enumerate(example_rows())]
    file = write_csv(tmp_path, rows, f"{HEADER},width", images=False)
    with pytest.raises(DatasetError, match=r"column 'width' is unknown.*`ignore`"):
        _ = Csv(**options(file)).FACTS
    plain = write_csv(tmp_path / "plain", images=False)
    assert Csv(**options(file, ignore=("width",))).FACTS == Csv(**options(plain)).FACTS


def test_equal_paths_in_different_spellings_are_equal(tmp_path):
    rows = example_rows()
    plain = Csv(**options(write_csv(tmp_path / "a", rows)))
    spelt = [f"./{rows[0]}", rows[1].replace("/", "//"), rows[2].replace("/", "/./"), *rows[3:]]
    odd = Csv(**options(write_csv(tmp_path / "b", spelt)))
    assert odd.FACTS == plain.FACTS
    odd.check()
    twice = write_csv(tmp_path / "c", [*rows, f"./{rows[0]}"], images=False)
    with pytest.raises(DatasetError, match=r"line 14: path Apple/Gala_0\.png is on line 2"):
        _ = Csv(**options(twice)).FACTS


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"path,label\na,\xff\n", "line 2: this is not UTF-8"),
        (b"", "no rows"),
        (b"path,label,split\n", "no rows"),
        (b"path,label,split\na,x,train\nb,x,train\n", "no class is in the split test"),
        (
            b"path,label,split,role\na,x,train,\nb,x,train,\nc,y,test,query\nd,y,test,query\n",
            "gallery",
        ),
        (None, "cannot read .*my.csv"),
    ],
)
def test_a_file_without_a_complete_data_set_is_refused(tmp_path, content, message):
    if content is not None:
        (tmp_path / "my.csv").write_bytes(content)
    with pytest.raises(DatasetError, match=message):
        _ = Csv(file=str(tmp_path / "my.csv")).FACTS


def test_a_zip_without_exactly_one_csv_is_refused(tmp_path):
    (tmp_path / "no.zip").write_text("no zip")
    with pytest.raises(DatasetError, match=r"no\.zip: cannot read this zip"):
        _ = Csv(file=str(tmp_path / "no.zip")).FACTS
    with zipfile.ZipFile(tmp_path / "two.zip", "w") as archive:
        archive.writestr("a.csv", "")
        archive.writestr("b.csv", "")
    with pytest.raises(DatasetError, match=r"two\.zip: it holds a\.csv, b\.csv"):
        _ = Csv(file=str(tmp_path / "two.zip")).FACTS
