"""The node's own disk: faster than the shared one, and empty for other nodes."""

from __future__ import annotations

import os
import shutil
import stat
from functools import cache
from hashlib import sha256
from pathlib import Path

from dmlbench.datasets.store.format import MANIFEST_FILE
from dmlbench.utils.files import remove_leftovers
from dmlbench.utils.locks import locked
from dmlbench.utils.text import format_bytes

MAKES_NUMBERS = False
SCRATCH = "DMLBENCH_SCRATCH"
"""The variable that names a folder on the node. It may hold variables that only the node knows."""
KEPT_FREE = 0.05
"""The share of the disk that a copied store leaves free, for checkpoints and for others."""


def scratch_folder() -> Path | None:
    """This user's folder in the scratch space of the node; None if there is none."""
    value = os.path.expandvars(os.environ.get(SCRATCH, ""))
    return _private_folder(Path(value)) if value else None


@cache
def _private_folder(scratch: Path) -> Path | None:
    """A folder in `scratch` that only this user can write; None, and a line, if that fails."""
    folder = scratch / f"dmlbench-{os.getuid()}"
    try:
        if not scratch.is_dir():
            raise OSError(0, "no such folder on this node")
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()  # other users of the node may have made it, or a link
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
            raise OSError(0, f"{folder.name} is a link, or other users can write to it")
    except OSError as error:
        print(f"{SCRATCH}={scratch}: not used: {error.strerror}", flush=True)
        return None
    remove_leftovers(folder)
    return folder


def staged_checkpoint(state: Path) -> Path | None:
    """Where a checkpoint for the folder `state` is written first; None without scratch space."""
    folder = scratch_folder()
    name = sha256(str(state.absolute()).encode()).hexdigest()[:16]
    return folder / f"checkpoint-{name}.pt" if folder else None


def copy_file(source: Path, target: Path) -> None:
    """Copy a file, and wait until it is on the disk."""
    shutil.copyfile(source, target)
    with target.open("rb+") as file:
        os.fsync(file.fileno())


def staged_store(store: Path) -> Path:
    """The copy of a packed store in the scratch space; `store` itself if there is no room for it.

    The first training of a node makes the copy, and checks it against the manifest.
    """
    folder = scratch_folder()
    if folder is None or not (store / MANIFEST_FILE).is_file():
        return store
    copy = folder / "stores" / store.name
    try:
        with locked(folder / "stores" / f".{store.name}.lock", f"{copy}: another job copies it"):
            if not _is_copy(copy, store):
                _copy_store(store, copy)
    except OSError as error:
        print(f"{copy}: reading {store} instead: {error.strerror or error}", flush=True)
        return store
    return copy


def _is_copy(copy: Path, store: Path) -> bool:
    """Whether `copy` has the manifest of `store`, which is written when the rest is there."""
    try:
        return (copy / MANIFEST_FILE).read_bytes() == (store / MANIFEST_FILE).read_bytes()
    except OSError:
        return False


def _copy_store(store: Path, copy: Path) -> None:
    """Copy a store, the manifest last.

    Raises:
        OSError: there is no room, or the copy is not what the manifest says.
    """
    from dmlbench.datasets.store.inspection import find_damage

    manifest = (store / MANIFEST_FILE).read_bytes()
    files = [file for file in store.iterdir() if file.is_file() and file.name[0] != "."]
    needed = sum(file.stat().st_size for file in files)
    disk = shutil.disk_usage(copy.parent)
    if needed > disk.free - KEPT_FREE * disk.total:
        raise OSError(0, f"it takes {format_bytes(needed)}, and {format_bytes(disk.free)} are free")
    shutil.rmtree(copy, ignore_errors=True)
    partial = copy.with_name(f"{copy.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir()
        for file in files:
            if file.name != MANIFEST_FILE:
                copy_file(file, partial / file.name)
        (partial / MANIFEST_FILE).write_bytes(manifest)
        if damage := find_damage(partial):
            raise OSError(0, f"the copy is damaged: {damage[0]}")
        partial.rename(copy)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
