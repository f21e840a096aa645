"""Commands that read results: `show`, `diff`, `compare`, `merge`, `export`, `reproduce`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from dmlbench.cli.arguments import AddCommand, add_study, output_file, read

if TYPE_CHECKING:
    from dmlbench.study.study import Study

CELL = "dataset/backbone/loss"


def add_commands(add_command: AddCommand) -> None:
    show = add_study(add_command("show", _show, "print the scores of a study, or all about a cell"))
    show.add_argument("cell", nargs="?", help=CELL)
    diff = add_command(
        "diff", _diff, "print what two cells differ in: settings, code, versions and scores"
    )
    for name in ("first", "second"):
        diff.add_argument(name, type=_cell_of_study, help=f"study/{CELL}")
    compare = add_command("compare", _compare, "print the scores of several studies side by side")
    compare.add_argument("studies", type=Path, nargs="+", help="study files, or names")
    merge = add_study(
        add_command("merge", _merge, "take the results that were made in other places")
    )
    merge.add_argument(
        "folders", type=Path, nargs="+", metavar="folder", help="folder of results, results/<study>"
    )
    export = add_study(
        add_command("export", _export, "write the results of a study into one archive, to publish")
    )
    export.add_argument("--output", type=output_file, required=True, help=".zip to write")
    reproduce = add_study(
        add_command("reproduce", _reproduce, "print the commands that make a cell again")
    )
    reproduce.add_argument("cell", help=CELL)


def _cell_of_study(text: str) -> tuple[str, str]:
    """A study and a cell of it, from `study/dataset/backbone/loss`."""
    study, _, cell = text.strip("/").partition("/")
    if cell.count("/") != 2:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no cell of a study; for example demo/letters/test_resnet/htl"
        )
    return study, cell


def _show(options: argparse.Namespace) -> int:
    from dmlbench.leaderboard.terminal import show_cell, show_study

    study = read(options)
    if options.cell:
        show_cell(study, options.cell)
    else:
        show_study(study)
    return 0


def _diff(options: argparse.Namespace) -> int:
    from dmlbench.leaderboard.terminal import show_difference
    from dmlbench.study.study import read_study

    studies: dict[str, Study] = {}
    for name, _ in (options.first, options.second):
        studies[name] = studies.get(name) or read_study(Path(name))
    (first, cell), (second, other) = options.first, options.second
    show_difference((studies[first], cell), (studies[second], other))
    return 0


def _compare(options: argparse.Namespace) -> int:
    from dmlbench.leaderboard.terminal import show_studies
    from dmlbench.study.study import read_study

    show_studies([read_study(study) for study in options.studies])
    return 0


def _merge(options: argparse.Namespace) -> int:
    from dmlbench.workflow.merge import merge
    from dmlbench.workflow.study_lock import lock_study

    study = read(options)
    lock_study(study)
    merged = merge(study, options.folders)
    print(*merged.lines(), sep="\n")
    print(f"The leaderboard, and what is missing: dmlbench run {options.study}")
    return 0


def _export(options: argparse.Namespace) -> int:
    from dmlbench.utils.text import count_of
    from dmlbench.workflow.export import export

    runs = export(read(options), options.output)
    print(f"{options.output}: {count_of(runs, 'run')}. Your name belongs into its CITATION.cff.")
    return 0


def _reproduce(options: argparse.Namespace) -> int:
    from dmlbench.leaderboard.terminal import show_commands

    show_commands(read(options), options.cell)
    return 0
