"""The messages that the page Troubleshooting quotes in bold are messages of the code."""

import ast
import functools
import re
from pathlib import Path

import pytest

from dmlbench.utils.modules import PACKAGE

PAGE = Path(__file__).parents[2] / "docs/troubleshooting.md"
QUOTED = re.findall(r"\*\*\"([^\"]+)\"\*\*", PAGE.read_text("utf-8"))
HOLE = "\0"
"""What stands for a value in an f-string."""


@functools.cache
def texts():
    """All texts of the package."""
    return [*_texts()]


def _texts():
    for file in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = (p.value if isinstance(p, ast.Constant) else HOLE for p in node.values)
                yield "".join(parts)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


@pytest.mark.parametrize("message", QUOTED)
def test_a_quoted_message_is_one_of_the_code(message):
    pattern = re.compile(".*".join(map(re.escape, re.split(r" ?\.\.\. ?", message))), re.DOTALL)
    assert any(pattern.search(text) for text in texts())


def test_there_are_quoted_messages():
    assert len(QUOTED) > 8
