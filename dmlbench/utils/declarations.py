"""What a file declares, read from its syntax tree: a study is checked without importing torch."""

from __future__ import annotations

import ast
import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from dmlbench.utils.modules import module_file, parse_file, parse_module

ANNOTATIONS = {
    "Literal": Literal,
    "float": float,
    "int": int,
    "bool": bool,
    "str": str,
    "tuple": tuple,
}
"""What the annotation of an option may name."""


@dataclass(frozen=True)
class Declarations:
    """A file's literal constants, and the options of its one public class: (type, default)."""

    constants: dict[str, Any]
    options: dict[str, tuple[Any, Any]]


@cache
def read_declarations(module: str) -> Declarations:
    """The constants and options of `module`.

    Raises:
        TypeError: an option has no annotation or no literal default; an error of its author.
    """
    return read_declarations_of(module_file(module))


def read_declarations_of(path: Path) -> Declarations:
    """As `read_declarations`, for a file that need not be importable."""
    constants, tree = {}, parse_file(path)
    for node in tree.body:
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            target = node.targets[0] if isinstance(node, ast.Assign) else node.target
            with contextlib.suppress(ValueError):  # not literal: part of the code, no declaration
                constants[ast.unparse(target)] = ast.literal_eval(node.value)
    options = {}
    for argument, default in _options(tree):
        options[argument.arg] = _option(path, argument, default)
    return Declarations(constants, options)


def read_docstring(module: str) -> str:
    """The docstring of `module`."""
    return ast.get_docstring(parse_module(module)) or ""


def read_docstring_of(path: Path) -> str:
    """The docstring of the file `path`."""
    return ast.get_docstring(parse_file(path)) or ""


def calls_its_argument(module: str, method: str) -> bool:
    """Whether a method of this name in `module` calls one of its own arguments."""
    for node in ast.walk(parse_module(module)):
        if isinstance(node, ast.FunctionDef) and node.name == method:
            names = {argument.arg for argument in node.args.args}
            called = (inner.func for inner in ast.walk(node) if isinstance(inner, ast.Call))
            if any(isinstance(func, ast.Name) and func.id in names for func in called):
                return True
    return False


def defines(module: str, method: str) -> bool:
    """Whether a class or a function in `module` defines a function of this name."""
    nodes = ast.walk(parse_module(module))
    return any(isinstance(node, ast.FunctionDef) and node.name == method for node in nodes)


def parse_annotation(text: str) -> Any:
    """The type that the annotation of an option means."""
    return eval(text, {"__builtins__": {}}, ANNOTATIONS)


def _options(tree: ast.Module) -> Iterator[tuple[ast.arg, ast.expr | None]]:
    """Keyword-only arguments of the constructors of public classes, with their defaults."""
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            for method in node.body:
                if isinstance(method, ast.FunctionDef) and method.name == "__init__":
                    yield from zip(method.args.kwonlyargs, method.args.kw_defaults, strict=True)


def _option(path: Path, argument: ast.arg, default: ast.expr | None) -> tuple[Any, Any]:
    try:
        if argument.annotation is None or default is None:
            raise ValueError("it has no annotation or no default")
        return parse_annotation(ast.unparse(argument.annotation)), ast.literal_eval(default)
    except (ValueError, NameError, TypeError) as error:
        raise TypeError(
            f"{path}:{argument.lineno}: option '{argument.arg}': {error}. An option is a keyword-"
            f"only argument with a literal default and an annotation of {', '.join(ANNOTATIONS)}."
        ) from None
