"""What a file declares is read without importing it."""

from typing import Literal

import pytest

from dmlbench.utils.declarations import calls_its_argument, defines, read_declarations


@pytest.fixture
def package(tmp_path, read_package):
    """Write a module of a made package."""
    root = tmp_path / "pkg"
    root.mkdir()

    def write(name, text):
        (root / f"{name}.py").write_text(text)
        read_package(root)

    return write


def test_options_and_constants_are_read_with_types_and_defaults(package):
    package(
        "a",
        "import torch\n"
        "SEARCH_SPACE: dict = {'x': [1, 2]}\n"
        "TABLE = torch.zeros(3)\n"
        "class _Helper:\n"
        "    def __init__(self, *, hidden=1): ...\n"
        "class A:\n"
        "    def __init__(self, n, *, x: float = -1.5, how: Literal['p', 'q'] = 'p',\n"
        "                 m: int | None = None): ...\n",
    )
    found = read_declarations("pkg.a")
    assert found.constants == {"SEARCH_SPACE": {"x": [1, 2]}}
    assert found.options == {
        "x": (float, -1.5),
        "how": (Literal["p", "q"], "p"),
        "m": (int | None, None),
    }


@pytest.mark.parametrize("option", ["x: float = f()", "x=1", "x: float", "x: Tensor = 1"])
def test_an_option_that_is_not_literal_names_file_line_and_rule(package, option):
    package("a", f"class A:\n    def __init__(self, *, {option}): ...\n")
    with pytest.raises(TypeError, match=r"a\.py:2: option 'x'.*literal default"):
        read_declarations("pkg.a")


@pytest.mark.parametrize(
    ("body", "calls"),
    [
        ("vectors, labels = embed()", True),
        ("if due:\n            self.tree = build(*embed())", True),
        ("return ()", False),
        ("later(embed)", False),
    ],
)
def test_a_method_that_calls_its_argument_is_told_from_one_that_does_not(package, body, calls):
    method = f"class Loss:\n    def refresh(self, embed):\n        {body}\n\n"
    package("a", method + "    def other(self, call):\n        call()\n")
    assert calls_its_argument("pkg.a", "refresh") == calls


def test_a_method_that_a_module_defines_is_told_from_one_that_it_calls(package):
    package("a", "class Loss:\n    def batches(self):\n        return self.refresh()\n")
    assert defines("pkg.a", "batches")
    assert not defines("pkg.a", "refresh")
