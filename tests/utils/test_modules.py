"""Modules are found, shown and read without being imported."""

import types

import pytest

from dmlbench.utils.modules import display_path, find_file, imported_modules, public_class


def test_a_module_is_shown_as_the_file_that_a_person_would_open(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text("x = 1\n")
    assert display_path("mine") == "mine.py"
    assert display_path("dmlbench.evaluation") == "dmlbench/evaluation/__init__.py"
    assert display_path("dmlbench.losses.gone") == "dmlbench.losses.gone"


def module(**content):
    made = types.ModuleType("made")
    made.__file__ = "made.py"
    for name, value in content.items():
        setattr(made, name, value)
    return made


def cls(name, home="made"):
    return type(name, (), {"__module__": home})


def test_the_class_of_a_file_is_its_one_public_class():
    wanted = cls("Wanted")
    assert (
        public_class(module(Wanted=wanted, _Hidden=cls("_Hidden"), Other=cls("Other", "x")))
        is wanted
    )


@pytest.mark.parametrize("names", [(), ("One", "Two")])
def test_a_file_without_one_public_class_is_named_with_its_classes(names):
    with pytest.raises(TypeError, match=r"made\.py: it has to define one public class") as caught:
        public_class(module(**{name: cls(name) for name in names}))
    assert (", ".join(names) or "none") in str(caught.value)


def test_a_folder_without_code_does_not_hide_an_installed_package(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "yaml/docs").mkdir(parents=True)
    assert find_file("yaml").name == "__init__.py"
    (tmp_path / "yaml/__init__.py").touch()
    assert find_file("yaml") == tmp_path / "yaml/__init__.py"


@pytest.mark.parametrize(
    "content",
    [
        b"try:\n    from .core import x\nexcept ImportError:\n    from math import x\n",
        "# -*- coding: latin-1 -*-\nimport math\nname = 'é'\n".encode("latin-1"),
        "\ufeffimport math\n".encode(),
    ],
    ids=["a relative import out of the package", "latin-1", "a byte order mark"],
)
def test_sources_that_python_reads_are_read(tmp_path, monkeypatch, content):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "read_by_python.py").write_bytes(content)
    assert "math" in imported_modules("read_by_python")
