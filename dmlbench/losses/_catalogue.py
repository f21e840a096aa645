"""The options of losses that have no file here. This process does not import them.

Another process does: `python -m dmlbench.losses._catalogue pml`, or `own PATH`.
"""

from __future__ import annotations

import json
import re
import sys
import sysconfig
from functools import cache
from typing import Any

from dmlbench.utils.declarations import read_docstring
from dmlbench.utils.discovery import ask_once, versions
from dmlbench.utils.errors import BrokenInstallation, UnusableLoss
from dmlbench.utils.fingerprint import code_digest
from dmlbench.utils.modules import module_exists, module_file

MAKES_NUMBERS = False
FAMILY = re.compile(r"^Family: (.+)\.$", re.MULTILINE)
"""The line of a loss's header that says what the loss compares an embedding with."""
NO_FAMILY = "other"


def loss_module(kind: str) -> str:
    """The module that builds the loss `kind`.

    >>> loss_module("rll"), loss_module("pml.CircleLoss"), loss_module("my_package.losses.Mine")
    ('dmlbench.losses.rll', 'dmlbench.losses._pml', 'my_package.losses')
    """
    if "." not in kind:
        return f"dmlbench.losses.{kind}"
    module = kind.rpartition(".")[0]
    return "dmlbench.losses._pml" if module == "pml" else module


@cache
def loss_family(kind: str) -> str:
    """The family that the header of the loss `kind` names; NO_FAMILY if it names none.

    >>> loss_family("triplet"), loss_family("proxy_anchor"), loss_family("pml.CircleLoss")
    ('pairs', 'proxies', 'other')
    """
    module = loss_module(kind)
    named = FAMILY.search(read_docstring(module)) if module_exists(module) else None
    return named[1] if named else NO_FAMILY


@cache
def pml_losses() -> dict[str, dict[str, list[Any]]]:
    """The losses of pytorch-metric-learning: name -> option -> [annotation, default if any].

    Raises:
        BrokenInstallation: pytorch-metric-learning does not import.
    """
    facts = [versions("torch", "pytorch-metric-learning"), code_digest("dmlbench.losses._pml")]
    try:
        losses: dict[str, dict[str, list[Any]]] = ask_once("pml", facts, __name__, "pml")
        return losses
    except BrokenInstallation as error:
        raise BrokenInstallation(f"pytorch-metric-learning does not import: {error}") from None


@cache
def own_loss(kind: str) -> dict[str, list[Any]]:
    """The options of the user's class `kind`: option -> [annotation, default if any].

    `kind` is an import path. The answer is remembered until the code of the class changes.

    Raises:
        UnusableLoss: there is no such class, or it is not a loss.
    """
    module = kind.rpartition(".")[0]
    if not all(part.isidentifier() for part in kind.split(".")) or not module_exists(module):
        raise UnusableLoss(f"There is no module {module} here, nor among the installed packages")
    try:
        reader = code_digest("dmlbench.losses._user_loss")
        facts = [versions("torch"), reader, _state_of_code(module), kind]
        options: dict[str, list[Any]] = ask_once("own", facts, __name__, "own", kind)
        return options
    except (SyntaxError, ImportError) as error:
        raise UnusableLoss(f"{module} does not import: {error}") from None
    except BrokenInstallation as error:
        raise UnusableLoss(str(error)) from None


def _state_of_code(module: str) -> Any:
    """What changes with the code of the user's `module`."""
    file = module_file(module)
    if any(file.is_relative_to(sysconfig.get_path(kind)) for kind in ("purelib", "platlib")):
        # The digest of a library as torch takes minutes. An installation writes its files anew.
        state = file.stat()
        return [str(file), state.st_size, state.st_mtime_ns, state.st_ino]
    return code_digest(module)


def main() -> None:
    """Import losses and print their options as JSON."""
    if sys.argv[1] == "pml":
        from dmlbench.losses._pml import catalogue

        print(json.dumps(catalogue()))
        return
    from dmlbench.losses._user_loss import describe

    try:
        print(json.dumps(describe(sys.argv[2])))
    except ValueError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
