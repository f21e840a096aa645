"""Scratch space is private, and a store is copied there whole or not at all."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from dmlbench.datasets.store.reader import Store
from dmlbench.training import scratch
from dmlbench.training.scratch import scratch_folder, staged_store


@pytest.fixture(autouse=True)
def node(tmp_path, monkeypatch):
    """The scratch space of a node."""
    (tmp_path / "node").mkdir()
    monkeypatch.setenv("DMLBENCH_SCRATCH", str(tmp_path / "node"))
    scratch._private_folder.cache_clear()
    yield tmp_path / "node"
    scratch._private_folder.cache_clear()


@pytest.fixture
def store(data_folder):
    return next((data_folder / "stores").iterdir())


def private(node):
    return node / f"dmlbench-{os.getuid()}"


def test_a_store_is_copied_once(node, store, monkeypatch):
    copy = staged_store(store)
    assert copy == private(node) / "stores" / store.name
    names = {file.name for file in copy.iterdir()}
    assert names == {file.name for file in store.glob("[!.]*") if file.is_file()}
    assert all((copy / name).read_bytes() == (store / name).read_bytes() for name in names)
    assert len(Store(copy).index["id"]) == len(Store(store).index["id"])
    monkeypatch.setattr(scratch, "_copy_store", None)  # it would fail if it were called
    assert staged_store(store) == copy


def test_jobs_that_come_at_once_make_one_copy(node, store, monkeypatch):
    meet, calls, copy = threading.Barrier(3, timeout=30), [], scratch._copy_store

    def count(*arguments):
        calls.append(arguments)
        copy(*arguments)

    def stage(_):
        meet.wait()
        return staged_store(store)

    scratch_folder()
    monkeypatch.setattr(scratch, "_copy_store", count)
    with ThreadPoolExecutor(3) as pool:
        assert len({*pool.map(stage, range(3))}) == len(calls) == 1


def test_a_store_that_is_packed_anew_is_copied_anew(node, store, tmp_path):
    copy = staged_store(store)
    (copy / "manifest.json").write_text("{}")
    staged_store(store)
    assert (copy / "manifest.json").read_bytes() == (store / "manifest.json").read_bytes()


def test_without_room_the_store_itself_is_read(node, store, monkeypatch, capsys):
    monkeypatch.setattr(scratch, "KEPT_FREE", 1.0)
    assert staged_store(store) == store
    (line,) = capsys.readouterr().out.splitlines()
    assert f"{private(node)}/stores/{store.name}: reading {store} instead: it takes " in line
    assert line.endswith(" are free")


def test_a_copy_that_is_damaged_on_its_way_is_not_used(node, store, monkeypatch, capsys):
    def damage(source, target):
        content = bytearray(source.read_bytes())
        if source.suffix != ".parquet":
            content[len(content) // 2] ^= 1
        target.write_bytes(content)

    monkeypatch.setattr(scratch, "copy_file", damage)
    assert staged_store(store) == store
    assert "the copy is damaged: image " in capsys.readouterr().out
    assert [file.name for file in (private(node) / "stores").iterdir()] == [f".{store.name}.lock"]


def test_without_the_variable_nothing_is_copied(node, store, monkeypatch):
    monkeypatch.delenv("DMLBENCH_SCRATCH")
    assert (scratch_folder(), staged_store(store)) == (None, store)
    assert not list(node.iterdir())


def test_variables_of_the_node_are_known_there(node, monkeypatch):
    monkeypatch.setenv("JOB_DISK", str(node))
    monkeypatch.setenv("DMLBENCH_SCRATCH", "$JOB_DISK")
    assert scratch_folder() == private(node)


def test_a_folder_that_the_node_does_not_have_is_not_used(monkeypatch, capsys):
    monkeypatch.setenv("DMLBENCH_SCRATCH", "/no/such")
    assert scratch_folder() is None
    assert scratch_folder() is None
    expected = "DMLBENCH_SCRATCH=/no/such: not used: no such folder on this node\n"
    assert capsys.readouterr().out == expected


@pytest.mark.parametrize("trap", ["link", "open to all", "file"])
def test_a_folder_that_others_made_or_can_write_is_not_used(node, tmp_path, trap, capsys):
    folder = private(node)
    if trap == "link":
        (tmp_path / "elsewhere").mkdir()
        folder.symlink_to(tmp_path / "elsewhere")
    elif trap == "open to all":
        folder.mkdir()
        folder.chmod(0o777)
    else:
        Path(folder).touch()
    assert scratch_folder() is None
    assert "not used: " in capsys.readouterr().out
