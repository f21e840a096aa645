"""What source says, read from its syntax trees: nothing here is imported.

Two questions are answered. *Has the code that produces a number changed?* - by a digest that
comments, docstrings and layout do not move. *Which options does this file declare?* - so that a
study is checked without torch.
"""

from __future__ import annotations

import ast
import contextlib
import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import Any, Literal

PACKAGE = Path(__file__).parent
NO_NUMBERS = frozenset(
    f"dmlbench.{name}"
    for name in (
        *("files", "imports", "installed", "problems", "source", "datasets", "losses"),
        "backbones.weights",
        *("training.ahead", "training.checkpoint", "training.progress", "training.state"),
    )
)
"""Modules that training and evaluation import and that make no number: files, names, messages,
progress. (A package's name stands for its __init__ alone.)"""
DECLARED = frozenset(
    ("BY_DESIGN", "GIVES_TREE", "BATCH_DIVISORS", "DIM_DIVISORS", "LEAST", "ABOVE", "SEARCH_SPACE")
)
"""Constants by which a loss tells others what it takes and gives; no number comes of them."""
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
    """16 hex digits over the code of `modules` and of all that they import; see `code`."""
    return sha256(repr(sorted(code(*modules).items())).encode()).hexdigest()[:16]


@cache
def code(*modules: str) -> dict[str, str]:
    """Digest of each module among `modules` and all that they import from their packages and that
    makes numbers; where one is the user's own, also from the folder where this is called."""
    packages = {module.partition(".")[0] for module in modules}
    own = packages != {PACKAGE.name}

    def counts(name: str) -> bool:
        package = name.partition(".")[0]
        return (package in packages or (own and _here(package) is not None)) and exists(name)

    seen: dict[str, str] = {}
    todo = list(modules)
    while todo:
        module = todo.pop()
        if module not in seen and module not in NO_NUMBERS:
            seen[module], imported = _normalised(module)
            todo += filter(counts, imported)
    return seen


@cache
def declarations(module: str) -> Declarations:
    """Read the constants and options of `module`; a default or constant that is not literal is
    an error of the file's author, and says so."""
    return declarations_in(_file(module))


def declarations_in(path: Path) -> Declarations:
    """The same of a file that need not be importable."""
    constants, tree = {}, _tree(path)
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


def docstring(module: str) -> str:
    """The header of a module's file."""
    return docstring_in(_file(module))


def docstring_in(path: Path) -> str:
    """The header of a file."""
    return ast.get_docstring(_tree(path)) or ""


def imports(module: str) -> list[str]:
    """Dotted names of all that `module` imports when it runs, and of the packages they are in."""
    return _normalised(module)[1]


def calls_its_argument(module: str, method: str) -> bool:
    """Whether a method of this name in `module` calls one of its own arguments."""
    for node in ast.walk(_tree(_file(module))):
        if isinstance(node, ast.FunctionDef) and node.name == method:
            names = {argument.arg for argument in node.args.args}
            called = (inner.func for inner in ast.walk(node) if isinstance(inner, ast.Call))
            if any(isinstance(func, ast.Name) and func.id in names for func in called):
                return True
    return False


def shown(module: str) -> str:
    """The file of a module as a person names it; the module's name where there is none."""
    path = _path(module)
    if path is None:
        return module
    for folder in (PACKAGE.parent, Path.cwd()):
        if path.is_relative_to(folder):
            return str(path.relative_to(folder))
    return str(path)


def exists(module: str) -> bool:
    """Whether `module` is a file or folder, of this package or one that could be imported."""
    return _path(module) is not None


def annotation(text: str) -> Any:
    """The type that the annotation of an option means."""
    return eval(text, {"__builtins__": {}}, ANNOTATIONS)


def _option(path: Path, argument: ast.arg, default: ast.expr | None) -> tuple[Any, Any]:
    try:
        if argument.annotation is None or default is None:
            raise ValueError("it has no annotation or no default")
        return annotation(ast.unparse(argument.annotation)), ast.literal_eval(default)
    except (ValueError, NameError, TypeError) as error:
        raise TypeError(
            f"{path}:{argument.lineno}: option '{argument.arg}': {error}. An option is a keyword-"
            f"only argument with a literal default and an annotation of {', '.join(ANNOTATIONS)}."
        ) from None


def _path(module: str) -> Path | None:
    """File of a module, found without importing anything. This package's own __init__ holds no
    code, and is none."""
    package, *parts = module.split(".")
    folder: Path | None = PACKAGE
    if package != PACKAGE.name:
        # what `python -m dmlbench` would find: where it is called, then the installed packages
        spec = _here(package)
        with contextlib.suppress(ValueError):  # no name of a module
            spec = spec or importlib.util.find_spec(package)
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
    for path in (stem.with_suffix(".py"), stem / "__init__.py"):
        if path.is_file():
            return path
    return None


def _here(package: str) -> ModuleSpec | None:
    """A module or package in the folder where this is called."""
    return PathFinder.find_spec(package, [str(Path.cwd())])


def _file(module: str) -> Path:
    path = _path(module)
    if path is None:
        raise ModuleNotFoundError(f"no module {module}")
    return path


def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


@cache
def _normalised(module: str) -> tuple[str, list[str]]:
    """Digest of one module without docstrings and declarations, and what it imports."""
    path = _file(module)
    tree = _tree(path)
    package = module if path.stem == "__init__" else module.rpartition(".")[0]
    imported = sorted(set(_imports(tree, package)))
    for node in ast.walk(tree):
        if isinstance(node, DOCUMENTED) and ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:] or [ast.Pass()]
        if isinstance(node, ast.Module | ast.ClassDef):
            node.body = [part for part in node.body if not _declares(part)] or [ast.Pass()]
    # ast.unparse and not ast.dump: the latter differs between Python versions
    return sha256(ast.unparse(tree).encode()).hexdigest(), imported


def _declares(node: ast.stmt) -> bool:
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
    return all(isinstance(target, ast.Name) and target.id in DECLARED for target in targets)


def _imports(tree: ast.AST, package: str) -> Iterator[str]:
    """What `tree` imports when it runs, function-level imports included; modules or names in
    them, and the packages they are in. Relative imports start from `package`."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            start = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
            names = [start, *(f"{start}.{alias.name}" for alias in node.names)]
        for name in names:
            parts = name.split(".")
            # importing a.b.c runs a.b's __init__ as well
            for end in range(1, len(parts) + 1):
                yield ".".join(parts[:end])
        yield from _imports(node, package)
