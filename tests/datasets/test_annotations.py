import pytest

from dmlbench.datasets import Row
from dmlbench.datasets.annotations import check_splits, read_table, whole_number
from dmlbench.utils.errors import DatasetError


@pytest.fixture
def table(tmp_path):
    def write(content: bytes, **options):
        (tmp_path / "list.txt").write_bytes(content)
        return [(where[-6:], row) for where, row in read_table(tmp_path / "list.txt", **options)]

    return write


def test_lines_have_the_numbers_that_an_editor_shows(table):
    content = b"\xef\xbb\xbf2\r\nname item\r\n\r\na  1\r\nb\t2\r\n\r\n"
    assert table(content, skip=2) == [("line 4", ["a", "1"]), ("line 5", ["b", "2"])]
    assert table(content)[0] == ("line 1", ["2"])


@pytest.mark.parametrize("content", [b"", b"2\nname item", b"2\nname item\n"])
def test_a_table_that_ends_before_its_rows_is_refused(table, content):
    with pytest.raises(DatasetError, match=r"list\.txt, line 3: the table ends before"):
        table(content, skip=2)


@pytest.mark.parametrize("text", ["", "-1", "1.5", "٣", "1e3", " 1"])
def test_text_that_is_no_whole_number_is_refused(text):
    with pytest.raises(DatasetError, match=r"here: .* is no whole number"):
        whole_number(text, "here")


@pytest.mark.parametrize(
    ("number", "allowed"), [("0", False), ("1", True), ("9", True), ("10", False)]
)
def test_the_bounds_of_a_number_are_allowed(number, allowed):
    if allowed:
        assert whole_number(number, "here", 1, 9) == int(number)
        return
    with pytest.raises(DatasetError, match=rf"here: {number} is not in 1 \.\. 9"):
        whole_number(number, "here", 1, 9)


def test_only_counts_that_differ_are_named():
    rows = [Row(str(i), str(i // 2), (), "train" if i < 4 else "test") for i in range(8)]
    check_splits("made", rows, {"train": [2, 4], "test": [2, 4]}, "list.txt")
    expected = {"train": [2, 4], "test": [3, 1200]}
    with pytest.raises(DatasetError) as error:
        check_splits("made", rows, expected, "list.txt", ["7.png is missing"])
    assert str(error.value).splitlines() == [
        "made: list.txt does not hold the official split:",
        "    test: classes: found 2, expected 3",
        "    test: images: found 4, expected 1,200",
        "    7.png is missing",
    ]
