"""What the installed packages offer, asked once per version in a process of its own.

Importing timm or torch takes seconds; a study that names a timm model, a loss of
pytorch-metric-learning or one of the user's own is checked without.
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
from typing import Any

from dmlbench import source
from dmlbench.files import read_json_if_whole, write_json

_REGISTER = """
import importlib, json, sys, timm
for module in sys.argv[1:]:
    importlib.import_module(module)
"""
_LIST_MODELS = """
print(json.dumps(timm.list_models() + timm.list_pretrained()))
"""
_LIST_WEIGHTS = """
found = {}
for name in timm.list_models() + timm.list_pretrained():
    config = timm.get_pretrained_cfg(name, allow_unregistered=False)
    if config is not None and config.has_weights:
        found[name] = ".".join(filter(None, [config.architecture, config.tag]))
print(json.dumps(found))
"""
_LIST_PML = """
import json
from dmlbench.losses._pml import catalogue
print(json.dumps(catalogue()))
"""
_DESCRIBE_OWN = """
import json, sys
from dmlbench.losses._own import describe
try:
    print(json.dumps(describe(sys.argv[1])))
except ValueError as error:
    sys.exit(str(error))
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


class UnusableLoss(ValueError):
    """An import path in a study does not lead to a loss; the message says why."""


def versions(*packages: str) -> dict[str, str]:
    """Installed versions, without importing anything; a missing package is left out."""
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


@cache
def own_backbones() -> tuple[str, ...]:
    """The modules that register a model with timm, each under the name of its file."""
    files = sorted((source.PACKAGE / "backbones").glob("*.py"))
    modules = [f"dmlbench.backbones.{file.stem}" for file in files]
    return tuple(n for n in modules if "timm.models.register_model" in source.imports(n))


def backbone_module(kind: str) -> str:
    """The module of the backbone `kind`, with or without a tag: a file of its own, else timm's."""
    own = f"dmlbench.backbones.{kind.partition('.')[0]}"
    return own if own in own_backbones() else "dmlbench.backbones.timm"


@cache
def timm_models() -> frozenset[str]:
    """Names of all models that timm knows, its own and those that are registered here, without
    and with the tags of their weights.

    Raises:
        BrokenInstallation: timm does not import, as beside a torchvision of another torch.
    """
    return frozenset(_ask_timm("timm", _LIST_MODELS))


@cache
def timm_weights() -> dict[str, str]:
    """The weights that these models start from: name, with or without a tag -> name with its tag.

    Raises:
        BrokenInstallation: timm does not import.
    """
    return _ask_timm("timm-weights", _LIST_WEIGHTS)


def _ask_timm(name: str, script: str) -> Any:
    found, own = versions("torch", "torchvision", "timm"), own_backbones()
    try:
        return _asked(name, [found, source.digest(*own)], _REGISTER + script, *own)
    except BrokenInstallation as error:
        shown = ", ".join(f"{name} {number}" for name, number in found.items())
        raise BrokenInstallation(BROKEN_TIMM.format(error=error, versions=shown)) from None


def loss_module(kind: str) -> str:
    """The module that builds the loss `kind`: its file in this package; what wraps any `pml.Name`;
    the module of an import path."""
    if "." not in kind:
        return f"dmlbench.losses.{kind}"
    module = kind.rpartition(".")[0]
    return "dmlbench.losses._pml" if module == "pml" else module


@cache
def pml_losses() -> dict[str, dict[str, list[Any]]]:
    """Losses of pytorch-metric-learning: name -> option -> [annotation, and default if any]."""
    found = versions("torch", "pytorch-metric-learning")
    code = source.digest("dmlbench.losses._pml")
    try:
        return _asked("pml", [found, code], _LIST_PML)
    except BrokenInstallation as error:
        raise BrokenInstallation(f"pytorch-metric-learning does not import: {error}") from None


@cache
def own_loss(kind: str) -> dict[str, list[Any]]:
    """Options of a loss of the user's own, by its import path: option -> [annotation, and default
    if any]. Asked anew when its code changed.

    Raises:
        UnusableLoss: there is no such class, or it is no loss.
    """
    module = kind.rpartition(".")[0]
    if not all(part.isidentifier() for part in kind.split(".")) or not source.exists(module):
        raise UnusableLoss(f"There is no module {module} here, nor among the installed packages")
    try:
        code = source.digest("dmlbench.losses._own", module)
        return _asked("own", [versions("torch"), code, kind], _DESCRIBE_OWN, kind)
    except (SyntaxError, ImportError) as error:
        raise UnusableLoss(f"{module} does not import: {error}") from None
    except BrokenInstallation as error:
        raise UnusableLoss(str(error)) from None


def remembered(name: str, facts: Any) -> Any | None:
    """What was answered for `facts`; None where nothing was asked yet."""
    return read_json_if_whole(_kept(name, facts))


def _asked(name: str, facts: Any, script: str, *arguments: str) -> Any:
    """As `ask`, where nothing is remembered."""
    known = remembered(name, facts)
    return ask(name, facts, script, *arguments) if known is None else known


def ask(name: str, facts: Any, script: str, *arguments: str) -> Any:
    """What `script` prints as JSON, in a process of its own; the answer is kept for `facts`.

    Raises:
        BrokenInstallation: the process failed; its last words, and asked again the next time.
    """
    run = subprocess.run(
        [sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=False
    )
    if run.returncode:
        raise BrokenInstallation((run.stderr.strip().splitlines() or ["no message"])[-1])
    answer = json.loads(run.stdout.splitlines()[-1])
    with contextlib.suppress(OSError):  # a cache, where there is room for one
        write_json(_kept(name, facts), answer)
    return answer


def _kept(name: str, facts: Any) -> Path:
    label = hashlib.sha256(json.dumps([facts, sys.prefix]).encode()).hexdigest()[:16]
    return cache_folder() / f"{name}-{label}.json"


def cache_folder() -> Path:
    """Where answers about installed packages are kept: DMLBENCH_CACHE or the user's cache."""
    default = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dmlbench"
    return Path(os.environ.get("DMLBENCH_CACHE") or default)
