"""The order of the rooms: imports go down only, and never in a circle."""

import ast
import graphlib
from pathlib import Path

import pytest

from dmlbench.utils.modules import PACKAGE, find_file, imported_modules

ORDER = (
    {"__main__"},
    {"cli"},
    {"library"},
    {"embed"},
    {"planning"},
    {"workflow"},
    {"tracking"},
    {"gallery"},
    {"leaderboard"},
    {"tuning"},
    {"training", "evaluation", "conformance"},
    {"study"},
    {"datasets", "backbones", "losses"},
    {"utils"},
)
"""The rooms from the top to the bottom. Those of a floor do not import each other."""
FLOOR = {room: floor for floor, rooms in enumerate(ORDER) for room in rooms}
AT_THE_ROOT = {"__init__.py", "__main__.py", "embed.py", "py.typed"}
LONGEST = 400


def modules():
    """Every module of the package, by its dotted name."""
    for file in sorted(PACKAGE.rglob("*.py")):
        name = ".".join(file.relative_to(PACKAGE.parent).with_suffix("").parts)
        yield name.removesuffix(".__init__")


def imports(module):
    """The modules of this package that `module` imports when it runs."""
    if module == PACKAGE.name:
        return set()
    names = {name for name in imported_modules(module) if name.startswith(f"{PACKAGE.name}.")}
    return {name for name in names if find_file(name)} - {module}


def room(module):
    return module.split(".")[1]


def test_the_root_holds_the_rooms_and_the_way_in():
    files = {path.name for path in PACKAGE.iterdir() if path.is_file()}
    folders = {path.name for path in PACKAGE.iterdir() if path.is_dir()} - {"__pycache__"}
    assert files == AT_THE_ROOT
    assert folders == FLOOR.keys() - {"__main__", "embed"}
    assert all((PACKAGE / folder / "__init__.py").is_file() for folder in folders)


@pytest.mark.parametrize("module", [name for name in modules() if name != PACKAGE.name])
def test_imports_go_down(module):
    above = {
        name
        for name in imports(module)
        if room(name) != room(module) and FLOOR[room(name)] <= FLOOR[room(module)]
    }
    assert above == set()


def test_no_modules_import_each_other_in_a_circle():
    graph = {
        # importing a module runs its package's __init__, which imports nothing heavy
        name: {other for other in imports(name) if not name.startswith(f"{other}.")}
        for name in modules()
    }
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError, and names the circle


def test_an_init_imports_nothing_heavy():
    light = {"__future__", "ast", "collections", "functools", "importlib", "os", "pathlib"}
    light |= {"sys", "typing"}
    for file in PACKAGE.rglob("__init__.py"):
        tree = ast.parse(file.read_text())
        names = {
            (node.module or "").split(".")[0]
            for node in tree.body
            if isinstance(node, ast.ImportFrom)
        }
        names |= {
            alias.name.split(".")[0]
            for node in tree.body
            if isinstance(node, ast.Import)
            for alias in node.names
        }
        assert names <= light | {PACKAGE.name}, file
        inner = [
            node.module
            for node in tree.body
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(PACKAGE.name)
        ]
        assert all(name.startswith(f"{PACKAGE.name}.utils") for name in inner), file


@pytest.mark.parametrize("folder", ["dmlbench", "tests", "benchmarks"])
def test_no_file_is_too_long_to_be_read_at_once(folder):
    lengths = {
        str(file.relative_to(PACKAGE.parent)): len(file.read_text().splitlines())
        for file in (PACKAGE.parent / folder).rglob("*.py")
    }
    assert {file: length for file, length in lengths.items() if length > LONGEST} == {}


def test_the_tests_mirror_the_rooms():
    tests = Path(__file__).parent
    rooms = {path.name for path in PACKAGE.iterdir() if path.is_dir()} - {"__pycache__"}
    assert {name for name in rooms if not (tests / name).is_dir()} == set()
