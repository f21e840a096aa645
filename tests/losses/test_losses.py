"""Finding and creating losses by name."""

import importlib
import subprocess
import sys

import pytest

from dmlbench.losses import create_loss, list_losses
from dmlbench.losses.base import Loss
from dmlbench.utils.declarations import read_declarations

SOME_NAMES = [
    "hpl",
    "htl",
    "multi_similarity",
    "normalized_softmax",
    "proxy_anchor",
    "rll",
    "softtriple",
    "triplet",
]


def run_python(code):
    """The words that `code` prints in a new process."""
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()


def test_the_folder_lists_the_losses_and_nothing_else():
    assert set(SOME_NAMES) <= set(list_losses())
    assert not {"base", "_pml", "__init__"} & set(list_losses())


@pytest.mark.parametrize("name", list_losses())
def test_each_file_holds_one_loss(name):
    loss = create_loss(name, 5, 8)
    assert isinstance(loss, Loss)
    assert type(loss).__module__ == f"dmlbench.losses.{name}"


@pytest.mark.parametrize("name", list_losses())
def test_the_search_space_contains_the_defaults_of_declared_options(name):
    declared = read_declarations(f"dmlbench.losses.{name}")
    assert declared.constants["SEARCH_SPACE"]
    for option, space in declared.constants["SEARCH_SPACE"].items():
        assert set(space) <= {"low", "high", "log"}
        assert space["low"] <= declared.options[option][1] <= space["high"]
    for divisors in ("BATCH_DIVISORS", "DIM_DIVISORS"):
        assert set(declared.constants.get(divisors, ())) <= set(declared.options)


@pytest.mark.parametrize("name", list_losses())
def test_bounds_are_literal_and_belong_to_declared_options(name):
    module = importlib.import_module(f"dmlbench.losses.{name}")
    declared = read_declarations(module.__name__)
    for bounds in ("LEAST", "ABOVE", "MOST"):
        assert declared.constants.get(bounds) == getattr(module, bounds, None)
        assert set(declared.constants.get(bounds, ())) <= set(declared.options)


def test_listing_imports_no_torch():
    code = "import sys, dmlbench.losses as l; l.list_losses(); print(*sys.modules)"
    assert not {"torch", "numpy", "pydantic"} & set(run_python(code))


def test_creating_a_loss_imports_its_file_alone():
    code = (
        "import sys; from dmlbench.losses import create_loss; create_loss('rll', 3, 4);"
        "print(*sys.modules)"
    )
    modules = run_python(code)
    assert {m for m in modules if m.startswith("dmlbench.losses.")} == {
        "dmlbench.losses._memory",
        "dmlbench.losses._usage",
        "dmlbench.losses.base",
        "dmlbench.losses.rll",
    }
    assert not {"scipy", "faiss", "pytorch_metric_learning"} & set(modules)


def test_the_error_for_a_misspelt_name_suggests_the_nearest_and_lists_all():
    message = r"no loss 'softripple'. Did you mean 'softtriple'"
    with pytest.raises(ValueError, match=message) as caught:
        create_loss("softripple", 3, 4)
    assert all(name in str(caught.value) for name in SOME_NAMES)


@pytest.mark.parametrize("name", ["base", "_pml", "__init__"])
def test_helper_files_are_not_losses(name):
    with pytest.raises(ValueError, match="no loss"):
        create_loss(name, 3, 4)
