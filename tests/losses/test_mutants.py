"""The tests of each native loss notice bugs that implementations of it have, or could have."""

import subprocess
import sys

import pytest

from dmlbench.losses import list_losses
from dmlbench.losses._docs_page import header

FILES = ["base", "_memory", *(name for name in list_losses() if not header(name).wraps)]


@pytest.mark.parametrize("name", FILES)
def test_the_bugs_fit_the_present_code(name, mutate):
    sources = {mutate.mutated(name, mutant) for mutant in mutate.MUTANTS[name]}
    assert len(sources) >= 5
    for source in sources:
        compile(source, name, "exec")


def test_a_bug_that_fits_no_code_is_an_error(mutate):
    mutant = {"bug": "a wrong sign", "old": "no such code", "new": "-1"}
    with pytest.raises(ValueError, match=r"rll, 'a wrong sign': its 'old' is 0 times"):
        mutate.mutated("rll", mutant)


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_every_bug_is_noticed(name, mutate):
    command = [sys.executable, mutate.__file__, name]  # it forks, which a test must not do
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
