"""Faults that train and look right: each fails the check of its kind, which says what it is."""

import re

import pytest

from dmlbench.conformance import kit
from dmlbench.conformance.subject import find_loss
from tests.conformance.faults import EXTRA, MORE, TEN, WEIGHT

CHECKS = {check.name: check for check in kit.CHECKS}


@pytest.fixture
def write_fault(write_loss):
    """Write the good loss with a fault, and find it."""

    def write(replacements, more=()):
        subject = write_loss()
        text = subject.path.read_text()
        replacements = [*replacements, *more]
        for old, new in zip(replacements[::2], replacements[1::2], strict=True):
            assert old in text
            text = text.replace(old, new, 1)
        subject.path.write_text(text)
        return find_loss(str(subject.path), {})

    return write


@pytest.mark.parametrize("fault", TEN)
def test_a_faulty_loss_fails_the_command_by_the_check_of_its_kind(fault, write_fault, capsys):
    name, message, *replacements = TEN[fault]
    assert not kit.check_loss(str(write_fault(replacements).path), {})
    printed = capsys.readouterr().out
    failed = [line.split()[1] for line in printed.splitlines() if line.startswith("FAILED")]
    assert name in failed
    assert re.search(message, " ".join(printed.split())), printed


@pytest.mark.parametrize("fault", MORE)
def test_a_fault_of_the_same_kind_fails_its_check(fault, write_fault):
    name, message, *replacements = MORE[fault]
    result = CHECKS[name](write_fault(replacements))
    assert result.verdict == "FAILED"
    assert re.search(message, " ".join(str(result).split())), str(result)


def test_a_loss_that_samples_pairs_can_declare_its_draws_and_one_that_scales_cannot(write_fault):
    declares = "class Made(Loss):", "class Made(Loss):\n    BY_DESIGN = {'random': 'samples'}"
    sampled = EXTRA, "extra = (cosine * (torch.rand(len(labels)) < 0.5)).mean()"
    assert CHECKS["random"](write_fault(sampled)).verdict == "FAILED"
    assert CHECKS["random"](write_fault(sampled, declares)).verdict == "declared"
    assert CHECKS["random"](write_fault(TEN["a random scale"][2:], declares)).verdict == "FAILED"


def test_a_count_that_only_statistics_report_passes(write_fault):
    counted = WEIGHT, f"{WEIGHT}; self.calls = 0", EXTRA, "extra = 0; self.calls += 1"
    result = CHECKS["repeats"](write_fault(counted))
    assert (result.verdict, result.line) == ("ok", "1,030 calls")


def test_a_loss_too_large_for_many_classes_is_checked_with_fewer(write_fault):
    squared = EXTRA, "extra = 0 * (unit_length(self.proxies) @ unit_length(self.proxies).T).sum()"
    result = CHECKS["many_classes"](write_fault(squared))
    assert (result.verdict, result.line) == ("ok", "of 5,000 classes")


def test_numbers_that_enter_the_value_are_left_to_the_check_of_numbering(write_fault):
    ordinal = EXTRA, "extra = pull * labels.double().mean().to(unit.dtype)"
    assert "see the check `numbering`" in CHECKS["many_classes"](write_fault(ordinal)).line
