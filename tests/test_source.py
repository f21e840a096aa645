"""The digest moves with what code does and with nothing else; declarations need no import."""

import subprocess
import sys
from typing import Literal

import pytest

from dmlbench import source


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Write modules of a made package; each write starts a fresh process's view of it."""
    root = tmp_path / "pkg"
    root.mkdir()
    monkeypatch.setattr(source, "PACKAGE", root)

    def write(name, text):
        path = root / f"{name.replace('.', '/')}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        for cached in (
            *(source.digest, source.code),
            *(source._normalised, source.declarations),
        ):
            cached.cache_clear()

    return write


def test_comments_docstrings_and_layout_do_not_move_the_digest(package):
    package("a", "def f(x):\n    return x + 1\n")
    before = source.digest("pkg.a")
    package("a", '"""New."""\n# why\ndef f(x):\n    """Doc."""\n\n    return (x\n        + 1)\n')
    assert source.digest("pkg.a") == before


def test_arithmetic_moves_the_digest_and_undoing_it_moves_it_back(package):
    package("a", "def f(x):\n    return x + 1\n")
    before = source.digest("pkg.a")
    package("a", "def f(x):\n    return x + 2\n")
    assert source.digest("pkg.a") != before
    package("a", "def f(x):\n    return x + 1\n")
    assert source.digest("pkg.a") == before


def test_code_names_the_modules_and_which_of_them_changed(package):
    package("b", "g = 1\n")
    package("a", "from pkg import b\nfrom pkg import files\n")
    before = source.code("pkg.a")
    assert before.keys() == {"pkg.a", "pkg.b"}
    package("b", "g = 2\n")
    after = source.code("pkg.a")
    assert {name for name in after if after[name] != before[name]} == {"pkg.b"}


def test_a_module_is_shown_as_the_file_that_a_person_would_open(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text("x = 1\n")
    assert source.shown("mine") == "mine.py"
    assert source.shown("dmlbench.evaluation") == "dmlbench/evaluation/__init__.py"
    assert source.shown("dmlbench.losses.gone") == "dmlbench.losses.gone"


@pytest.mark.parametrize(
    "importing",
    [
        "from pkg.b import g",
        "from pkg import b",
        "import pkg.b",
        "def f():\n    from pkg import b",
        "try:\n    import pkg.b\nexcept ImportError:\n    pass",
    ],
)
def test_a_change_in_an_imported_module_moves_the_digest(package, importing):
    package("b", "g = 1\n")
    package("a", importing + "\n")
    before = source.digest("pkg.a")
    package("b", "g = 2\n")
    assert source.digest("pkg.a") != before


def test_a_change_in_what_is_imported_for_types_only_does_not(package):
    package("b", "g = 1\n")
    package("a", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from pkg.b import g\n")
    before = source.digest("pkg.a")
    package("b", "g = 2\n")
    assert source.digest("pkg.a") == before


def test_importing_a_submodule_counts_its_package(package):
    package("sub.__init__", "x = 1\n")
    package("sub.b", "g = 1\n")
    package("a", "import pkg.sub.b\n")
    before = source.digest("pkg.a")
    package("sub.__init__", "x = 2\n")
    assert source.digest("pkg.a") != before


def test_two_modules_that_import_each_other_end(package):
    package("a", "import pkg.b\n")
    package("b", "import pkg.a\n")
    assert source.digest("pkg.a") == source.digest("pkg.b")


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
    found = source.declarations("pkg.a")
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
        source.declarations("pkg.a")


def test_a_study_is_loaded_without_torch_and_numpy():
    code = "import sys, dmlbench.study, dmlbench.cli; print([m for m in sys.modules if m in names])"
    code = "names = {'torch', 'numpy', 'pandas', 'timm', 'faiss', 'matplotlib'}; " + code
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


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
    assert source.calls_its_argument("pkg.a", "refresh") == calls
