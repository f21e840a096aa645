"""Edits of source text: those that change what the code does, and those that do not."""

import ast
import io
import re
import tokenize


def _first(text, kind, has=lambda node: True):
    """The first node of this kind, in the order of the lines."""
    nodes = [node for node in ast.walk(ast.parse(text)) if isinstance(node, kind) and has(node)]
    return min(nodes, key=lambda node: (node.lineno, node.col_offset))


def _replaced(text, node, new):
    lines = text.splitlines(keepends=True)
    start = sum(len(line.encode()) for line in lines[: node.lineno - 1]) + node.col_offset
    end = sum(len(line.encode()) for line in lines[: node.end_lineno - 1]) + node.end_col_offset
    content = text.encode()
    return (content[:start] + new.encode() + content[end:]).decode()


def _indent(node):
    return " " * node.col_offset


def _above(text, node, new):
    lines = text.splitlines(keepends=True)
    return "".join([*lines[: node.lineno - 1], new, *lines[node.lineno - 1 :]])


def _below(text, node, new):
    lines = text.splitlines(keepends=True)
    return "".join([*lines[: node.end_lineno], new, *lines[node.end_lineno :]])


def _function(text):
    return _first(text, ast.FunctionDef, lambda node: len(node.body) > 1)


def _import(text):
    return _first(text, ast.ImportFrom, lambda node: node.module != "__future__")


def _statement(text):
    """A statement in a function that can be replaced by others."""
    return _function(text).body[-1]


def _in_tree(change):
    """An edit of the syntax tree: `change(tree)`, written out again."""

    def edit(text):
        tree = ast.parse(text)
        change(tree)
        return ast.unparse(ast.fix_missing_locations(tree)) + "\n"

    return edit


def _each_function(tree):
    return [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]


def _without_docstrings(tree):
    for node in ast.walk(tree):
        documented = isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        if documented and ast.get_docstring(node) is not None:
            node.body = node.body[1:] or [ast.Pass()]


def _annotated(tree):
    for function in _each_function(tree):
        function.body = [
            ast.AnnAssign(node.targets[0], ast.Name("Any"), node.value, 1)
            if isinstance(node, ast.Assign)
            and len(node.targets) == 1
            and isinstance(node.targets[0], ast.Name)
            else node
            for node in function.body
        ]


def _not_annotated(tree):
    for function in _each_function(tree):
        function.body = [
            ast.Assign([node.target], node.value)
            if isinstance(node, ast.AnnAssign) and node.value is not None
            else node
            for node in function.body
        ]


def _imports_reversed(tree):
    leading = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    first = tree.body.index(leading[0])
    rest = [node for node in tree.body if node not in leading]
    tree.body = [*rest[:first], *reversed(leading), *rest[first:]]


def _one_import_a_line(tree):
    body = []
    for node in tree.body:
        if isinstance(node, ast.ImportFrom):
            body += [ast.ImportFrom(node.module, [alias], node.level) for alias in node.names]
        else:
            body.append(node)
    tree.body = body


def _with_old_prefix(text):
    """`u"..."` in place of the first `"..."`."""
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.STRING and re.match(r'"[^"]', token.string):
            lines = text.splitlines(keepends=True)
            row, column = token.start[0] - 1, token.start[1]
            lines[row] = f"{lines[row][:column]}u{lines[row][column:]}"
            return "".join(lines)
    raise AssertionError("no text")


TYPES = "\nif TYPE_CHECKING:\n    from collections.abc import Hashable\n"
KEEP = {
    # comments and layout
    "a comment at the end": lambda text: text + "\n# why\n",
    "a comment at the beginning": lambda text: "# why\n" + text,
    "a comment above a statement": lambda text: _above(
        text, _statement(text), f"{_indent(_statement(text))}# why\n"
    ),
    "a comment behind a statement": lambda text: re.sub(
        r"\)\n", ")  # why\n", text, count=1, flags=re.MULTILINE
    ),
    "empty lines": lambda text: _above(text, _function(text), "\n\n\n"),
    "another layout": _in_tree(lambda tree: None),
    "no empty line at the end": lambda text: text.rstrip("\n"),
    "line ends of Windows": lambda text: text.replace("\n", "\r\n"),
    "a byte order of imports": _in_tree(_imports_reversed),
    "one import a line": _in_tree(_one_import_a_line),
    "an import twice": lambda text: _above(
        text, _import(text), ast.get_source_segment(text, _import(text)) + "\n"
    ),
    "a superfluous pass": lambda text: text + "\npass\n",
    "the old prefix of text": _with_old_prefix,
    # docstrings
    "another docstring of the module": lambda text: _replaced(
        text, ast.parse(text).body[0], '"""Another text."""'
    ),
    "no docstring of the module": lambda text: _replaced(text, ast.parse(text).body[0], ""),
    "another docstring of a function": lambda text: _above(
        text,
        _function(text).body[0],
        f'{_indent(_function(text).body[0])}"""Another text."""\n',
    ),
    "no docstring at all": _in_tree(_without_docstrings),
    "a docstring of a constant": lambda text: text + '\n"""What stands above."""\n',
    "a docstring inside a function": lambda text: _above(
        text, _statement(text), f'{_indent(_statement(text))}"""What stands below."""\n'
    ),
    # types
    "a type-only import": lambda text: _below(
        text, _import(text), "from typing import TYPE_CHECKING\n" + TYPES
    ),
    "a type-only import of the package": lambda text: _below(
        text,
        _import(text),
        "from typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    from dmlbench.losses.htl import HTL\n",
    ),
    "annotations of local variables": _in_tree(_annotated),
    "no annotations of local variables": _in_tree(_not_annotated),
    "a declared local variable": lambda text: _above(
        text, _statement(text), f"{_indent(_statement(text))}unused: int\n"
    ),
    # modules that make no number
    "an import of a text helper": lambda text: _below(
        text, _import(text), "from dmlbench.utils.text import format_bytes\n"
    ),
    "an import of a room that makes no number": lambda text: _below(
        text, _import(text), "from dmlbench.utils import files, errors\n"
    ),
    "an import of the progress": lambda text: _below(
        text, _import(text), "from dmlbench.training.progress import Progress\n"
    ),
    # constants that only describe
    "a search space": lambda text: text + '\nSEARCH_SPACE = {"margin": [0.1, 0.2]}\n',
    "what is by design": lambda text: text + '\nBY_DESIGN = {"order": "it is meant"}\n',
}
"""Edits that change nothing that is computed, by what they do."""


