"""What the installed packages offer, asked once per version in a process of its own.

Importing timm takes seconds; a study that names a timm model is checked without it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import subprocess
import sys
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from dmlbench import source
from dmlbench.files import read_json_if_whole, write_json

_LIST_MODELS = """
import json, timm
print(json.dumps(timm.list_models() + timm.list_pretrained()))
"""

BROKEN_TIMM = """\
timm does not import: {error}
  It needs a torchvision that was built for the installed torch ({versions}).
  The default builds fit each other, and run without a GPU too:
    pip install --force-reinstall torch torchvision
  For CPU-only builds take both from the one CPU index that pytorch.org's page names:
    pip install --force-reinstall torch torchvision --index-url ..."""


class BrokenInstallation(RuntimeError):
    """A package is there but does not import; the message says what to do."""


def versions(*packages: str) -> dict[str, str]:
    """Installed versions, without importing anything; a missing package is left out."""
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def backbone_module(kind: str) -> str:
    """The module that builds the backbone `kind`: a file of its own, else timm's."""
    own = f"dmlbench.backbones.{kind}"
    return own if source.exists(own) else "dmlbench.backbones.timm"


@cache
def timm_models() -> frozenset[str]:
    """Names of all timm models, without and with the tags of their weights.

    Raises:
        BrokenInstallation: timm does not import, as beside a torchvision of another torch.
    """
    found = versions("torch", "torchvision", "timm")
    label = hashlib.sha256(json.dumps([found, sys.prefix]).encode()).hexdigest()[:16]
    cached = cache_folder() / f"timm-{label}.json"
    if known := read_json_if_whole(cached):
        return frozenset(known)
    listing = subprocess.run(
        [sys.executable, "-c", _LIST_MODELS], capture_output=True, text=True, check=False
    )
    if listing.returncode:
        last = listing.stderr.strip().splitlines()[-1:] or ["no message"]
        shown = ", ".join(f"{name} {number}" for name, number in found.items())
        raise BrokenInstallation(BROKEN_TIMM.format(error=last[0], versions=shown))
    names = json.loads(listing.stdout.splitlines()[-1])
    with contextlib.suppress(OSError):  # a cache, where there is room for one
        write_json(cached, names)
    return frozenset(names)


def cache_folder() -> Path:
    """Where answers about installed packages are kept: DMLBENCH_CACHE or the user's cache."""
    default = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dmlbench"
    return Path(os.environ.get("DMLBENCH_CACHE") or default)
