"""A file is what was written, or it is noticed."""

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dmlbench.utils.digests import (
    SMALL,
    add_digest,
    describe_file,
    is_unchanged,
    read_text_with_digest,
    read_with_digest,
    write_with_digest,
)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=9,
)


@given(content=st.dictionaries(st.text().filter(lambda key: key != "digest"), JSON, min_size=1))
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_json_is_read_as_it_was_written_and_any_reader_of_json_reads_it(tmp_path, content):
    file = tmp_path / "a.json"
    write_with_digest(file, content)
    read = read_with_digest(file)
    assert json.loads(file.read_bytes()) == read
    assert len(read.pop("digest")) == 64
    assert read == content


def test_text_that_is_no_utf_8_is_kept(tmp_path):
    write_with_digest(tmp_path / "a.json", {"message": "file \udcff"})
    assert read_with_digest(tmp_path / "a.json")["message"] == "file \udcff"


def test_another_content_with_the_same_digest_is_refused(tmp_path):
    file = tmp_path / "a.json"
    write_with_digest(file, {"value": 0.5})
    file.write_text(file.read_text().replace("0.5", "0.6"))
    with pytest.raises(ValueError, match="its digest is that of another content"):
        read_with_digest(file)
    file.write_text('{\n "value": 0.6\n}\n')
    with pytest.raises(ValueError, match="it does not end with a digest"):
        read_with_digest(file)


@pytest.mark.parametrize("size", [0, 1, SMALL, SMALL + 1])
def test_a_file_is_described_by_its_size_and_its_digest(tmp_path, size):
    file = tmp_path / "a"
    file.write_bytes(bytes(size))
    record = describe_file(file)
    assert record["bytes"] == size
    assert is_unchanged(file, record)
    assert is_unchanged(file, record, quick=True)
    file.write_bytes(bytes(size + 1))
    assert not is_unchanged(file, record, quick=True)
    if size:
        file.write_bytes(bytes(size - 1) + b"x")
        assert not is_unchanged(file, record)
        assert is_unchanged(file, record, quick=True) == (size > SMALL)


TEXT = "tiny: 3 of 3 results\nkey 0123\n"


def test_text_with_a_digest_is_read_as_it_was_written(tmp_path):
    file = tmp_path / "tracked.txt"
    file.write_text(add_digest(TEXT))
    assert read_text_with_digest(file) == TEXT


@given(place=st.floats(0, 1, exclude_max=True), byte=st.integers(0, 255))
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_byte_of_a_text_that_changes_is_noticed(tmp_path, place, byte):
    file = tmp_path / "tracked.txt"
    content = add_digest(TEXT).encode()
    position = int(place * len(content))
    changed = content[:position] + bytes([byte]) + content[position + 1 :]
    file.write_bytes(changed)
    assert read_text_with_digest(file) == (TEXT if changed == content else None)
    file.write_bytes(content[:position])
    assert read_text_with_digest(file) is None


def test_a_missing_text_is_none(tmp_path):
    assert read_text_with_digest(tmp_path / "tracked.txt") is None