def _number(node):
    return isinstance(node.value, int | float) and not isinstance(node.value, bool)


def _swap_operator(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Sub | ast.Mult | ast.Div):
            node.op = ast.Add()
            return
    raise AssertionError("no operator")


def _swap_comparison(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare):
            node.ops[0] = ast.NotEq() if isinstance(node.ops[0], ast.Eq) else ast.Eq()
            return
    raise AssertionError("no comparison")


def _last_argument_gone(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and node.args:
            node.args.pop()
            return


def _arguments_swapped(tree):
    for node in ast.walk(tree):
        arguments = node.args if isinstance(node, ast.Call) else []
        if len({*map(ast.unparse, arguments[:2])}) == 2:
            node.args[:2] = node.args[1::-1]
            return


def _statement_gone(tree):
    function = next(node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))
    function.body.pop()
    function.body = function.body or [ast.Pass()]


def _statements_swapped(tree):
    for node in _each_function(tree):
        body = node.body[1:] if ast.get_docstring(node) is not None else node.body
        if len(body) > 1:
            node.body[-2:] = node.body[:-3:-1]
            return


def _renamed(tree):
    _each_function(tree)[0].name = "renamed"


def _default_changed(tree):
    for node in _each_function(tree):
        node.args.kwonlyargs.append(ast.arg("added"))
        node.args.kw_defaults.append(ast.Constant(1))
        return


def _attribute_changed(tree):
    next(node for node in ast.walk(tree) if isinstance(node, ast.Attribute)).attr = "other"


def _decorated(tree):
    _each_function(tree)[0].decorator_list.append(ast.Name("staticmethod"))


def _negated(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Return) and node.value is not None:
            node.value = ast.UnaryOp(ast.USub(), node.value)
            return


MOVE = {
    "a constant more": lambda text: text + "\nNEW = 1\n",
    "another number": lambda text: _replaced(text, _first(text, ast.Constant, _number), "12345"),
    "an integer becomes a float": lambda text: _replaced(
        text, _first(text, ast.Constant, lambda node: type(node.value) is int), "1.0"
    ),
    "another text": lambda text: text + '\nNEW = "b"\n',
    "another operator": _in_tree(_swap_operator),
    "another comparison": _in_tree(_swap_comparison),
    "an argument less": _in_tree(_last_argument_gone),
    "arguments swapped": _in_tree(_arguments_swapped),
    "a statement less": _in_tree(_statement_gone),
    "statements swapped": _in_tree(_statements_swapped),
    "another name of a function": _in_tree(_renamed),
    "an argument more, with a default": _in_tree(_default_changed),
    "another attribute": _in_tree(_attribute_changed),
    "a decorator": _in_tree(_decorated),
    "another sign": _in_tree(_negated),
    "an import of another library": lambda text: _below(text, _import(text), "import statistics\n"),
    "an import of a module that makes numbers": lambda text: _below(
        text, _import(text), "from dmlbench.losses.htl import linkage\n"
    ),
    "a name from another module": lambda text: _below(
        text, _import(text), "from dmlbench.training.jitter import draw\n"
    ),
    "an import under another name": lambda text: _below(
        text, _import(text), "import math as arithmetic\n"
    ),
    "a filled else of a type check": lambda text: _below(
        text,
        _import(text),
        "from typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    import os\nelse:\n    import sched\n",
    ),
    "an annotation of a class's variable": lambda text: text + "\nclass New:\n    x: int\n",
}
"""Edits that change what is computed, by what they do."""
