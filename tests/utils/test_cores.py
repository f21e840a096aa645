import pytest

from dmlbench.utils.cores import usable_cores
from dmlbench.utils.errors import WrongEnvironment


def test_a_job_uses_no_more_cores_than_its_workflow_gives_it(monkeypatch):
    monkeypatch.delenv("DMLBENCH_CORES", raising=False)
    all_cores = usable_cores()
    for given, used in (("1", 1), (str(10 * all_cores), all_cores), ("", all_cores)):
        monkeypatch.setenv("DMLBENCH_CORES", given)
        assert usable_cores() == used


@pytest.mark.parametrize("value", ["abc", "0", "-1", "1.5", " 2", "²", "1" * 60])
def test_a_number_of_cores_that_is_none_is_refused(monkeypatch, value):
    monkeypatch.setenv("DMLBENCH_CORES", value)
    with pytest.raises(WrongEnvironment) as caught:
        usable_cores()
    assert str(caught.value) == (
        f"DMLBENCH_CORES: {value!r} is not a whole number from 1 to 100,000. Unset it, and all "
        "usable cores are taken."
    )
