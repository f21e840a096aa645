"""Finding and creating losses by name."""

import importlib
import subprocess
import sys

import pytest

from dmlbench.losses import create_loss, list_losses
from dmlbench.losses.base import Loss
from dmlbench.source import declarations

NAMES = [
    "hpl",
    "htl",
    "multi_similarity",
    "normalized_softmax",
    "proxy_anchor",
    "rll",
    "softtriple",
    "triplet",
]


def fresh_python(code):
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()


def test_the_folder_lists_the_losses_and_nothing_else():
    assert set(NAMES) <= set(list_losses())
    assert not {"base", "_pml", "__init__"} & set(list_losses())


@pytest.mark.parametrize("name", list_losses())
def test_each_file_holds_one_loss(name):
    loss = create_loss(name, 5, 8)
    assert isinstance(loss, Loss)
    assert type(loss).__module__ == f"dmlbench.losses.{name}"


@pytest.mark.parametrize("name", list_losses())
def test_search_space_is_literal_and_holds_the_defaults_of_real_options(name):
    found = declarations(f"dmlbench.losses.{name}")
    assert found.constants["SEARCH_SPACE"]
    for option, space in found.constants["SEARCH_SPACE"].items():
        assert set(space) <= {"low", "high", "log"}
        assert space["low"] <= found.options[option][1] <= space["high"]
    for divisors in ("BATCH_DIVISORS", "DIM_DIVISORS"):
        assert set(found.constants.get(divisors, ())) <= set(found.options)


@pytest.mark.parametrize("name", list_losses())
def test_bounds_are_literal_and_of_real_options(name):
    module = importlib.import_module(f"dmlbench.losses.{name}")
    found = declarations(module.__name__)
    for bounds in ("LEAST", "ABOVE"):
        assert found.constants.get(bounds) == getattr(module, bounds, None)
        assert set(found.constants.get(bounds, ())) <= set(found.options)


def test_listing_imports_no_torch():
    code = "import sys, dmlbench.losses as l; l.list_losses(); print(*sys.modules)"
    assert not {"torch", "numpy", "pydantic"} & set(fresh_python(code))


def test_creating_a_loss_imports_that_file_alone():
    code = (
        "import sys; from dmlbench.losses import create_loss; create_loss('rll', 3, 4);"
        "print(*sys.modules)"
    )
    modules = fresh_python(code)
    assert {m for m in modules if m.startswith("dmlbench.losses.")} == {
        "dmlbench.losses.base",
        "dmlbench.losses.rll",
    }
    assert not {"scipy", "faiss", "pytorch_metric_learning"} & set(modules)


def test_a_misspelt_name_is_answered_with_the_nearest_and_all():
    with pytest.raises(ValueError, match=r"no loss 'softripple'. Did you mean 'softtriple'") as e:
        create_loss("softripple", 3, 4)
    assert all(name in str(e.value) for name in NAMES)


@pytest.mark.parametrize("name", ["base", "_pml", "__init__"])
def test_helper_files_are_no_losses(name):
    with pytest.raises(ValueError, match="no loss"):
        create_loss(name, 3, 4)
