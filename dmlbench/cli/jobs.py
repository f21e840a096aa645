"""Commands that the workflow's rules call, and a person for a single step."""

from __future__ import annotations

import argparse
from typing import NoReturn

from dmlbench.cli.arguments import AddCommand, add_study, read, use_threads
from dmlbench.utils.errors import StudyError
from dmlbench.utils.files import data_folder, write_json
from dmlbench.utils.startup import exit_now, freeze_imports


def add_commands(add_command: AddCommand) -> None:
    weights = add_command(
        "weights", _weights, "fetch the weights of a model, for `pretrained: true`"
    )
    weights.add_argument(
        "model", help="a name of `dmlbench list backbones`, with or without its tag"
    )
    train = add_study(
        add_command("train", _train, "train one run, from its checkpoint if there is one")
    )
    train.add_argument("run", help="dataset/backbone/loss/seed<k>")
    train.add_argument("--key", help="refuse to train under another key")
    train.add_argument("--max-minutes", type=float, help="save, and exit with 75, before that")
    evaluate = add_study(add_command("evaluate", _evaluate, "score the embeddings of one run"))
    evaluate.add_argument("run", help="dataset/backbone/loss/seed<k>")
    evaluate.add_argument("--key", help="refuse to score under another key")
    add_study(add_command("leaderboard", _leaderboard, "write the table and the plots of a study"))
    track = add_study(add_command("track", _track, "write the results of a study to MLflow"))
    track.add_argument("--key", help="refuse to write under another key")
    add_study(add_command("verdict", _verdict, "exit with 1 if a run failed, and let it run again"))


def _weights(options: argparse.Namespace) -> int:
    from dmlbench.backbones.weights import fetch_weights

    print(fetch_weights(options.model))
    return 0


def _train(options: argparse.Namespace) -> NoReturn:
    freeze_imports()
    study = read(options)
    run = study.run(options.run)
    _check_key(options.key, run.train_key)
    use_threads(run.recipe.cpu_threads)
    from dmlbench.training.job import train_job

    exit_now(train_job(study, run, data_folder() / "stores", options.max_minutes))


def _evaluate(options: argparse.Namespace) -> int:
    study = read(options)
    run = study.run(options.run)
    _check_key(options.key, run.eval_key)
    use_threads(run.evaluation.threads)
    from dmlbench.evaluation.job import evaluate_job

    evaluate_job(study, run, data_folder() / "stores")
    return 0


def _leaderboard(options: argparse.Namespace) -> int:
    from dmlbench.leaderboard.build import build
    from dmlbench.study.study import TABLES
    from dmlbench.utils.fingerprint import code_digests

    study = read(options)
    files = study.files
    made_of = {"key": study.leaderboard_key, "code": code_digests(TABLES)}
    build(study.name, study.rows, files, files.leaderboard, study.remarks)
    write_json(files.made_of, made_of)  # for `dmlbench plan`
    return 0


def _track(options: argparse.Namespace) -> int:
    from dmlbench.tracking.sync import track, tracking_uri

    study, uri = read(options), tracking_uri()
    key = study.tracking_key(uri)
    _check_key(options.key, key)
    print(track(study, uri), f"key {key}", sep="\n")  # the key for `dmlbench plan`
    if not options.job:  # a person did what the job may have failed to do
        study.files.tracking_log.unlink(missing_ok=True)
    return 0


def _verdict(options: argparse.Namespace) -> int:
    from dmlbench.workflow.verdict import verdict

    return verdict(read(options))


def _check_key(planned: str | None, now: str) -> None:
    if planned not in (None, now):
        problem = f"was planned under key {planned}, and study and code now give {now}."
        fix = "They were changed while the workflow ran: start it again."
        raise StudyError("this job", [f"{problem} {fix}"])
