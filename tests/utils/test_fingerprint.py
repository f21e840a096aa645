"""A digest moves with what code does, and with nothing else; it is equal on every Python."""

import ast
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dmlbench.study.run import METRICS
from dmlbench.study.study import TABLES
from dmlbench.utils.fingerprint import code_digest, code_digests, module_digest
from dmlbench.utils.modules import PACKAGE

from .edits import KEEP, MOVE

CORPUS = Path(__file__).parent / "corpus"
NUMBERS = {
    "a training": (
        "training/batches.py",
        ("dmlbench.training.train", "dmlbench.losses.softtriple", "dmlbench.backbones.timm"),
    ),
    "an evaluation": ("evaluation/ranking.py", (METRICS,)),
    "a table": ("leaderboard/sections/scores.py", (TABLES,)),
}
"""What has a digest: a file of its code, and the modules that it begins with."""


@pytest.fixture
def copied(tmp_path, read_package):
    """A copy of this package, whose code is digested in place of the package's own."""
    folder = tmp_path / PACKAGE.name
    shutil.copytree(PACKAGE, folder, ignore=shutil.ignore_patterns("__pycache__"))
    read_package(folder)
    return folder


@pytest.fixture
def edited(copied, read_package):
    """The digest of what a file belongs to, before and after an edit of the file."""

    def edit(number, change):
        name, modules = NUMBERS[number]
        before = code_digest(*modules)
        text = (copied / name).read_text()
        new = change(text)
        assert new != text, "the edit changed nothing"
        ast.parse(new)
        (copied / name).write_bytes(new.encode())
        read_package(copied)
        return before, code_digest(*modules)

    return edit


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("change", KEEP)
def test_what_computes_nothing_keeps_the_digest(edited, number, change):
    before, after = edited(number, KEEP[change])
    assert after == before


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("change", MOVE)
def test_every_other_change_moves_the_digest(edited, number, change):
    before, after = edited(number, MOVE[change])
    assert after != before


@pytest.mark.parametrize("number", NUMBERS)
def test_a_change_of_the_tools_keeps_the_digest(copied, read_package, number):
    modules = NUMBERS[number][1]
    before = code_digest(*modules)
    for file in [*(copied / "utils").glob("*.py"), copied / "training/progress.py"]:
        file.write_text(f"{file.read_text()}\nNEW = 1\n")
    read_package(copied)
    assert code_digest(*modules) == before


@pytest.mark.parametrize("number", NUMBERS)
def test_a_file_that_moves_to_another_folder_keeps_the_digest(copied, read_package, number):
    name, modules = NUMBERS[number]
    before = code_digest(*modules)
    module = f"dmlbench.{name.removesuffix('.py').replace('/', '.')}"
    (copied / "moved").mkdir()
    (copied / name).rename(copied / "moved" / Path(name).name)
    package, _, stem = module.rpartition(".")
    for file in copied.rglob("*.py"):
        text = file.read_text()
        text = text.replace(f"from {module} import", f"from dmlbench.moved.{stem} import")
        lines = []
        for line in text.splitlines(keepends=True):
            names = line.removeprefix(f"from {package} import ").strip().split(", ")
            if line.startswith(f"from {package} import ") and stem in names:
                lines.append(f"from dmlbench.moved import {stem}\n")
                if rest := [name for name in names if name != stem]:
                    lines.append(f"from {package} import {', '.join(rest)}\n")
            else:
                lines.append(line)
        text = "".join(lines)
        file.write_text(text)
    read_package(copied)
    assert code_digest(*modules) == before


def test_the_digests_of_a_corpus_are_those_that_were_written_down(monkeypatch, read_package):
    monkeypatch.chdir(CORPUS)
    read_package(PACKAGE)
    written = json.loads((CORPUS / "digests.json").read_text())
    assert {file.stem: module_digest(file.stem) for file in CORPUS.glob("*.py")} == written


def test_other_pythons_give_the_same_digests(other_python):
    """Of the corpus, and of all modules of this package."""
    code = (
        "import json, os, sys\n"
        f"sys.path.insert(0, {str(PACKAGE.parent)!r})\n"
        f"os.chdir({str(CORPUS)!r})\n"
        "from dmlbench.utils.fingerprint import module_digest\n"
        "print(json.dumps({module: module_digest(module) for module in sys.argv[1:]}))\n"
    )
    files = [file for file in PACKAGE.rglob("*.py") if file.parent != PACKAGE]
    modules = [".".join(file.relative_to(PACKAGE.parent).with_suffix("").parts) for file in files]
    modules = [module.removesuffix(".__init__") for module in modules]
    modules += [file.stem for file in CORPUS.glob("*.py")]
    digests = [
        json.loads(subprocess.check_output([python, "-c", code, *modules]))
        for python in (sys.executable, other_python)
    ]
    assert digests[0] == digests[1]


