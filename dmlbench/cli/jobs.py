"""Commands that the workflow's rules call, and a person for a single step."""

from __future__ import annotations

import argparse
import os
from typing import NoReturn

from dmlbench.cli.arguments import AddCommand, add_study, minutes, read, use_threads
from dmlbench.utils.errors import StudyError
from dmlbench.utils.files import data_folder
from dmlbench.utils.startup import exit_now, freeze_imports
from dmlbench.utils.text import did_you_mean


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
    train.add_argument("--max-minutes", type=minutes, help="save, and exit with 75, before that")
    features = add_study(
        add_command("features", _features, "compute the features of images by a frozen backbone")
    )
    features.add_argument("features", help="store/name, as `dmlbench plan --diff` shows it")
    trial = add_study(
        add_command("trial", _trial, "train and validate the folds of one trial of a tuned loss")
    )
    trial.add_argument("trial", help="dataset/backbone/loss/trial<i>")
    trial.add_argument("--key", help="refuse to try under another key")
    trial.add_argument("--max-minutes", type=minutes, help="save, and exit with 75, before that")
    choose = add_study(
        add_command("choose", _choose, "choose the settings of a tuned loss from its trials")
    )
    choose.add_argument("cell", help="dataset/backbone/loss")
    choose.add_argument("--key", help="refuse to choose under another key")
    evaluate = add_study(add_command("evaluate", _evaluate, "score the embeddings of one run"))
    evaluate.add_argument("run", help="dataset/backbone/loss/seed<k>")
    evaluate.add_argument("--key", help="refuse to score under another key")
    add_study(add_command("leaderboard", _leaderboard, "write the table and the plots of a study"))
    pictures = add_study(
        add_command("pictures", _pictures, "draw the pictures of a data set and a backbone")
    )
    pictures.add_argument("group", help="dataset/backbone")
    pictures.add_argument("--key", help="refuse to draw under another key")
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
    from dmlbench.training.process import survive_full_log

    if run.models > 1:
        from dmlbench.tuning.models_job import train_models_job as train_job
    else:
        from dmlbench.training.job import train_job

    survive_full_log()
    exit_now(train_job(study, run, data_folder() / "stores", options.max_minutes))


def _features(options: argparse.Namespace) -> int:
    freeze_imports()
    study = read(options)
    features = study.features.get(options.features)
    if features is None:
        hint = did_you_mean(options.features, study.features)
        raise StudyError(study.name, [f"{options.features}: no such features. {hint}"])
    use_threads(features.run.recipe.cpu_threads)
    from dmlbench.training.features import features_job

    print(features_job(study, features, data_folder() / "stores"))
    return 0


def _trial(options: argparse.Namespace) -> NoReturn:
    freeze_imports()
    study = read(options)
    trial = study.trial(options.trial)
    _check_key(options.key, trial.key)
    use_threads(trial.run.recipe.cpu_threads)
    from dmlbench.training.process import survive_full_log
    from dmlbench.tuning.trial import trial_job

    survive_full_log()
    exit_now(trial_job(study, trial, data_folder() / "stores", options.max_minutes))


def _choose(options: argparse.Namespace) -> int:
    study = read(options)
    trials = study.tuned_cell(options.cell)
    from dmlbench.study.tuning import choice_key

    _check_key(options.key, choice_key(trials))
    from dmlbench.tuning.choice import choose_job

    choose_job(study, trials)
    return 0


def _evaluate(options: argparse.Namespace) -> int:
    study = read(options)
    run = study.run(options.run)
    _check_key(options.key, run.eval_key)
    use_threads(run.evaluation.threads)
    from dmlbench.evaluation.job import evaluate_job

    evaluate_job(study, run, data_folder() / "stores")
    return 0


def _leaderboard(options: argparse.Namespace) -> int:
    from dmlbench.leaderboard.build import build_leaderboard
    from dmlbench.leaderboard.made_of import failed_plot_lines

    failed = build_leaderboard(read(options))
    print(*failed_plot_lines(failed), sep="\n", end="\n" if failed else "")
    # a job that failed would hold up the verdict, which names the plots
    return 1 if failed and not options.job else 0


def _pictures(options: argparse.Namespace) -> int:
    study = read(options)
    _check_key(options.key, study.gallery_key(options.group))
    from dmlbench.utils.cores import usable_cores

    cores = usable_cores()
    use_threads(cores)
    # Threads that wait for each other shall not spin: on a busy machine, a map took 50 % longer
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from dmlbench.gallery.job import gallery_job

    gallery_job(study, options.group, data_folder() / "stores", cores)
    return 0


def _track(options: argparse.Namespace) -> int:
    from dmlbench.tracking.sync import track, tracking_uri
    from dmlbench.utils.digests import add_digest
    from dmlbench.workflow.verdict import leaderboard_line

    study, uri = read(options), tracking_uri()
    key = study.tracking_key(uri)
    _check_key(options.key, key)
    lines = [f"key {key}", leaderboard_line(study)]
    # tracked.txt, which `dmlbench plan` reads
    print(add_digest("\n".join([track(study, uri), *lines, ""])), end="")
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
