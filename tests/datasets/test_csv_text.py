"""Tables as spreadsheets and programs write them are read; other files are refused."""

import os

import pytest

from dmlbench.datasets.csv import Csv
from dmlbench.utils.errors import DatasetError

from .made_csv import HEADER, example_rows, options, write_csv

pytestmark = pytest.mark.usefixtures("cache_folder")
TEXT = "\n".join([HEADER, *example_rows()]) + "\n"
LABELS = TEXT.replace("Fuji", "Füji")


def with_index(text):
    """The table as pandas writes it: an index without a name before the first column."""
    header, *rows = text.splitlines()
    return "\n".join([f",{header}", *(f"{k},{row}" for k, row in enumerate(rows))])


SAME = {
    "semicolons": TEXT.replace(",", ";"),
    "tabs": TEXT.replace(",", "\t"),
    "bars": TEXT.replace(",", "|"),
    "Excel's line about the separator": "sep=;\r\n" + TEXT.replace(",", ";"),
    "quotes": "\n".join(
        ",".join(f'"{cell}"' for cell in row.split(",")) for row in TEXT.splitlines()
    ),
    "pandas' index": with_index(TEXT),
    "pandas' index, read and written again": "Unnamed: 0" + with_index(TEXT),
    "empty cells at the end": TEXT.replace("\n", ",,\n"),
    "empty cells at the end of rows": TEXT.replace("\n", ",,\n").replace(",,", "", 1),
    "empty lines": TEXT.replace("\n", "\n\n,,,\n"),
    "spaces": TEXT.replace(",", " , "),
    "old Mac": TEXT.replace("\n", "\r"),
}


@pytest.mark.parametrize("case", SAME)
def test_a_table_gives_the_same_facts_whatever_program_wrote_it(tmp_path, case):
    plain = Csv(**options(write_csv(tmp_path / "plain", images=False)))
    (tmp_path / "my.csv").write_bytes(SAME[case].encode())
    other = Csv(**options(tmp_path / "my.csv"))
    assert other.FACTS == plain.FACTS
    assert [row[:-1] for row in other.rows] == [row[:-1] for row in plain.rows]


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"]
)
def test_the_encodings_of_unicode_are_read(tmp_path, encoding):
    mark = "\ufeff" if encoding in ("utf-16-le", "utf-16-be") else ""
    (tmp_path / "my.csv").write_bytes((mark + LABELS.replace(",", "\t")).encode(encoding))
    rows = Csv(**options(tmp_path / "my.csv")).rows
    assert {row.class_name for row in rows} == {"Gala", "Füji", "Anjou", "Conference"}


def test_a_line_in_quotes_with_a_separator_or_a_line_break_is_one_value(tmp_path):
    text = TEXT.replace("Anjou,Pear", '"Anjou, a\npear",Pear')
    (tmp_path / "my.csv").write_text(text + "Pear/x.png,Lone,Pear,test\n")
    with pytest.raises(DatasetError) as caught:
        _ = Csv(**options(tmp_path / "my.csv")).rows
    # each of three rows takes two lines
    assert str(caught.value).endswith(
        "1 problem:\n    line 17: class 'Lone' has only this image; a class needs two"
    )


OTHER_FILES = {
    "an Excel file": (b"PK\3\4...", "this is no CSV but an Excel file"),
    "an old Excel file": (b"\xd0\xcf\x11\xe0...", "this is no CSV but an old Excel file"),
    "Parquet": (b"PAR1...", "but a Parquet file: write `type: parquet`"),
    "gzip": (b"\x1f\x8b\x08...", "but compressed with gzip"),
    "a web page": (b"<!DOCTYPE html>", "but HTML or XML"),
    "Latin-1": (
        LABELS.encode("latin-1"),
        r"line 5: this is not UTF-8 \(invalid start byte: fc\)\. Save the table as UTF-8",
    ),
    "UTF-16 without its mark": (TEXT.encode("utf-16-le"), "line 1: it holds NUL characters"),
    "half a UTF-16": (b"\xff\xfe" + TEXT.encode("utf-16-le")[:-1], "this is not UTF-16"),
    "nothing": (b"", "it has no rows below a line of column names"),
    "only separators": (b",,,\n,,,\n", "it has no rows"),
    "zeros": (bytes(100), "line 1: it holds NUL characters"),
}


