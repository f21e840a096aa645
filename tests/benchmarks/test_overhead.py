"""The benchmark of the overhead times functions that exist."""

import ast
import importlib.util
from pathlib import Path

import pytest

from dmlbench.utils.modules import find_file, parse_module

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def overhead():
    spec = importlib.util.spec_from_file_location("overhead", BENCHMARKS / "overhead.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def names_in(body):
    """The functions and classes in a block, with those that it imports, by name."""
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name, node
        elif isinstance(node, ast.ImportFrom):
            yield from ((alias.asname or alias.name, node) for alias in node.names)


def exists(path):
    """Whether `path` is a function or class of a module, or a method of one of its classes."""
    words = path.split(".")
    length = next(n for n in range(len(words), 0, -1) if find_file(".".join(words[:n])))
    node = parse_module(".".join(words[:length]))
    for word in words[length:]:
        node = dict(names_in(node.body)).get(word)
        if node is None:
            return False
    return length < len(words)


def test_the_functions_that_are_timed_exist(overhead):
    assert exists("dmlbench.training.checkpoint.Checkpoint.save")
    assert not exists("dmlbench.training.checkpoint.Checkpoint.store")
    assert [path for path in overhead.PARTS if not exists(path)] == []
