"""A question about installed packages is asked once, in a process of its own."""

import os

import pytest

from dmlbench.utils.discovery import ask, ask_once, cache_folder, remembered
from dmlbench.utils.errors import BrokenInstallation, WrongEnvironment

ANSWERS = "import json, sys\nprint('importing ...')\nprint(json.dumps(sys.argv[1:]))\n"
FAILS = "import sys\nsys.exit('first line\\nit does not work')\n"


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Write the module `asked`, which the question is put to."""
    monkeypatch.setenv("DMLBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)

    def write(text):
        (tmp_path / "asked.py").write_text(text)
        return tmp_path / "cache"

    return write


def test_the_last_line_is_the_answer_and_is_remembered(write):
    write(ANSWERS)
    assert remembered("question", [1]) is None
    assert ask_once("question", [1], "asked", "a", "b") == ["a", "b"]
    write(FAILS)
    assert ask_once("question", [1], "asked", "a", "b") == ["a", "b"]
    assert remembered("question", [1]) == ["a", "b"]


def test_other_facts_are_another_question(write):
    write(ANSWERS)
    assert ask_once("question", [1], "asked", "a") == ["a"]
    assert ask_once("question", [2], "asked", "b") == ["b"]
    assert ask("question", [1], "asked", "c") == ["c"]
    assert remembered("question", [1]) == ["c"]


def test_a_process_that_fails_is_quoted_and_asked_again(write):
    write(FAILS)
    with pytest.raises(BrokenInstallation, match=r"^it does not work$"):
        ask_once("question", [], "asked")
    write(ANSWERS)
    assert ask_once("question", [], "asked", "a") == ["a"]


@pytest.mark.parametrize("content", ["", "torn"])
def test_a_damaged_answer_is_asked_again(write, content):
    cache = write(ANSWERS)
    ask_once("question", [], "asked")
    for file in cache.glob("question-*.json"):
        file.write_text(content)
    assert ask_once("question", [], "asked", "again") == ["again"]


def test_a_cache_that_cannot_be_written_is_done_without(write, monkeypatch):
    write(ANSWERS)
    monkeypatch.setenv("DMLBENCH_CACHE", "/proc/nowhere")
    assert ask_once("question", [], "asked", "a") == ["a"]


def test_a_file_is_no_cache_folder(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", "/dev/null"):
        monkeypatch.setenv("DMLBENCH_CACHE", str(path))
        with pytest.raises(WrongEnvironment, match=rf"^DMLBENCH_CACHE={path}: it is a file, and"):
            cache_folder()


def test_a_question_that_fills_the_memory_is_an_error_and_nothing_else(monkeypatch, tmp_path):
    monkeypatch.setenv("DMLBENCH_CACHE", str(tmp_path / "cache"))
    (tmp_path / "greedy.py").write_text("bytearray(10**15)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(BrokenInstallation, match="MemoryError"):
        ask("greedy", [], "greedy")


def test_a_killed_question_says_so(monkeypatch, tmp_path):
    monkeypatch.setenv("DMLBENCH_CACHE", str(tmp_path / "cache"))
    (tmp_path / "killed.py").write_text("import os; os.kill(os.getpid(), 9)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(BrokenInstallation, match="killed by signal 9: is the memory short"):
        ask("killed", [], "killed")


def test_the_memory_of_a_question_is_limited(monkeypatch, tmp_path):
    monkeypatch.setenv("DMLBENCH_CACHE", str(tmp_path / "cache"))
    (tmp_path / "limit.py").write_text(
        "import resource; print(resource.getrlimit(resource.RLIMIT_DATA)[0])\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert 0 < ask("limit", [], "limit") <= memory
