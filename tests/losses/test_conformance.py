"""Every loss passes every check of `dmlbench check`, or declares why it does not."""

import pytest

from dmlbench.conformance import kit
from dmlbench.conformance.subject import find_loss
from dmlbench.losses import list_losses

NOT_WRAPPED = ("host", "compile")  # not for wrapped losses: their library waits for the GPU


@pytest.fixture(scope="module")
def subjects():
    return {name: find_loss(name, {}) for name in list_losses()}


@pytest.mark.parametrize("check", kit.CHECKS, ids=lambda check: check.name)
@pytest.mark.parametrize("name", list_losses())
def test_a_loss_passes_a_check_or_declares_why_not(name, check, subjects):
    subject = subjects[name]
    result = check(subject)
    # A declaration that is no longer needed is as wrong as a missing one
    expected = "declared" if check.name in subject.by_design else "ok"
    if subject.kind == "wrapped" and check.name in NOT_WRAPPED:
        expected = "-"
    assert result.verdict == expected, f"\n{name}: {result}"