@pytest.mark.parametrize("case", OTHER_FILES)
def test_a_file_of_another_kind_is_refused_with_what_it_is(tmp_path, case):
    content, message = OTHER_FILES[case]
    (tmp_path / "my.csv").write_bytes(content)
    with pytest.raises(DatasetError, match=message) as caught:
        _ = Csv(**options(tmp_path / "my.csv")).FACTS
    assert str(caught.value).startswith(f"{tmp_path}/my.csv: ")
    assert "\n" not in str(caught.value)


def test_all_problems_of_a_table_are_named_together(tmp_path):
    rows = example_rows()
    rows[1] = "Apple/Gala_1.png,Gala"
    rows[3] = "Apple/Fuji_0.png,Fuji,Apple,Train"
    rows[5] = "Apple/Fuji_2.png,,Apple,train"
    rows[7] = rows[6]
    rows[9] = "/etc/1.png,Lone,Pear,test"
    rows[10] = "Pear/Conference, the pear.png,Conference,Pear,test"
    rows[11] = '"Pear/Conference"_2.png,Conference,Pear,test'
    file = write_csv(tmp_path, rows, "path,label,coarse,splt", images=False)
    with pytest.raises(DatasetError) as caught:
        _ = Csv(**options(file, ignore=("split",))).FACTS
    title, *lines = str(caught.value).splitlines()
    assert title == f"{file}: 7 problems:"
    assert [line.strip()[:40] for line in lines] == [
        "line 1: column 'splt' is unknown. Did yo",
        "line 3: 2 values for 4 columns",
        "line 7: label is empty",
        "line 9: path Pear/Anjou_0.png is on line",
        "line 11: path /etc/1.png leads out of th",
        "line 12: 5 values for 4 columns (put a v",
        "line 13: ',' expected after '\"'",
    ]


def test_a_row_of_too_few_values_still_counts_for_its_class(tmp_path):
    rows = [*example_rows(), "Pear/x.png,Lone,Pear,test", "Pear/y.png,Lone"]
    with pytest.raises(DatasetError) as caught:
        _ = Csv(**options(write_csv(tmp_path, rows, images=False))).FACTS
    assert str(caught.value).endswith("1 problem:\n    line 15: 2 values for 4 columns")


def test_a_message_is_short_however_long_the_values_are(tmp_path):
    long = [f"{'a' * 9000}/x.png,{'b' * 9000},{'c' * 9000},{'d' * 9000}"]
    header = ",".join(f"{'e' * 500} {k}" for k in range(500))
    for rows, head, lines in (
        ([*example_rows(), *long], HEADER, 2),
        (example_rows(), header, 21),
    ):
        with pytest.raises(DatasetError) as caught:
            _ = Csv(**options(write_csv(tmp_path, rows, head, images=False))).FACTS
        assert len(str(caught.value).splitlines()) == lines + 1
        assert max(map(len, str(caught.value).splitlines())) < 1000


def test_a_folder_in_place_of_the_csv_is_refused_with_the_csv_in_it(tmp_path):
    file = write_csv(tmp_path / "my")
    with pytest.raises(DatasetError) as caught:
        _ = Csv(**options(file.parent)).FACTS
    assert str(caught.value) == (
        f"file: {tmp_path}/my is a folder: name the CSV in it: my.csv. `type: folder` needs no CSV."
    )
    (tmp_path / "empty.zip").mkdir()
    with pytest.raises(DatasetError, match=r"file: .*empty\.zip is a folder: name a CSV"):
        _ = Csv(**options(tmp_path / "empty.zip")).FACTS


def test_a_file_that_cannot_be_read_is_refused_with_the_reason(tmp_path, monkeypatch):
    file = write_csv(tmp_path, images=False)

    def refuse(path, most):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("dmlbench.datasets.metadata.read_bytes", refuse)
    with pytest.raises(DatasetError, match=rf"^file: cannot read {file}: Permission denied\.$"):
        _ = Csv(**options(file)).rows
    monkeypatch.undo()
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DatasetError, match="pipe: it is a pipe, and not a file"):
        _ = Csv(**options(tmp_path / "pipe")).rows
    (tmp_path / "link.csv").symlink_to("nowhere.csv")
    for name in ("link.csv", "none.csv"):
        with pytest.raises(DatasetError, match=rf"{name}: No such file or directory"):
            _ = Csv(**options(tmp_path / name)).FACTS
