"""A damaged checkpoint is never trained on, and a lost one costs little."""

import errno
import os
import random
import threading
import time
from pathlib import Path

import pytest
import torch

from dmlbench.training import checkpoint as module
from dmlbench.training import scratch
from dmlbench.training.checkpoint import Checkpoint, finish_copying, is_copying
from dmlbench.utils.errors import DiskError


def state(step):
    generator = torch.Generator().manual_seed(step)
    return {"step": step, "model": {"weight": torch.rand(64, 64, generator=generator)}}


@pytest.fixture
def checkpoint(tmp_path):
    return Checkpoint(tmp_path, "k")


def flip(path, position, bit):
    with path.open("rb+") as file:
        file.seek(position)
        byte = file.read(1)[0]
        file.seek(position)
        file.write(bytes([byte ^ (1 << bit)]))


def test_what_is_saved_is_loaded(checkpoint, tmp_path):
    assert checkpoint.load() is None
    for step in (1, 2, 3):
        checkpoint.save(state(step))
    loaded = Checkpoint(tmp_path, "k").load()
    assert loaded["step"] == 3
    assert torch.equal(loaded["model"]["weight"], state(3)["model"]["weight"])
    assert {file.name for file in tmp_path.iterdir()} == {"checkpoint.pt", "checkpoint.previous.pt"}


def test_every_flipped_bit_is_noticed_and_the_one_before_is_used(checkpoint, capsys):
    checkpoint.save(state(1))
    checkpoint.save(state(2))
    whole, before = checkpoint.path.read_bytes(), checkpoint.previous.read_bytes()
    for _ in range(200):
        checkpoint.path.write_bytes(whole)
        flip(checkpoint.path, position := random.randrange(len(whole)), random.randrange(8))
        loaded = checkpoint.load()
        assert loaded["step"] == 1, position
        assert "damaged, and not used: its bytes are not those" in capsys.readouterr().out
        assert not checkpoint.path.exists()
        assert checkpoint.previous.read_bytes() == before


@pytest.mark.parametrize("length", [0, 1, 31, 32, 33, 1000, -1, -32])
def test_a_checkpoint_that_was_cut_is_noticed(checkpoint, length):
    checkpoint.save(state(1))
    checkpoint.path.write_bytes(checkpoint.path.read_bytes()[:length])
    assert checkpoint.load() is None
    assert not checkpoint.path.exists()


def test_without_a_whole_one_the_training_starts_anew(checkpoint):
    checkpoint.save(state(1))
    checkpoint.save(state(2))
    flip(checkpoint.path, 900, 0)
    flip(checkpoint.previous, 900, 0)
    assert checkpoint.load() is None
    assert not checkpoint.previous.exists()


def test_checkpoints_of_other_settings_are_removed(checkpoint, tmp_path):
    checkpoint.save(state(1))
    checkpoint.save(state(2))
    assert Checkpoint(tmp_path, "other").load() is None
    assert not list(tmp_path.iterdir())


def test_the_one_before_stays_while_the_next_one_is_written(checkpoint, monkeypatch):
    checkpoint.save(state(1))
    checkpoint.save(state(2))

    def die(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(module.os, "fsync", die)
    with pytest.raises(KeyboardInterrupt):
        checkpoint.save(state(3))
    assert checkpoint.load()["step"] == 2


def room_for(count, monkeypatch):
    """A disk that has room for `count` checkpoints."""
    write = torch.save

    def save(content, file):
        folder = Path(file.file.name).parent
        if len([*folder.iterdir()]) > count:
            raise RuntimeError("unexpected pos 64 vs 0") from OSError(errno.ENOSPC, "x")
        write(content, file)

    monkeypatch.setattr(torch, "save", save)


def test_with_room_for_two_only_the_last_one_is_kept(checkpoint, monkeypatch, tmp_path):
    room_for(2, monkeypatch)
    for step in (1, 2, 3):
        checkpoint.save(state(step))
    assert checkpoint.load()["step"] == 3
    room_for(1, monkeypatch)
    with pytest.raises(DiskError, match=rf"^{tmp_path}: the disk is full \(No space left"):
        checkpoint.save(state(4))
    assert checkpoint.load()["step"] == 3


@pytest.fixture
def node(tmp_path, monkeypatch):
    """The folder of this user in the scratch space of a node."""
    (tmp_path / "node").mkdir()
    monkeypatch.setenv("DMLBENCH_SCRATCH", str(tmp_path / "node"))
    yield tmp_path / "node" / f"dmlbench-{os.getuid()}"
    scratch._private_folder.cache_clear()


def test_a_checkpoint_goes_to_scratch_space_and_from_there_to_the_state_folder(
    node, tmp_path, monkeypatch
):
    may_copy, copy = threading.Event(), module.copy_file

    def wait(*arguments):
        assert may_copy.wait(30)
        copy(*arguments)

    monkeypatch.setattr(module, "copy_file", wait)
    checkpoint = Checkpoint(tmp_path / "state", "k")
    checkpoint.save(state(1))
    assert is_copying()
    assert not checkpoint.path.exists()
    assert len([*node.iterdir()]) == 1
    checkpoint._next_save = 0
    assert not checkpoint.should_save()  # the last one has not arrived
    may_copy.set()
    finish_copying()
    assert checkpoint.should_save()
    assert not list(node.iterdir())
    assert checkpoint.load()["step"] == 1
    for step in (2, 3):
        checkpoint.save(state(step))
    finish_copying()
    assert checkpoint.load()["step"] == 3
    assert checkpoint.previous.is_file()


def test_a_training_that_begins_again_waits_for_its_last_checkpoint(node, tmp_path, monkeypatch):
    copy = module.copy_file

    def copy_slowly(*arguments):
        time.sleep(0.2)
        copy(*arguments)

    monkeypatch.setattr(module, "copy_file", copy_slowly)
    Checkpoint(tmp_path / "state", "k").save(state(1))
    assert is_copying()
    assert Checkpoint(tmp_path / "state", "k").load()["step"] == 1


def test_a_copy_that_finds_no_room_is_an_error_of_the_disk(node, tmp_path, monkeypatch):
    def fail(*arguments):
        raise OSError(errno.EDQUOT, "Disk quota exceeded")

    monkeypatch.setattr(module, "copy_file", fail)
    checkpoint = Checkpoint(tmp_path / "state", "k")
    checkpoint.save(state(1))
    with pytest.raises(DiskError, match="Disk quota exceeded"):
        finish_copying()
    finish_copying()  # it is said once


def test_full_scratch_space_is_not_used(node, tmp_path, monkeypatch, capsys):
    checkpoint = Checkpoint(tmp_path / "state", "k")
    checkpoint.staged = tmp_path / "missing/file.pt"
    checkpoint.save(state(1))
    assert capsys.readouterr().out.count("saving without scratch space") == 1
    assert checkpoint.load()["step"] == 1
    checkpoint.save(state(2))
    assert not capsys.readouterr().out
