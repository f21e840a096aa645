"""Digests of code: has the code that makes a number changed?

A digest is made from the syntax tree, written as nested lists. This form is the same on every
version of Python; `ast.dump` and `ast.unparse` do not promise that.

A digest does not change with

- comments, layout, the order of neighbouring imports;
- docstrings of modules, classes, functions and attributes;
- imports under `if TYPE_CHECKING:`, and annotations of variables inside functions;
- the folder that a module stands in;
- constants that only describe a loss (`DESCRIPTIVE`);
- modules that make no number: everything in `utils/`, and each module that declares
  `MAKES_NUMBERS = False`.

It changes with every other edit.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator, Sequence
from functools import cache, cached_property
from hashlib import sha256
from itertools import groupby
from typing import Any

from dmlbench.utils.modules import (
    PACKAGE,
    enclosing_package,
    imported_modules,
    is_internal,
    is_type_checking,
    module_exists,
    module_file,
    parse_module,
    resolve_import,
)

DESCRIPTIVE = frozenset(
    {
        "BY_DESIGN",
        "GIVES_TREE",
        "BATCH_DIVISORS",
        "DIM_DIVISORS",
        "LEAST",
        "ABOVE",
        "MOST",
        "ONLY_WITH",
        "LEAST_IMAGES_PER_CLASS",
        "BELOW_IMAGES_PER_CLASS",
        "BELOW_BATCH_SIZE",
        "HOLDS_BATCH",
        "SEARCH_SPACE",
    }
)
"""Constants by which a loss tells others what it takes and gives; no number comes from them."""
MARKER = "MAKES_NUMBERS"
"""The constant by which a module says whether the numbers of a run depend on its code."""
LEFT_OUT = frozenset({"ctx", "kind", "type_comment"})
"""Fields of a syntax tree that say nothing, or nothing new."""

Form = Any
"""A syntax tree as nested lists of strings and numbers."""


@cache
def code_digest(*modules: str) -> str:
    """16 hex digits over the code of `modules` and of everything they import; see `code_digests`.

    A module counts by its name without its folder, so a file may be moved to another folder. Which
    module a name is imported from counts by the digest of that module.
    """
    digests = code_digests(*modules)
    names = sorted((_short_name(module), digests[module]) for module in digests)
    imports = sorted(
        (digests[module], digests.get(imported, ""), name, bound)
        for module in digests
        for imported, name, bound in _written(module)[1]
    )
    return _digest([names, imports])[:16]


@cache
def code_digests(*modules: str) -> dict[str, str]:
    """The digest of each module among `modules` and all internal modules that they import.

    Modules that make no number are left out.
    """
    digests: dict[str, str] = {}
    todo = list(modules)
    while todo:
        module = todo.pop()
        if module not in digests and makes_numbers(module):
            digests[module] = module_digest(module)
            todo += _internal_imports(module)
    return digests


@cache
def _internal_imports(module: str) -> tuple[str, ...]:
    """The modules of the code base of `module` that it imports."""
    names = imported_modules(module)
    return tuple(name for name in names if _is_own_module(module, name))


def _is_own_module(module: str, name: str) -> bool:
    """Whether `name` is a module of the code base of `module`."""
    return is_internal(module, name) and module_exists(name)


@cache
def module_digest(module: str) -> str:
    """64 hex digits over the code of `module` alone."""
    return _written(module)[0]


@cache
def _written(module: str) -> tuple[str, frozenset[tuple[str, str, str]]]:
    """The digest of `module` alone; and the internal modules from which it imports names:
    (module, name in it, name here)."""
    tree = parse_module(module)
    writer = _Writer(module, tree)
    return _digest(writer.statements(tree.body, in_class=True)), frozenset(writer.imports)


@cache
def makes_numbers(module: str) -> bool:
    """Whether the numbers of a run depend on the code of `module`."""
    if f"{module}.".startswith(f"{PACKAGE.name}.utils."):
        return False
    body = parse_module(module).body
    if all(_is_string(node) for node in body):  # a package's own file, most often
        return False
    return not any(
        _assigned(node) == [MARKER]
        and isinstance(node.value, ast.Constant)
        and node.value.value is False
        for node in body
        if isinstance(node, ast.Assign | ast.AnnAssign)
    )


class _Writer:
    """Writes the syntax tree of one module as a form.

    A node is [type, [field, value], ...], with its fields by name and without empty ones.
    """

    def __init__(self, module: str, tree: ast.Module) -> None:
        self.module = module
        self.package = enclosing_package(module)
        self.tree = tree
        self.imports: set[tuple[str, str, str]] = set()

    @cached_property
    def used(self) -> set[str]:
        """The names and attributes that the module reads."""
        nodes = [node for node in ast.walk(self.tree) if isinstance(node, ast.Name | ast.Attribute)]
        return {
            node.id if isinstance(node, ast.Name) else node.attr
            for node in nodes
            if isinstance(node.ctx, ast.Load)
        }

    def statements(self, body: Sequence[ast.stmt], in_class: bool) -> list[Form]:
        """The forms of a block. `in_class`: it is a class's or the module's, not a function's."""
        forms: list[Form] = []
        imports: list[tuple[str, str, str, str]] = []
        for node in self.executed(body):
            if isinstance(node, ast.Import | ast.ImportFrom):
                imports += self.bindings(node)
            elif form := self.statement(node, in_class):
                forms += [*_in_any_order(imports), form]
                imports = []
        return forms + _in_any_order(imports)

    def statement(self, node: ast.stmt, in_class: bool) -> Form | None:
        """The form of a statement; None if it does nothing."""
        if isinstance(node, ast.Pass) or _is_string(node):
            return None
        if in_class and self.is_descriptive(node):
            return None
        if not in_class and isinstance(node, ast.AnnAssign):
            # Python evaluates no annotation inside a function
            if node.value is None:
                return None
            node = ast.Assign([node.target], node.value)
        return self.node(node, in_class)

    def executed(self, body: Sequence[ast.stmt]) -> Iterator[ast.stmt]:
        """The statements of `body` without those that only a type checker sees."""
        for node in body:
            if isinstance(node, ast.If) and is_type_checking(node):
                yield from self.executed(node.orelse)
            else:
                yield node

    def node(self, node: ast.AST, in_class: bool) -> Form:
        if isinstance(node, ast.Constant):
            return [type(node).__name__, type(node.value).__name__, _constant(node.value)]
        if isinstance(node, ast.JoinedStr):
            return [type(node).__name__, *self.parts(node.values, in_class)]
        if isinstance(node, ast.ClassDef):
            in_class = True
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            in_class = False
        fields: list[Form] = []
        for name in sorted(node._fields):
            value = getattr(node, name, None)
            if name in LEFT_OUT or value is None or value == []:
                continue
            form = self.value(value, in_class)
            if form != []:  # a block in which nothing happens is no block
                fields.append([name, form])
        return [type(node).__name__, *fields]

    def value(self, value: Any, in_class: bool) -> Form:
        if isinstance(value, ast.AST):
            return self.node(value, in_class)
        if isinstance(value, list):
            if value and isinstance(value[0], ast.stmt):
                return self.statements(value, in_class)
            return [self.value(item, in_class) for item in value]
        return value if value is None or isinstance(value, int | str) else ascii(value)

    def parts(self, values: Sequence[ast.expr], in_class: bool) -> list[Form]:
        """The parts of an f-string: versions of Python cut its constant text differently."""
        parts: list[Form] = []
        for is_text, group in groupby(values, lambda value: isinstance(value, ast.Constant)):
            if is_text:
                text = "".join(str(ast.literal_eval(value)) for value in group)
                parts += [ascii(text)] if text else []
            else:
                parts += [self.node(value, in_class) for value in group]
        return parts

    def bindings(self, node: ast.Import | ast.ImportFrom) -> Iterator[tuple[str, str, str, str]]:
        """What an import statement binds: [module, name in it, name here].

        An internal module has its name without its folder. One that makes no number is left out:
        what is used of it is seen where it is used.
        """
        for alias in node.names:
            bound = alias.asname or alias.name
            if isinstance(node, ast.Import):
                target, name = alias.name, ""
            else:
                start = resolve_import(node, self.package)
                target, name = start, alias.name
                if self.is_module(f"{start}.{alias.name}"):
                    target, name = f"{start}.{alias.name}", ""
            if name == "TYPE_CHECKING" and target == "typing":
                continue
            if self.is_module(target):
                if not makes_numbers(target):
                    continue
                self.imports.add((target, name, bound))
                if not isinstance(node, ast.Import) or alias.asname:  # else its code names folders
                    target = _short_name(target)
            yield "import", target, name, bound

    def is_module(self, name: str) -> bool:
        return _is_own_module(self.module, name)

    def is_descriptive(self, node: ast.stmt) -> bool:
        """Whether `node` assigns literals to constants of `DESCRIPTIVE` that nothing here uses."""
        if not isinstance(node, ast.Assign | ast.AnnAssign):
            return False
        names = _assigned(node)
        return DESCRIPTIVE.issuperset(names) and self.used.isdisjoint(names) and _is_literal(node)


