"""Questions about installed packages, asked once per version in a process of their own.

Importing timm or torch takes seconds. A study that names a timm model or a loss of
pytorch-metric-learning is checked without: the answer of an earlier process is remembered.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import resource
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from dmlbench.utils.errors import BrokenInstallation, WrongEnvironment
from dmlbench.utils.files import read_json_if_whole, write_json


def versions(*packages: str) -> dict[str, str]:
    """Installed versions, without importing anything; a missing package is left out."""
    installed = {}
    for package in packages:
        try:
            installed[package] = version(package)
        except PackageNotFoundError:
            continue
    return installed


def remembered(name: str, facts: Any) -> Any | None:
    """The answer that was given for `facts`; None if nobody asked yet."""
    return read_json_if_whole(_cache_file(name, facts))


def ask_once(name: str, facts: Any, module: str, *arguments: str) -> Any:
    """As `ask`, unless the answer is remembered."""
    known = remembered(name, facts)
    return ask(name, facts, module, *arguments) if known is None else known


def ask(name: str, facts: Any, module: str, *arguments: str) -> Any:
    """What `python -m module arguments` prints as JSON in its last line.

    The answer is remembered under `name` for `facts`, everything that it depends on.

    Raises:
        BrokenInstallation: the process failed; the text is its last line. It is asked again the
            next time.
    """
    answer = _run(module, arguments)
    remember(name, facts, answer)
    return answer


def find_problems(
    name: str, module: str, questions: Sequence[Any], facts: Sequence[Any]
) -> list[str]:
    """The problem of each of `questions`; empty if it has none.

    `python -m module` reads questions from its input as a JSON list, and prints the list of their
    problems in its last line. It gets only those that are not known to have no problem.

    Args:
        facts: everything that the answer to each question depends on.

    Raises:
        BrokenInstallation: the process failed; the text is its last line.
    """
    asked = [number for number, known in enumerate(facts) if remembered(name, known) is None]
    problems = [""] * len(questions)
    if asked:
        answers = _run(module, (), json.dumps([questions[number] for number in asked]))
        for number, problem in zip(asked, answers, strict=True):
            problems[number] = problem
            if not problem:  # a problem may go away by something that is not among the facts
                remember(name, facts[number], "")
    return problems


def remember(name: str, facts: Any, answer: Any) -> None:
    """Keep `answer` for `remembered`."""
    with contextlib.suppress(OSError):  # without a cache it is slower, and no worse
        write_json(_cache_file(name, facts), answer)


def _run(module: str, arguments: Sequence[str], text: str = "") -> Any:
    command = [sys.executable, "-m", module, *arguments]
    run = subprocess.run(
        command,
        input=text,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=_limit_memory,
    )
    if run.returncode:
        killed = f"it was killed by signal {-run.returncode}: is the memory short?"
        reason = killed if run.returncode < 0 else "no message"
        raise BrokenInstallation((run.stderr.strip().splitlines() or [reason])[-1])
    return json.loads(run.stdout.splitlines()[-1])


def _limit_memory() -> None:
    """Let this process have the memory of the machine and no more: a wrong number in a study must
    be an error, and not the end of other processes."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if hard == resource.RLIM_INFINITY or memory < hard:
        resource.setrlimit(resource.RLIMIT_DATA, (memory, hard))


def cache_folder() -> Path:
    """Where answers are kept: DMLBENCH_CACHE, or the user's cache folder.

    Raises:
        WrongEnvironment: DMLBENCH_CACHE is a file.
    """
    default = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dmlbench"
    folder = Path(os.environ.get("DMLBENCH_CACHE") or default)
    if folder.exists() and not folder.is_dir():
        problem = "it is a file, and answers are kept in a folder. Name a folder, or unset it."
        raise WrongEnvironment(f"DMLBENCH_CACHE={folder}: {problem}")
    return folder


def _cache_file(name: str, facts: Any) -> Path:
    label = hashlib.sha256(json.dumps([facts, sys.prefix]).encode()).hexdigest()[:16]
    return cache_folder() / f"{name}-{label}.json"
