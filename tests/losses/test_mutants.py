"""The tests of each native loss notice bugs that implementations of it have had, or could have."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from dmlbench.losses import list_losses
from dmlbench.losses._headers import header

SCRIPT = Path(__file__).with_name("mutate.py")
FILES = ["base", *(name for name in list_losses() if not header(name).wraps)]


@pytest.fixture(scope="module")
def mutate():
    spec = importlib.util.spec_from_file_location("mutate", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


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
def test_every_bug_is_noticed(name):
    done = subprocess.run([sys.executable, SCRIPT, name], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