def _short_name(module: str) -> str:
    """The name of a module without its folder; a package's own file is `__init__`."""
    return "__init__" if module_file(module).stem == "__init__" else module.rpartition(".")[2]


def _is_string(node: ast.stmt) -> bool:
    """Whether `node` is a string by itself: a docstring of whatever is above it."""
    if not isinstance(node, ast.Expr) or not isinstance(node.value, ast.Constant):
        return False
    return isinstance(node.value.value, str)


def _assigned(node: ast.Assign | ast.AnnAssign) -> list[str]:
    """What `node` assigns to, as it is written."""
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    return [ast.unparse(target) for target in targets]


def _is_literal(node: ast.Assign | ast.AnnAssign) -> bool:
    """Whether the value of `node` can be read without running code."""
    try:
        return node.value is not None and ast.literal_eval(node.value) is not Ellipsis
    except ValueError:
        return False


def _constant(value: object) -> str:
    """A constant as text that is the same on every Python; `hex` has no limit of digits."""
    return hex(value) if type(value) is int else ascii(value)


def _in_any_order(imports: Sequence[tuple[str, str, str, str]]) -> list[Form]:
    """Neighbouring imports, sorted if their order does not matter: they bind different names."""
    distinct = [*dict.fromkeys(imports)]
    bound = {name for *_, name in distinct}
    return sorted(distinct) if len(bound) == len(distinct) and "*" not in bound else distinct


def _digest(form: Form) -> str:
    text = json.dumps(form, ensure_ascii=True, separators=(",", ":"))
    return sha256(text.encode("ascii")).hexdigest()
