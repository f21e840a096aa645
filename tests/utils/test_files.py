import os
import platform
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from dmlbench.utils import files
from dmlbench.utils.errors import WrongEnvironment
from dmlbench.utils.files import data_folder, is_alive, remove_leftovers, replacing, write_json


def test_the_data_folder_is_named_by_the_environment(monkeypatch, tmp_path):
    for value, folder in (("", "data"), (str(tmp_path), tmp_path), ("/no/such", "/no/such")):
        monkeypatch.setenv("DMLBENCH_DATA", value)
        assert data_folder() == Path(folder)
    monkeypatch.delenv("DMLBENCH_DATA")
    assert data_folder() == Path("data")


def test_a_file_is_no_data_folder(monkeypatch, tmp_path):
    file = tmp_path / "data"
    file.touch()
    monkeypatch.setenv("DMLBENCH_DATA", str(file))
    with pytest.raises(WrongEnvironment, match=rf"^DMLBENCH_DATA={file}: it is a file, "):
        data_folder()


@pytest.fixture(autouse=True)
def new_process(monkeypatch):
    """Let each test be a process that has cleaned no folder yet."""
    monkeypatch.setattr(files, "_cleaned", set())


def kill_while_writing(path):
    """The temporary file that a process leaves which is killed while it writes `path`."""
    code = (
        "import os, sys; from pathlib import Path; from dmlbench.utils.files import replacing\n"
        "with replacing(Path(sys.argv[1])) as temporary:\n"
        "    temporary.write_text('half'); os.kill(os.getpid(), 9)"
    )
    before = {*path.parent.iterdir()}
    subprocess.run([sys.executable, "-c", code, str(path)])
    (temporary,) = {*path.parent.iterdir()} - before
    return temporary


def test_what_a_killed_process_left_is_removed_by_the_next_write(tmp_path):
    left = kill_while_writing(tmp_path / "a.json")
    assert left.name.startswith(".a.json.tmp-")
    assert left.suffix == ".json"  # matplotlib writes what the suffix says
    assert left.read_text() == "half"
    write_json(tmp_path / "b.json", {})  # another file of the folder
    assert [file.name for file in tmp_path.iterdir()] == ["b.json"]


def test_what_others_are_writing_is_left_alone(tmp_path):
    name = ".a.json.tmp-{}-{}-0123abcd.json"
    parent = tmp_path / name.format(platform.node(), os.getppid())
    other_host = tmp_path / name.format("another-node", 1)
    with replacing(tmp_path / "c.json") as own:
        own.touch()
        for file in (parent, other_host):
            file.touch()
        remove_leftovers(tmp_path)
        assert {*tmp_path.iterdir()} == {parent, other_host, own}
    long_ago = time.time() - 2 * files.MAX_WRITING_SECONDS
    for file in (parent, other_host):
        os.utime(file, (long_ago, long_ago))
    remove_leftovers(tmp_path)
    assert {*tmp_path.iterdir()} == {parent, tmp_path / "c.json"}


@pytest.mark.parametrize(
    "name",
    [
        ".lock",
        ".htaccess.json",
        ".a.json.tmp-0123abcd.json",
        "a.json.tmp-{host}-1-0123abcd.json",
        ".a.json.tmp-{host}-99999999999999999999-0123abcd.json",
    ],
)
def test_files_of_other_names_are_left_alone(tmp_path, name):
    file = tmp_path / name.format(host=platform.node())
    file.touch()
    remove_leftovers(tmp_path)
    assert file.is_file()


def test_two_machines_and_two_threads_write_under_different_names(tmp_path, monkeypatch):
    names, meet = [], threading.Barrier(2, timeout=30)

    def write():
        with replacing(tmp_path / "a.json") as temporary:
            temporary.write_text("whole")
            names.append(temporary.name)
            meet.wait()

    threads = [threading.Thread(target=write) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({*names}) == 2
    assert all(f"-{os.getpid()}-" in name and platform.node() in name for name in names)
    assert [file.name for file in tmp_path.iterdir()] == ["a.json"]


def test_a_process_is_alive_until_it_ends(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    assert is_alive(process.pid)
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert not is_alive(process.pid)  # a zombie
    process.wait()
    assert not is_alive(process.pid)
