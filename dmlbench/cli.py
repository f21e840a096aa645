"""`dmlbench ...`: what people ask for, and the commands that the workflow's rules call."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from dmlbench import __version__, source
from dmlbench.backbones.weights import MissingWeights
from dmlbench.datasets import DatasetError
from dmlbench.files import MissingResult, data_folder, write_json
from dmlbench.imports import for_one_job, leave
from dmlbench.installed import BrokenInstallation, UnusableLoss
from dmlbench.problems import StudyError

# Errors whose text is for the person who called
PROBLEMS = (
    *(StudyError, BrokenInstallation, UnusableLoss),
    *(DatasetError, MissingWeights, MissingResult),
)


def main(arguments: Sequence[str] | None = None) -> None:
    if (here := str(Path.cwd())) not in sys.path:  # as in `python -m dmlbench`: losses of one's own
        sys.path.append(here)
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        sys.exit(options.do(options))
    except BrokenPipeError:  # `dmlbench plan my.yaml | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for Python's last flush
        sys.exit(0)
    except PROBLEMS as error:
        sys.exit(f"dmlbench: {error}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="dmlbench", description=__doc__)
    parser.add_argument("--version", action="version", version=__version__)
    command = partial(_command, parser.add_subparsers(required=True, metavar="command"))

    def with_study(name: str, do: object, text: str) -> argparse.ArgumentParser:
        added = command(name, do, text)
        added.add_argument("study", type=Path, help="study file; or name of a study with results")
        return added

    plan = with_study("plan", _plan, "check a study, list its runs, and say what they cost")
    plan.add_argument("--diff", action="store_true", help="what snakemake would run now, and why")
    plan.add_argument("--probe", action="store_true", help="measure how fast this machine is")
    plan.add_argument("--gpus", type=_count, help="how many there will be; else those found here")
    plan.add_argument(
        "--budget",
        type=_time,
        metavar="TIME",
        help="what to leave out so that it takes so many hours of GPUs, or of cores: 90m, 40h, 2d",
    )
    status = with_study("status", _status, "how far a study is, also while nothing runs")
    status.add_argument(
        "--watch",
        type=float,
        nargs="?",
        const=2.0,
        metavar="SECONDS",
        help="look again every 2 s, or so many, until all runs have ended",
    )
    embed = with_study("embed", _embed, "embed images of your own with a trained run's model")
    embed.add_argument(
        "run", help="dataset/backbone/loss/seed<k>, of a study with keep_model: true"
    )
    embed.add_argument("images", nargs="+", type=Path, help="images; folders or zips of images")
    embed.add_argument("--output", type=Path, required=True, help=".npz to write")
    listing = command("list", _list, "what a study can name")
    listing.add_argument("noun", choices=("losses", "datasets", "backbones"))
    listing.add_argument("--markdown", action="store_true", help="losses or datasets as docs/*.md")
    check = command("check", _check, "run the conformance kit on a loss: does it do as it must?")
    check.add_argument(
        "loss",
        help="path of a Python file with a loss in it, or a name: of `list "
        "losses`, pml.CircleLoss, my_package.my_module.MyLoss",
    )
    check.add_argument(
        "--option",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="of the loss, as a study has it; repeat for others",
    )
    schema = command("schema", _schema, "write the JSON schema of study files, for editors")
    schema.add_argument("--output", type=Path, default=Path("config/schema.json"))

    data = command("data", None, "data sets and their packed images")
    _data_commands(partial(_command, data.add_subparsers(required=True, metavar="command")))
    weights = command("weights", _weights, "fetch a model's weights, for `pretrained: true`")
    weights.add_argument("model", help="as `dmlbench list backbones` names it, tag or no tag")
    train = with_study("train", _train, "train one run, or go on with it")
    train.add_argument("run", help="dataset/backbone/loss/seed<k>")
    train.add_argument("--key", help="refuse to train under another key")
    train.add_argument("--max-minutes", type=float, help="save and exit with 75 before that")
    evaluate = with_study("evaluate", _evaluate, "score the embeddings of one run")
    evaluate.add_argument("run", help="dataset/backbone/loss/seed<k>")
    evaluate.add_argument("--key", help="refuse to score under another key")
    with_study("leaderboard", _leaderboard, "table and plots of a study's results")
    tracking = with_study("track", _track, "write a study's results to MLflow; repeat at will")
    tracking.add_argument("--key", help="refuse to write under another key")
    with_study("verdict", _verdict, "exit with 1 if a run failed, and make it run again next time")
    return parser


def _command(commands: Any, name: str, do: object, text: str) -> argparse.ArgumentParser:
    added: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text)
    added.set_defaults(do=do)
    return added


def _data_commands(command: Callable[..., argparse.ArgumentParser]) -> None:
    packing = command("pack", _pack, "pack the images of a data set into a store")
    packing.add_argument("type", help="the data set, as `dmlbench list datasets` names it")
    packing.add_argument("side", type=int, help="short side of the packed images in pixels")
    packing.add_argument("checksums", type=json.loads, help="of archives of your own, JSON; or {}")
    packing.add_argument("form", choices=("pixels", "jpeg"), help="how images are kept")
    packing.add_argument("store", type=Path, help="folder to make")
    packing.add_argument("--options", type=json.loads, help="of a type that has some, JSON")
    command("list", _data_list, "data sets, their archives and packed images: there or missing")
    showing = command("show", _data_show, "facts, fingerprints and a contact sheet of a data set")
    showing.add_argument("name", help="a data set, or a folder of packed images")
    showing.add_argument("--side", type=int, help="only the packed images of this short side")
    showing.add_argument("--sheet", type=Path, help="contact sheet to write; else in the store")
    verifying = command("verify", _data_verify, "read packed images whole: are they as packed?")
    verifying.add_argument("name", help="a data set, or a folder of packed images")
    fetching = command("fetch", _fetch, "download the archives of a data set, or what is left")
    fetching.add_argument("type", help="the data set, as `dmlbench list datasets` names it")
    own = "of archives of your own, JSON"
    fetching.add_argument("checksums", type=json.loads, nargs="?", default={}, help=own)


def _plan(options: argparse.Namespace) -> int:
    from dmlbench import study
    from dmlbench.plan import show_diff, show_plan
    from dmlbench.speeds import measure
    from dmlbench.workflow import look_for_images

    found, stores = study.read(options.study), data_folder() / "stores"
    look_for_images(found, stores)
    if options.probe:
        measure(found.runs.values())
    if options.diff:
        if options.gpus or options.budget:
            raise StudyError("--diff", ["it says what is due and why, and takes no other option."])
        show_diff(found, stores)
    else:
        show_plan(found, stores, options.gpus, options.budget)
    return 0


def _status(options: argparse.Namespace) -> int:
    from dmlbench import study
    from dmlbench.status import show_status

    with contextlib.suppress(KeyboardInterrupt):  # how one leaves --watch
        show_status(study.read(options.study), options.watch)
    return 0


def _embed(options: argparse.Namespace) -> int:
    from dmlbench import study

    found = study.read(options.study)
    run = found.run(options.run)
    if options.output.is_dir() or not os.access(options.output.absolute().parent, os.W_OK):
        raise MissingResult(f"--output {options.output}: this is no place for a file.")
    _use_threads(run.recipe.cpu_threads)
    from dmlbench.embed import embed

    embed(found, run, options.images, options.output)
    return 0


def _list(options: argparse.Namespace) -> int:
    from dmlbench import installed
    from dmlbench.datasets import _headers as of_datasets
    from dmlbench.datasets import list_datasets
    from dmlbench.losses import _headers as of_losses

    if options.markdown:
        pages = {"losses": of_losses.markdown, "datasets": of_datasets.markdown}
        if options.noun not in pages:
            known = " and ".join(pages)
            raise StudyError("list", [f"--markdown is for {known}, not for {options.noun}."])
        print(pages[options.noun](), end="")
        return 0
    nouns = {
        "losses": of_losses.lines,
        "datasets": list_datasets,
        "backbones": lambda: sorted(installed.timm_models()),
    }
    print("\n".join(nouns[options.noun]()))
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
    from dmlbench.settings import Settings

    write_json(options.output, Settings.model_json_schema())
    return 0


def _pack(options: argparse.Namespace) -> int:
    from dmlbench.datasets.pack import pack

    with _goes_on():
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
    from dmlbench.datasets.overview import listing

    print(listing(data_folder()))
    return 0


def _data_show(options: argparse.Namespace) -> int:
    from dmlbench.datasets.overview import describe

    print(describe(options.name, options.side, options.sheet, data_folder()))
    return 0


def _data_verify(options: argparse.Namespace) -> int:
    from dmlbench.datasets.overview import verify

    for line in verify(options.name, data_folder()):
        print(line, flush=True)
    return 0


def _fetch(options: argparse.Namespace) -> int:
    """Fetch, and print what is there then. A download that is stopped notes where it is."""
    from dmlbench.datasets import load
    from dmlbench.datasets.archives import contents, fetch

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sources, checksums = load(options.type).SOURCES, options.checksums
    with _goes_on():
        paths = fetch(sources, data_folder() / "archives", checksums)
    print(json.dumps(contents(sources, paths, checksums), indent=1))
    return 0


def _weights(options: argparse.Namespace) -> int:
    from dmlbench.backbones.weights import stage

    print(stage(options.model))
    return 0


def _train(options: argparse.Namespace) -> NoReturn:
    from dmlbench import study

    for_one_job()
    found = study.read(options.study)
    run = found.run(options.run)
    _same_key(options.key, run.train_key)
    _use_threads(run.recipe.cpu_threads)
    from dmlbench.training.job import train_job

    leave(train_job(found, run, data_folder() / "stores", options.max_minutes))


def _evaluate(options: argparse.Namespace) -> int:
    from dmlbench import study

    found = study.read(options.study)
    run = found.run(options.run)
    _same_key(options.key, run.eval_key)
    _use_threads(run.evaluation.threads)
    from dmlbench.evaluation.job import evaluate_job

    evaluate_job(found, run, data_folder() / "stores")
    return 0


def _leaderboard(options: argparse.Namespace) -> int:
    from dmlbench import study
    from dmlbench.leaderboard import build
    from dmlbench.study import TABLES

    found = study.read(options.study)
    out = found.folder / "leaderboard"
    made_of = {"key": found.leaderboard_key, "code": source.code(TABLES)}
    build(found.name, found.rows, found.folder / "runs", out, found.remarks)
    write_json(out / "made.json", made_of)  # for `dmlbench plan`
    return 0


def _track(options: argparse.Namespace) -> int:
    from dmlbench import study
    from dmlbench.tracking import track, tracking_uri

    found, uri = study.read(options.study), tracking_uri()
    key = found.tracking_key(uri)
    _same_key(options.key, key)
    print(track(found, uri), f"key {key}", sep="\n")  # the key for `dmlbench plan`
    return 0


def _verdict(options: argparse.Namespace) -> int:
    from dmlbench import study
    from dmlbench.verdict import verdict

    return verdict(study.read(options.study))


@contextlib.contextmanager
def _goes_on() -> Iterator[None]:
    """Of a command that loses nothing by Ctrl-C: say so, in one line."""
    try:
        yield
    except KeyboardInterrupt:
        raise DatasetError("stopped: the same command goes on from here") from None


def _count(text: str) -> int:
    """A number above 0."""
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"'{text}' is no number above 0")
    return int(text)


def _time(text: str) -> float:
    """Seconds."""
    from dmlbench.budget import parse

    try:
        return parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _use_threads(count: int) -> None:
    """As many threads as the study says, whatever this call's cores are: the number of threads
    changes the bits. numpy's and faiss's libraries read it once, when they are imported."""
    for library in ("OMP", "OPENBLAS", "MKL"):
        os.environ[f"{library}_NUM_THREADS"] = str(count)


def _same_key(planned: str | None, now: str) -> None:
    if planned not in (None, now):
        raise StudyError(
            "this job",
            [
                f"was planned under key {planned}, and study and code now give {now}. They were "
                "changed while the workflow ran: start it again."
            ],
        )


if __name__ == "__main__":
    main()