@pytest.fixture
def package(tmp_path, read_package):
    """Write modules of a made package."""
    root = tmp_path / "pkg"
    root.mkdir()
    read_package(root)

    def write(name, text):
        path = root / f"{name.replace('.', '/')}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        read_package(root)

    return write


def test_undoing_a_change_moves_the_digest_back(package):
    package("a", "def f(x):\n    return x + 1\n")
    before = code_digest("pkg.a")
    package("a", "def f(x):\n    return x + 2\n")
    assert code_digest("pkg.a") != before
    package("a", "def f(x):\n    return x + 1\n")
    assert code_digest("pkg.a") == before


def test_each_module_has_its_own_digest_so_that_the_changed_one_can_be_named(package):
    package("utils.files", "f = 1\n")
    package("b", "g = 1\n")
    package("a", "from pkg import b\nfrom pkg.utils import files\n")
    before = code_digests("pkg.a")
    assert before.keys() == {"pkg.a", "pkg.b"}
    package("b", "g = 2\n")
    after = code_digests("pkg.a")
    assert {name for name in after if after[name] != before[name]} == {"pkg.b"}


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
    package("a", f"{importing}\n")
    before = code_digest("pkg.a")
    package("b", "g = 2\n")
    assert code_digest("pkg.a") != before


def test_a_module_that_says_that_it_makes_no_number_is_not_followed(package):
    package("b", "MAKES_NUMBERS = False\ng = 1\n")
    package("a", "from pkg.b import g\n")
    before = code_digest("pkg.a")
    package("b", "MAKES_NUMBERS = False\ng = 2\n")
    assert code_digest("pkg.a") == before
    package("b", "g = 2\n")
    assert code_digest("pkg.a") != before


def test_a_name_that_comes_from_another_module_moves_the_digest(package):
    package("b", "f = g = 1\n")
    package("c", "f = g = 2\n")
    package("a", "from pkg.b import f\nfrom pkg.c import g\n")
    before = code_digest("pkg.a")
    package("a", "from pkg.b import g\nfrom pkg.c import f\n")
    assert code_digest("pkg.a") != before


def test_a_change_in_a_type_only_import_keeps_the_digest(package):
    package("b", "g = 1\n")
    package("a", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from pkg.b import g\n")
    before = code_digest("pkg.a")
    package("b", "g = 2\n")
    assert code_digest("pkg.a") == before


def test_importing_a_submodule_counts_its_package(package):
    package("sub.__init__", "x = 1\n")
    package("sub.b", "g = 1\n")
    package("a", "import pkg.sub.b\n")
    before = code_digest("pkg.a")
    package("sub.__init__", "x = 2\n")
    assert code_digest("pkg.a") != before


def test_two_modules_that_import_each_other_have_a_digest(package):
    package("a", "import pkg.b\n")
    package("b", "import pkg.a\n")
    assert code_digest("pkg.a") == code_digest("pkg.b")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (
            "from math import sqrt\nfrom cmath import sqrt\n",
            "from cmath import sqrt\nfrom math import sqrt\n",
        ),
        (
            "from pkg.p.b import f\nfrom pkg.q.b import f as g\n",
            "from pkg.q.b import f\nfrom pkg.p.b import f as g\n",
        ),
        ("LEAST = 1\nx = max(2, LEAST)\n", "LEAST = 3\nx = max(2, LEAST)\n"),
        ("for LEAST in range(3):\n    x = 1\n", "for LEAST in range(4):\n    x = 1\n"),
    ],
    ids=["the last import of a name", "modules of one name", "a used constant", "a loop"],
)
def test_edits_that_only_look_like_harmless_ones_move_the_digest(package, before, after):
    package("p.b", "f = 1\n")
    package("q.b", "f = 2\n")
    package("a", before)
    digest = code_digest("pkg.a")
    package("a", after)
    assert code_digest("pkg.a") != digest


def test_modules_of_one_name_that_exchange_their_contents_move_the_digest(package):
    package("p.b", "f = 1\n")
    package("q.b", "f = 2\n")
    package("a", "from pkg.p.b import f\nfrom pkg.q.b import f as g\n")
    before = code_digest("pkg.a")
    package("p.b", "f = 2\n")
    package("q.b", "f = 1\n")
    assert code_digest("pkg.a") != before


@pytest.mark.parametrize(
    "between", ["pass", '"""A text."""', "LEAST = {'x': 1}", "MOST = {'x': 1}"]
)
def test_imports_around_what_does_nothing_are_neighbours(package, between):
    package("a", "import math\nimport ast\n")
    before = code_digest("pkg.a")
    package("a", f"import math\n{between}\nimport ast\n")
    assert code_digest("pkg.a") == before
