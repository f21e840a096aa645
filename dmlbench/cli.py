"""The command line: commands for people, and the commands that the rules of the workflow call.

Each command imports what it needs itself: `dmlbench --help` is fast.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from dmlbench import __version__
from dmlbench.utils.errors import DatasetError, MissingResult, StudyError, UnusableLoss, UserError
from dmlbench.utils.files import data_folder, write_json
from dmlbench.utils.startup import exit_now, freeze_imports

if TYPE_CHECKING:
    from dmlbench.study.study import Study


def main(arguments: Sequence[str] | None = None) -> None:
    here = str(Path.cwd())
    if here not in sys.path:  # as with `python -m dmlbench`: losses of the user are found
        sys.path.append(here)
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        sys.exit(options.do(options))
    except BrokenPipeError:  # `dmlbench plan my.yaml | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for Python's last flush
        sys.exit(0)
    except UserError as error:
        sys.exit(f"dmlbench: {error}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="dmlbench", description=__doc__.splitlines()[0])
    parser.add_argument("--version", action="version", version=__version__)
    command = partial(_command, parser.add_subparsers(required=True, metavar="command"))

    def with_study(name: str, do: object, text: str) -> argparse.ArgumentParser:
        added = command(name, do, text)
        added.add_argument("study", type=Path, help="study file, or name of a study with results")
        return added

    plan = with_study("plan", _plan, "check a study, list its runs and their cost")
    plan.add_argument("--diff", action="store_true", help="show which jobs are pending, and why")
    plan.add_argument("--probe", action="store_true", help="measure the speed of this machine")
    plan.add_argument("--gpus", type=_count, help="number of GPUs; default: those of this machine")
    plan.add_argument(
        "--budget",
        type=_time,
        metavar="TIME",
        help="propose what to leave out to stay within this GPU time (or core time): 90m, 40h, 2d",
    )
    status = with_study("status", _status, "show how far a study is, from its files alone")
    status.add_argument(
        "--watch",
        type=float,
        nargs="?",
        const=2.0,
        metavar="SECONDS",
        help="look again every 2 s, or as often as this says, until all runs have ended",
    )
    embed = with_study("embed", _embed, "embed your own images with the model of a trained run")
    embed.add_argument(
        "run", help="dataset/backbone/loss/seed<k>, of a study with keep_model: true"
    )
    embed.add_argument("images", nargs="+", type=Path, help="images; folders or zips of images")
    embed.add_argument("--output", type=Path, required=True, help=".npz to write")
    listing = command("list", _list, "list what a study can name")
    listing.add_argument("noun", choices=("losses", "datasets", "backbones", "settings"))
    listing.add_argument("--markdown", action="store_true", help="print the page of docs/")
    check = command("check", _check, "run the conformance kit on a loss")
    check.add_argument(
        "loss",
        help="Python file with a loss, or a name: rll, pml.CircleLoss, my_package.my_module.MyLoss",
    )
    check.add_argument(
        "--option",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="an option of the loss, as in a study; may be repeated",
    )
    schema = command("schema", _schema, "write the JSON schema of study files, for editors")
    schema.add_argument("--output", type=Path, default=Path("config/schema.json"))

    data = command("data", None, "show, fetch, pack and verify data sets")
    _data_commands(partial(_command, data.add_subparsers(required=True, metavar="command")))
    weights = command("weights", _weights, "fetch the weights of a model, for `pretrained: true`")
    weights.add_argument(
        "model", help="a name of `dmlbench list backbones`, with or without its tag"
    )
    train = with_study("train", _train, "train one run, from its checkpoint if there is one")
    train.add_argument("run", help="dataset/backbone/loss/seed<k>")
    train.add_argument("--key", help="refuse to train under another key")
    train.add_argument("--max-minutes", type=float, help="save, and exit with 75, before that")
    evaluate = with_study("evaluate", _evaluate, "score the embeddings of one run")
    evaluate.add_argument("run", help="dataset/backbone/loss/seed<k>")
    evaluate.add_argument("--key", help="refuse to score under another key")
    with_study("leaderboard", _leaderboard, "write the table and the plots of a study")
    tracking = with_study("track", _track, "write the results of a study to MLflow")
    tracking.add_argument("--key", help="refuse to write under another key")
    with_study("verdict", _verdict, "exit with 1 if a run failed, and let it run again")
    return parser


def _command(commands: Any, name: str, do: object, text: str) -> argparse.ArgumentParser:
    added: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text)
    added.set_defaults(do=do)
    return added


def _data_commands(command: Callable[..., argparse.ArgumentParser]) -> None:
    packing = command("pack", _pack, "pack the images of a data set into a store")
    packing.add_argument("type", help="a name of `dmlbench list datasets`")
    packing.add_argument("side", type=int, help="short side of the packed images in pixels")
    packing.add_argument(
        "checksums", type=json.loads, help="checksums of your own archives as JSON, or {}"
    )
    packing.add_argument("form", choices=("pixels", "jpeg"), help="how images are kept")
    packing.add_argument("store", type=Path, help="folder to make")
    packing.add_argument(
        "--options", type=json.loads, help="options of the type as JSON, if it has some"
    )
    command("list", _data_list, "list data sets, and which of their archives and stores are there")
    showing = command(
        "show", _data_show, "show facts, fingerprints and a contact sheet of a data set"
    )
    showing.add_argument("name", help="a data set, or a folder of packed images")
    showing.add_argument("--side", type=int, help="only the packed images of this short side")
    showing.add_argument(
        "--sheet", type=Path, help="file for the contact sheet; default: in the store"
    )
    verifying = command("verify", _data_verify, "read packed images and check that nothing changed")
    verifying.add_argument("name", help="a data set, or a folder of packed images")
    fetching = command("fetch", _fetch, "download the archives of a data set, or the rest of them")
    fetching.add_argument("type", help="a name of `dmlbench list datasets`")
    own = "checksums of your own archives as JSON"
    fetching.add_argument("checksums", type=json.loads, nargs="?", default={}, help=own)


def _plan(options: argparse.Namespace) -> int:
    from dmlbench.planning.report import show_diff, show_plan
    from dmlbench.planning.throughput import measure_throughput
    from dmlbench.study.image_checks import check_images

    study, stores = _read(options), data_folder() / "stores"
    check_images(study, stores)
    if options.probe:
        measure_throughput(study.runs.values())
    if options.diff:
        if options.gpus or options.budget:
            raise UserError("--diff cannot be combined with --gpus or --budget.")
        show_diff(study, stores)
    else:
        show_plan(study, stores, options.gpus, options.budget)
    return 0


def _status(options: argparse.Namespace) -> int:
    from dmlbench.workflow.status import show_status

    with contextlib.suppress(KeyboardInterrupt):  # Ctrl-C ends --watch
        show_status(_read(options), options.watch)
    return 0


def _embed(options: argparse.Namespace) -> int:
    study = _read(options)
    run = study.run(options.run)
    if options.output.is_dir() or not os.access(options.output.absolute().parent, os.W_OK):
        raise MissingResult(f"--output {options.output}: no file can be written there.")
    _use_threads(run.recipe.cpu_threads)
    from dmlbench.embed import embed

    embed(study, run, options.images, options.output)
    return 0


def _list(options: argparse.Namespace) -> int:
    from dmlbench.backbones.catalogue import timm_models
    from dmlbench.datasets import _docs_page as datasets
    from dmlbench.datasets import list_datasets
    from dmlbench.losses import _docs_page as losses
    from dmlbench.study import reference as settings

    lists: dict[str, Callable[[], Iterable[str]]] = {
        "losses": losses.lines,
        "datasets": list_datasets,
        "backbones": lambda: sorted(timm_models()),
        "settings": settings.lines,
    }
    pages: dict[str, Callable[[], str]] = {
        "losses": losses.markdown,
        "datasets": datasets.markdown,
        "settings": settings.markdown,
    }
    if options.markdown and options.noun not in pages:
        raise UserError(f"list: --markdown is for {', '.join(pages)}, not {options.noun}.")
    if options.markdown:
        print(pages[options.noun](), end="")
    else:
        print(*lists[options.noun](), sep="\n")
    return 0


def _check(options: argparse.Namespace) -> int:
    import yaml

    given = {}
    for option in options.option:
        key, equals, value = option.partition("=")
        if not equals:
            raise UnusableLoss(f"--option {option}: it has the form key=value.")
        try:
            given[key] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise UnusableLoss(f"--option {option}: the value cannot be read.") from None
    _use_threads(1)  # the batches are small
    from dmlbench.conformance.kit import check_loss

    return 0 if check_loss(options.loss, given) else 1


def _schema(options: argparse.Namespace) -> int:
    from dmlbench.study.settings import Settings

    write_json(options.output, Settings.model_json_schema())
    return 0


def _pack(options: argparse.Namespace) -> int:
    from dmlbench.datasets.store.pack import pack

    with _resumable():
        pack(
            options.type,
            options.side,
            options.store,
            data_folder() / "archives",
            options.checksums,
            options=options.options,
            form=options.form,
        )
    return 0


def _data_list(options: argparse.Namespace) -> int:
    from dmlbench.datasets.store.inspection import list_data

    print(list_data(data_folder()))
    return 0


def _data_show(options: argparse.Namespace) -> int:
    from dmlbench.datasets.store.inspection import describe

    print(describe(options.name, options.side, options.sheet, data_folder()))
    return 0


def _data_verify(options: argparse.Namespace) -> int:
    from dmlbench.datasets.store.inspection import verify

    for line in verify(options.name, data_folder()):
        print(line, flush=True)
    return 0


def _fetch(options: argparse.Namespace) -> int:
    """Fetch archives, and print which ones are there. An interrupted download can be resumed."""
    from dmlbench.datasets import load
    from dmlbench.datasets.archives.fetching import describe_archives, fetch

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sources, checksums = load(options.type).SOURCES, options.checksums
    with _resumable():
        paths = fetch(sources, data_folder() / "archives", checksums)
    print(json.dumps(describe_archives(sources, paths, checksums), indent=1))
    return 0


def _weights(options: argparse.Namespace) -> int:
    from dmlbench.backbones.weights import fetch_weights

    print(fetch_weights(options.model))
    return 0


def _train(options: argparse.Namespace) -> NoReturn:
    freeze_imports()
    study = _read(options)
    run = study.run(options.run)
    _check_key(options.key, run.train_key)
    _use_threads(run.recipe.cpu_threads)
    from dmlbench.training.job import train_job

    exit_now(train_job(study, run, data_folder() / "stores", options.max_minutes))


def _evaluate(options: argparse.Namespace) -> int:
    study = _read(options)
    run = study.run(options.run)
    _check_key(options.key, run.eval_key)
    _use_threads(run.evaluation.threads)
    from dmlbench.evaluation.job import evaluate_job

    evaluate_job(study, run, data_folder() / "stores")
    return 0


def _leaderboard(options: argparse.Namespace) -> int:
    from dmlbench.leaderboard.build import build
    from dmlbench.study.study import TABLES
    from dmlbench.utils.fingerprint import code_digests

    study = _read(options)
    files = study.files
    made_of = {"key": study.leaderboard_key, "code": code_digests(TABLES)}
    build(study.name, study.rows, files, files.leaderboard, study.remarks)
    write_json(files.made_of, made_of)  # for `dmlbench plan`
    return 0


def _track(options: argparse.Namespace) -> int:
    from dmlbench.tracking.sync import track, tracking_uri

    study, uri = _read(options), tracking_uri()
    key = study.tracking_key(uri)
    _check_key(options.key, key)
    print(track(study, uri), f"key {key}", sep="\n")  # the key for `dmlbench plan`
    return 0


def _verdict(options: argparse.Namespace) -> int:
    from dmlbench.workflow.verdict import verdict

    return verdict(_read(options))


def _read(options: argparse.Namespace) -> Study:
    from dmlbench.study.study import read_study

    return read_study(options.study)


@contextlib.contextmanager
def _resumable() -> Iterator[None]:
    """Say in one line that Ctrl-C loses nothing."""
    try:
        yield
    except KeyboardInterrupt:
        raise DatasetError("stopped: the same command goes on from here") from None


def _count(text: str) -> int:
    """A number above 0."""
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number above 0")
    return int(text)


def _time(text: str) -> float:
    """Seconds."""
    from dmlbench.planning.budget import parse_time

    try:
        return parse_time(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _use_threads(count: int) -> None:
    """Use as many threads as the study says, however many cores there are.

    Another number of threads gives other bits. The libraries of numpy and faiss read the number
    when they are imported.
    """
    for library in ("OMP", "OPENBLAS", "MKL"):
        os.environ[f"{library}_NUM_THREADS"] = str(count)


def _check_key(planned: str | None, now: str) -> None:
    if planned not in (None, now):
        problem = f"was planned under key {planned}, and study and code now give {now}."
        fix = "They were changed while the workflow ran: start it again."
        raise StudyError("this job", [f"{problem} {fix}"])


if __name__ == "__main__":
    main()
