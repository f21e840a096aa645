"""Commands below `data`: archives and packed images."""

from __future__ import annotations

import argparse
import contextlib
import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dmlbench.cli.arguments import AddCommand, json_object, output_file, read, side
from dmlbench.utils.errors import DatasetError
from dmlbench.utils.files import data_folder
from dmlbench.utils.text import did_you_mean, listed


def add_commands(add_command: AddCommand) -> None:
    packing = add_command("pack", _pack, "pack the images of a data set into a store")
    packing.add_argument("type", help="a name of `dmlbench list datasets`")
    packing.add_argument("side", type=side, help="short side of the packed images in pixels")
    packing.add_argument(
        "checksums", type=json_object, help="checksums of your own archives as JSON, or {}"
    )
    packing.add_argument("form", choices=("pixels", "jpeg"), help="how images are kept")
    packing.add_argument("store", type=Path, help="folder to make")
    packing.add_argument(
        "--options", type=json_object, help="options of the type as JSON, if it has some"
    )
    add_command(
        "list", _data_list, "list data sets, and which of their archives and stores are there"
    )
    showing = add_command(
        "show", _data_show, "show facts, fingerprints and a contact sheet of a data set"
    )
    _add_name(showing)
    showing.add_argument("--side", type=side, help="only the packed images of this short side")
    showing.add_argument(
        "--sheet", type=output_file, help="file for the contact sheet; default: in the store"
    )
    verifying = add_command(
        "verify", _data_verify, "read packed images and check that nothing changed"
    )
    _add_name(verifying)
    searching = add_command(
        "duplicates", _duplicates, "find test images that are near-duplicates of training images"
    )
    _add_name(searching)
    searching.add_argument(
        "--train",
        metavar="STORE",
        help="the store of the training images; default: the same. `holdout`: what its holdouts "
        "may train on",
    )
    fetching = add_command(
        "fetch", _fetch, "download the archives of a data set, or the rest of them"
    )
    fetching.add_argument("type", help="a name of `dmlbench list datasets`")
    own = "checksums of your own archives as JSON"
    fetching.add_argument("checksums", type=json_object, nargs="?", default={}, help=own)
    fetching.add_argument(
        "--options", type=json_object, help="options of the type as JSON, if it has some"
    )


def _add_name(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", help="a data set, its entry in a study, or a folder of images")
    parser.add_argument("--study", type=Path, help="the study that `name` is an entry of")


def _stores_of_study(options: argparse.Namespace) -> list[str] | None:
    """Names of the stores of the entry `name` in `--study`; None without a study."""
    if options.study is None:
        return None
    stores: dict[str, dict[str, None]] = {}
    for run in read(options).runs.values():
        for part in (run, run.tested):
            stores.setdefault(part.dataset, {})[part.store] = None
    if options.name not in stores:
        hint = did_you_mean(options.name, stores)
        raise DatasetError(f"{options.study}: its plan has no data set '{options.name}'. {hint}")
    return [*stores[options.name]]


def _checked_options(options: argparse.Namespace) -> dict[str, Any] | None:
    """`--options`, checked as those of a data set in a study."""
    from dmlbench.datasets import list_datasets

    if not options.options or options.type not in list_datasets():  # `load` says which
        return options.options
    from pydantic import ValidationError

    from dmlbench.study.error_messages import describe_errors
    from dmlbench.study.loss_options import create_options_model
    from dmlbench.utils.declarations import read_declarations

    declared = read_declarations(f"dmlbench.datasets.{options.type}").options
    if not declared:
        raise DatasetError(f"--options: the data set '{options.type}' has no options.")
    model = create_options_model(options.type, declared)
    try:
        return model.model_validate(options.options).model_dump()
    except ValidationError as error:
        problems = describe_errors(error, model)
        raise DatasetError(listed(f"--options of '{options.type}'", problems)) from None


def _pack(options: argparse.Namespace) -> int:
    from dmlbench.datasets.store.pack import pack

    with _resumable():
        pack(
            options.type,
            options.side,
            options.store,
            data_folder() / "archives",
            options.checksums,
            options=_checked_options(options),
            form=options.form,
        )
    return 0


def _data_list(options: argparse.Namespace) -> int:
    from dmlbench.datasets.store.inspection import list_data

    print(list_data(data_folder()))
    return 0


def _data_show(options: argparse.Namespace) -> int:
    from dmlbench.datasets.store.inspection import describe

    stores = _stores_of_study(options)
    print(describe(options.name, options.side, options.sheet, data_folder(), stores))
    return 0


def _data_verify(options: argparse.Namespace) -> int:
    from dmlbench.datasets.store.inspection import verify

    for line in verify(options.name, data_folder(), _stores_of_study(options)):
        print(line, flush=True)
    return 0


def _duplicates(options: argparse.Namespace) -> int:
    from dmlbench.datasets.store.duplicates_file import write_duplicates
    from dmlbench.datasets.store.inspection import find_stores

    folders = find_stores(options.name, data_folder(), _stores_of_study(options))
    if not folders:
        raise DatasetError(f"{options.name}: there is no store of it in {data_folder() / 'stores'}")
    for folder in folders:
        trained = options.train or folder.name
        print(write_duplicates(folder.parent, trained, folder.name), flush=True)
    return 0


def _fetch(options: argparse.Namespace) -> int:
    """Fetch archives, and print which ones are there. An interrupted download can be resumed."""
    from dmlbench.datasets import load
    from dmlbench.datasets.archives.fetching import describe_archives, fetch

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sources, checksums = load(options.type, _checked_options(options)).SOURCES, options.checksums
    with _resumable():
        paths = fetch(sources, data_folder() / "archives", checksums)
    print(json.dumps(describe_archives(sources, paths, checksums), indent=1))
    return 0


@contextlib.contextmanager
def _resumable() -> Iterator[None]:
    """Say in one line that Ctrl-C loses nothing."""
    try:
        yield
    except KeyboardInterrupt:
        raise DatasetError("stopped: the same command goes on from here") from None
