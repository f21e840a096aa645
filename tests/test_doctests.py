"""The examples in docstrings do what they show."""

import doctest
import importlib

import pytest

from dmlbench.utils.modules import PACKAGE

FILES = [file for file in PACKAGE.rglob("*.py") if ">>> " in file.read_text()]
MODULES = [".".join(file.relative_to(PACKAGE.parent).with_suffix("").parts) for file in FILES]


@pytest.mark.parametrize("name", sorted(name.removesuffix(".__init__") for name in MODULES))
def test_examples_give_what_they_show(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    result = doctest.testmod(importlib.import_module(name), optionflags=options)
    assert result.attempted
    assert not result.failed
