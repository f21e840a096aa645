"""Modules: their files, syntax trees and imports, found without importing them."""

from __future__ import annotations

import ast
import contextlib
import importlib.util
from collections.abc import Iterator
from functools import cache
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

PACKAGE = Path(__file__).parents[1]
"""The folder of this package."""


def find_file(module: str) -> Path | None:
    """The file of `module`; None if there is none.

    The file of this package's own root is not returned: it holds no code.
    """
    package, *parts = module.split(".")
    folder: Path | None = PACKAGE
    if package != PACKAGE.name:
        spec = _find_package(package)
        if spec is None:
            return None
        folders = spec.submodule_search_locations
        folder = Path(next(iter(folders))) if folders else None
        if not parts:
            init = Path(spec.origin or "") if folder is None else folder / "__init__.py"
            return init if init.suffix == ".py" and init.is_file() else None
    if folder is None or not parts:
        return None
    stem = folder.joinpath(*parts)
    for path in (stem / "__init__.py", stem.with_suffix(".py")):  # in the order of Python
        if path.is_file():
            return path
    return None


def module_exists(module: str) -> bool:
    """Whether `module` is a file or folder of this package or of one that could be imported."""
    return find_file(module) is not None


def module_file(module: str) -> Path:
    """The file of `module`.

    Raises:
        ModuleNotFoundError: there is no such module.
    """
    path = find_file(module)
    if path is None:
        raise ModuleNotFoundError(f"no module {module}")
    return path


def display_path(module: str) -> str:
    """The file of `module` as a person would write it; the module's name if it has no file."""
    path = find_file(module)
    if path is None:
        return module
    for folder in (PACKAGE.parent, Path.cwd()):
        if path.is_relative_to(folder):
            return str(path.relative_to(folder))
    return str(path)


def parse_file(path: Path) -> ast.Module:
    """The syntax tree of the file `path`."""
    return ast.parse(path.read_bytes(), str(path))


@cache
def parse_module(module: str) -> ast.Module:
    """The syntax tree of `module`. It is shared: do not change it."""
    return parse_file(module_file(module))


def enclosing_package(module: str) -> str:
    """The package that the relative imports of `module` start from."""
    return module if module_file(module).stem == "__init__" else module.rpartition(".")[0]


@cache
def imported_modules(module: str) -> tuple[str, ...]:
    """Dotted names of everything that `module` imports when it runs, and of their packages.

    Imports inside functions count; imports under `if TYPE_CHECKING:` do not.
    """
    return tuple(sorted(set(_imports(parse_module(module), enclosing_package(module)))))


def is_internal(module: str, imported: str) -> bool:
    """Whether `imported` belongs to the same code base as `module`, which imports it.

    For a module of this package, that is this package. For a module of a user, it is the user's
    package, this package, and whatever lies in the current folder.
    """
    own, package = module.partition(".")[0], imported.partition(".")[0]
    if package in (own, PACKAGE.name):
        return True
    spec = _find_package(package) if own != PACKAGE.name and package else None
    return spec is not None and _is_below(spec, Path.cwd())


def is_type_checking(node: ast.AST) -> bool:
    """Whether `node` is `if TYPE_CHECKING:`, whose body never runs."""
    if not isinstance(node, ast.If):
        return False
    name = node.test.attr if isinstance(node.test, ast.Attribute) else node.test
    return name == "TYPE_CHECKING" or (isinstance(name, ast.Name) and name.id == "TYPE_CHECKING")


def resolve_import(node: ast.ImportFrom, package: str) -> str:
    """The absolute name of the module that `node` imports from.

    A relative import that leads out of the package is returned as it is written.
    """
    name = "." * node.level + (node.module or "")
    try:
        return importlib.util.resolve_name(name, package)
    except ImportError:
        return name


def public_classes(module: ModuleType) -> list[type]:
    """The classes that an imported `module` defines itself and whose names are public."""
    return [
        value
        for name, value in vars(module).items()
        if isinstance(value, type)
        and value.__module__ == module.__name__
        and not name.startswith("_")
    ]


def public_class(module: ModuleType) -> Any:
    """The class of a loss or a data set with options: the one public class of its file.

    Raises:
        TypeError: the file has none, or more than one; an error of its author.
    """
    classes = public_classes(module)
    if len(classes) != 1:
        names = ", ".join(cls.__name__ for cls in classes) or "none"
        raise TypeError(f"{module.__file__}: it has to define one public class, and has: {names}")
    return classes[0]


def _find_package(package: str) -> ModuleSpec | None:
    """The package or module that `python -m dmlbench` would import: from the current folder, else
    from the installed ones. As in Python, a folder without code comes last."""
    local = PathFinder.find_spec(package, [str(Path.cwd())])
    if local is not None and local.origin is not None:
        return local
    installed = None
    with contextlib.suppress(ValueError):  # `package` is no valid name
        installed = importlib.util.find_spec(package)
    return installed if installed is not None and installed.origin is not None else local


def _is_below(spec: ModuleSpec, folder: Path) -> bool:
    """Whether the package or module `spec` lies directly in `folder`."""
    places = [*(spec.submodule_search_locations or []), spec.origin or ""]
    return any(Path(place).resolve().parent == folder.resolve() for place in places if place)


def _imports(tree: ast.AST, package: str) -> Iterator[str]:
    for node in ast.iter_child_nodes(tree):
        if is_type_checking(node):
            for statement in getattr(node, "orelse", []):
                yield from _imports(ast.Module([statement], []), package)
            continue
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            start = resolve_import(node, package)
            names = [start, *(f"{start}.{alias.name}" for alias in node.names)]
        for name in names:
            parts = name.split(".")
            # importing a.b.c runs a.b's __init__ as well
            for end in range(1, len(parts) + 1):
                yield ".".join(parts[:end])
        yield from _imports(node, package)
