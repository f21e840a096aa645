"""The tests of each native loss notice bugs that implementations of it have had, or could have."""

import subprocess
import sys

import pytest

from dmlbench.losses import list_losses
from dmlbench.losses._headers import header

FILES = ["base", *(name for name in list_losses() if not header(name).wraps)]


@pytest.mark.parametrize("name", FILES)
def test_bugs_are_written_for_the_code_as_it_is(name, mutate):
    sources = {mutate.mutated(name, mutant) for mutant in mutate.MUTANTS[name]}
    assert len(sources) >= 5
    for source in sources:
        compile(source, name, "exec")


def test_a_bug_for_code_that_is_gone_is_an_error(mutate):
    gone = {"bug": "a wrong sign", "old": "what once was", "new": "-1"}
    with pytest.raises(ValueError, match=r"rll, 'a wrong sign': its 'old' is 0 times"):
        mutate.mutated("rll", gone)


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_every_bug_is_noticed(name, mutate):
    command = [sys.executable, mutate.__file__, name]  # it forks, which a test must not
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
