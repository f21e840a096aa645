"""Commands that describe what a study can say: `list`, `schema`."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from fnmatch import fnmatchcase
from pathlib import Path

from dmlbench.cli.arguments import AddCommand, output_file
from dmlbench.utils.errors import UserError
from dmlbench.utils.files import write_json
from dmlbench.utils.text import did_you_mean


def add_commands(add_command: AddCommand) -> None:
    listing = add_command("list", _list, "list what a study can name")
    listing.add_argument("noun", choices=("losses", "datasets", "backbones", "settings"))
    listing.add_argument(
        "word", nargs="?", help="only names with this in them; with * or ?, the whole name: vit_*"
    )
    listing.add_argument("--markdown", action="store_true", help="print the page of docs/")
    schema = add_command("schema", _schema, "write the JSON schema of study files, for editors")
    schema.add_argument("--output", type=output_file, default=Path("config/schema.json"))


def _list(options: argparse.Namespace) -> int:
    from dmlbench.backbones import catalogue as backbones
    from dmlbench.datasets import _docs_page as datasets
    from dmlbench.losses import _docs_page as losses
    from dmlbench.study import reference as settings

    lists: dict[str, Callable[[], list[str]]] = {
        "losses": losses.lines,
        "datasets": datasets.lines,
        "backbones": backbones.lines,
        "settings": settings.lines,
    }
    pages: dict[str, Callable[[], str]] = {
        "losses": losses.markdown,
        "datasets": datasets.markdown,
        "settings": settings.markdown,
    }
    if not options.markdown:
        print(*_with_word(lists[options.noun](), options.word, options.noun), sep="\n")
        return 0
    if options.noun not in pages:
        raise UserError(f"list: --markdown is for {', '.join(pages)}, not {options.noun}.")
    if options.word:
        raise UserError("list: --markdown prints a whole page. Leave out the word.")
    print(pages[options.noun](), end="")
    return 0


def _with_word(lines: list[str], word: str | None, noun: str) -> list[str]:
    """The lines whose name, their first word, has `word` in it; with * or ?, fits it.

    Upper and lower case are the same.
    """
    if word is None:
        return lines
    pattern = (word if any(sign in word for sign in "*?") else f"*{word}*").casefold()
    names = [line.split(maxsplit=1)[0] for line in lines]
    chosen = [
        line
        for line, name in zip(lines, names, strict=True)
        if fnmatchcase(name.casefold(), pattern)
    ]
    if not chosen:
        hint = did_you_mean(word, names)
        raise UserError(f"list: no name of {noun} has '{word}' in it. {hint}".rstrip())
    return chosen


def _schema(options: argparse.Namespace) -> int:
    from dmlbench.study.settings import Settings

    write_json(options.output, Settings.model_json_schema())
    return 0
