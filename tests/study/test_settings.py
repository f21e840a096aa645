"""Settings as they are after they were checked."""

import pytest
from pydantic import ValidationError

from dmlbench.study.settings import Dataset, Recipe


def test_a_checksum_of_upper_case_is_that_of_lower_case():
    upper = Dataset(type="csv", checksums={"a.zip": f"MD5:{'AB' * 16}"})
    assert upper.checksums == {"a.zip": f"md5:{'ab' * 16}"}


@pytest.mark.parametrize("chunk", [112, 200])
def test_a_chunk_that_holds_the_whole_batch_is_refused(chunk):
    with pytest.raises(ValidationError, match=f"chunk: {chunk} is not below batch_size: 112"):
        Recipe(chunk=chunk)
    assert Recipe(chunk=111).chunk == 111
