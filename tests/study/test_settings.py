"""Settings as they are after they were checked."""

from dmlbench.study.settings import Dataset


def test_a_checksum_of_upper_case_is_that_of_lower_case():
    upper = Dataset(type="csv", checksums={"a.zip": f"MD5:{'AB' * 16}"})
    assert upper.checksums == {"a.zip": f"md5:{'ab' * 16}"}
