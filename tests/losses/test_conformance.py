"""Every loss passes every check of `dmlbench check`; what is meant otherwise is declared."""

import pytest

from dmlbench.conformance import kit
from dmlbench.conformance.subject import find
from dmlbench.losses import list_losses

FOREIGN = ("host", "compile")  # of losses that wrap: their library waits for the host


@pytest.fixture(scope="module")
def subjects():
    return {name: find(name, {}) for name in list_losses()}


@pytest.mark.parametrize("check", kit.CHECKS, ids=lambda check: check.name)
@pytest.mark.parametrize("name", list_losses())
def test_a_loss_does_as_it_must(name, check, subjects):
    subject = subjects[name]
    result = check(subject)
    # a declaration that is not needed any more is as wrong as a missing one
    expected = "declared" if check.name in subject.by_design else "ok"
    if subject.kind == "wrapped" and check.name in FOREIGN:
        expected = "-"
    assert result.verdict == expected, f"\n{name}: {result}"
