"""Check that the tests of a loss notice bugs: python tests/losses/mutate.py rll softtriple ...

For each bug of mutants.toml, a child process puts the bug into the loss's source, in memory, and
runs the loss's tests. The exit code is 1 if the tests fail without a bug, or pass with one.
"""

import importlib
import importlib.util
import os
import signal
import sys
import tomllib
from pathlib import Path

HERE = Path(__file__).parent
MUTANTS = tomllib.loads((HERE / "mutants.toml").read_text())
DEADLINE = 300  # seconds per bug
OUTCOMES = {0: "NOT noticed", 1: "noticed", None: "NO result: killed, or out of time"}


def source_of(name):
    return Path(importlib.util.find_spec(f"dmlbench.losses.{name}").origin).read_text()


def mutated(name, mutant):
    """The source of the loss with the bug.

    Raises:
        ValueError: the text to replace is not there, or not once.
    """
    source = source_of(name)
    count = source.count(mutant["old"])
    if count != 1:
        raise ValueError(
            f"mutants.toml, {name}, {mutant['bug']!r}: its 'old' is {count} times in "
            f"dmlbench/losses/{name}.py, not once. Write the bug for the present code."
        )
    return source.replace(mutant["old"], mutant["new"])


def run_tests(name, source):
    """Exit code of the loss's tests with `source` as its code; None if killed, or out of time."""
    child = os.fork()
    if not child:
        try:
            os._exit(_run_tests(name, source))
        finally:  # the bug does not even import
            os._exit(70)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return status if status >= 0 else None


def _run_tests(name, source):
    import pytest
    from hypothesis import Phase, settings

    signal.alarm(DEADLINE)
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, 1)
    os.dup2(devnull, 2)
    # One failing example is enough: do not shrink it, and do not save it for later runs
    settings.register_profile(
        "mutants", phases=[Phase.explicit, Phase.generate], derandomize=True, database=None
    )
    settings.load_profile("mutants")

    spec = importlib.util.find_spec(f"dmlbench.losses.{name}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    exec(compile(source, spec.origin, "exec"), vars(module))

    tests = sorted(map(str, HERE.glob(f"test_{name.strip('_')}*.py")))
    if not name.startswith("_"):
        of_loss = f"::test_value_and_gradient_equal_the_formulas_of_the_paper[{name}]"
        tests.append(f"{HERE}/test_references.py{'' if name == 'base' else of_loss}")
    return int(pytest.main(["-x", "-q", "-p", "no:cacheprovider", *tests]))


def main(names):
    # Import for all children at once, but nothing of dmlbench.losses, which each child imports
    for slow in ("faiss", "pytorch_metric_learning.losses", "scipy.cluster", "scipy.optimize"):
        importlib.import_module(slow)

    good = True
    for name in names:
        clean = run_tests(name, source_of(name))
        print(f"{name}: {'passes' if clean == 0 else f'FAILS (pytest ends with {clean})'}")
        good &= clean == 0
        for mutant in MUTANTS[name]:
            code = run_tests(name, mutated(name, mutant))
            outcome = OUTCOMES.get(code, f"NO result: does not run (pytest ends with {code})")
            print(f"  {outcome}: {mutant['bug']}", flush=True)
            good &= code == 1
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or MUTANTS))
