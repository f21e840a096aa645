"""The parser of the command line, and its way out.

Each command imports what it needs itself: `dmlbench --help` is fast.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import dmlbench
from dmlbench.cli import data, jobs, listings, losses, results, scores, studies
from dmlbench.cli.arguments import AddCommand
from dmlbench.utils.device import DEVICE, use_chosen_device
from dmlbench.utils.errors import UserError, is_out_of_memory
from dmlbench.utils.text import error_reason
from dmlbench.workflow.job_log import log_ending

OF_THE_MACHINE = frozenset(
    {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.ENOTDIR}
    | {errno.EISDIR, errno.ENAMETOOLONG, errno.EIO, errno.ESTALE}
)
"""Errors of the system that no change of the code mends."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and end the process: 0, or 1 and one message, or the command's own code."""
    here = str(Path.cwd())
    if here not in sys.path:  # as with `python -m dmlbench`: losses of the user are found
        sys.path.append(here)
    options = parse(sys.argv[1:] if arguments is None else arguments)
    try:
        use_chosen_device()
        with log_ending() if options.job else contextlib.nullcontext():
            sys.exit(options.do(options))
    except BrokenPipeError:  # `dmlbench plan my.yaml | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for Python's last flush
        sys.exit(0)
    except KeyboardInterrupt:
        print("dmlbench: stopped", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)  # as programs do that a signal ends
    except UserError as error:
        sys.exit(f"dmlbench: {error}")
    except OSError as error:
        if error.errno not in OF_THE_MACHINE or not error.filename:
            raise
        sys.exit(f"dmlbench: {error.filename}: {error.strerror}")
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        fix = f"End other programs that use it; or if it is a GPU's, set {DEVICE}=cpu."
        sys.exit(f"dmlbench: the memory is too small: {error_reason(error)}. {fix}")


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The options of a command; `passed_on` is what `run` and `submit` have after `--`."""
    own, passed_on = list(arguments), []
    if own[:1] in (["run"], ["submit"]) and "--" in own:
        end = own.index("--")
        own, passed_on = own[:end], own[end + 1 :]
    return build_parser().parse_args(own, argparse.Namespace(passed_on=passed_on))


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands; each sets `do`, the function that runs it."""
    summary = (dmlbench.__doc__ or "").partition("\n")[0]  # below it is an example of the library
    parser = argparse.ArgumentParser(prog="dmlbench", description=summary)
    parser.add_argument("--version", action="version", version=dmlbench.__version__)
    parser.add_argument(
        "--job", action="store_true", help="end the output with a line that says how it ended"
    )
    add_command = _adder(parser)
    studies.add_commands(add_command)
    results.add_commands(add_command)
    listings.add_commands(add_command)
    losses.add_commands(add_command)
    scores.add_commands(add_command)
    data.add_commands(_adder(add_command("data", None, "show, fetch, pack and verify data sets")))
    jobs.add_commands(add_command)
    return parser


def _adder(parser: argparse.ArgumentParser) -> AddCommand:
    """The function that adds a command below `parser`."""
    commands: Any = parser.add_subparsers(required=True, metavar="command")

    def add(name: str, do: object, text: str) -> argparse.ArgumentParser:
        command: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text)
        command.set_defaults(do=do)
        return command

    return add
