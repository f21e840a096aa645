"""What dmlbench's own source says, read from its syntax trees: nothing here is imported.

Two questions are answered. *Has the code that produces a number changed?* - by a digest that
comments, docstrings and layout do not move. *Which options does this file declare?* - so that a
study is checked without torch.
"""

from __future__ import annotations

import ast
import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

PACKAGE = Path(__file__).parent
NO_NUMBERS = frozenset(
    f"dmlbench.{name}"
    for name in (
        *("files", "installed", "problems", "source", "datasets", "losses"),
        *("training.checkpoint", "training.progress", "training.state"),
    )
)
"""Modules that training and evaluation import and that make no number: files, names, messages,
progress. (A package's name stands for its __init__ alone.)"""
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
ANNOTATIONS = {
    **{"Literal": Literal, "float": float, "int": int, "bool": bool, "str": str},
    "tuple": tuple,
}


@dataclass(frozen=True)
class Declarations:
    """A file's literal constants, and the options of its one public class: (type, default)."""

    constants: dict[str, Any]
    options: dict[str, tuple[Any, Any]]


@cache
def digest(*modules: str) -> str:
    """16 hex digits over the code of `modules` and of all that they import from this package and
    that makes numbers."""
    seen: dict[str, str] = {}
    todo = list(modules)
    while todo:
        module = todo.pop()
        if module not in seen and module not in NO_NUMBERS:
            seen[module], imported = _normalised(module)
            todo += imported
    return sha256(repr(sorted(seen.items())).encode()).hexdigest()[:16]


@cache
def declarations(module: str) -> Declarations:
    """Read the constants and options of `module`; a default or constant that is not literal is
    an error of the file's author, and says so."""
    path, tree = _parse(module)
    constants = {}
    for node in tree.body:
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            target = node.targets[0] if isinstance(node, ast.Assign) else node.target
            with contextlib.suppress(ValueError):  # not a literal: for the code, no declaration
                constants[ast.unparse(target)] = ast.literal_eval(node.value)
    options = {}
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            for method in node.body:
                if isinstance(method, ast.FunctionDef) and method.name == "__init__":
                    for argument, default in zip(
                        method.args.kwonlyargs, method.args.kw_defaults, strict=True
                    ):
                        options[argument.arg] = _option(path, argument, default)
    return Declarations(constants, options)


def exists(module: str) -> bool:
    """Whether `module` is a file or folder of this package."""
    return _path(module) is not None


def _option(path: Path, argument: ast.arg, default: ast.expr | None) -> tuple[Any, Any]:
    try:
        if argument.annotation is None or default is None:
            raise ValueError("it has no annotation or no default")
        annotation = compile(ast.Expression(argument.annotation), str(path), "eval")
        kind = eval(annotation, {"__builtins__": {}}, ANNOTATIONS)
        return kind, ast.literal_eval(default)
    except (ValueError, NameError, TypeError) as error:
        raise TypeError(
            f"{path}:{argument.lineno}: option '{argument.arg}': {error}. An option is a keyword-"
            f"only argument with a literal default and an annotation of {', '.join(ANNOTATIONS)}."
        ) from None


def _path(module: str) -> Path | None:
    package, *parts = module.split(".")
    stem = PACKAGE.joinpath(*parts)
    if package == PACKAGE.name and parts:
        for path in (stem.with_suffix(".py"), stem / "__init__.py"):
            if path.is_file():
                return path
    return None


def _parse(module: str) -> tuple[Path, ast.Module]:
    path = _path(module)
    if path is None:
        raise ModuleNotFoundError(f"no module {module} in {PACKAGE}")
    return path, ast.parse(path.read_text(encoding="utf-8"), str(path))


@cache
def _normalised(module: str) -> tuple[str, list[str]]:
    """Digest of one module without docstrings, and the package's modules that it imports."""
    _, tree = _parse(module)
    imported = sorted(set(_imports(tree)))
    for node in ast.walk(tree):
        if isinstance(node, DOCUMENTED) and ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    # ast.unparse and not ast.dump: the latter differs between Python versions
    return sha256(ast.unparse(tree).encode()).hexdigest(), imported


def _imports(tree: ast.AST) -> Iterator[str]:
    """The package's modules that `tree` imports when it runs, function-level imports included."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        for name in names:
            parts = name.split(".")
            # importing a.b.c runs a.b's __init__ as well
            for end in range(2, len(parts) + 1):
                module = ".".join(parts[:end])
                if _path(module) is not None:
                    yield module
        yield from _imports(node)
