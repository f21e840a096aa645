"""Commands about a whole study: `run`, `submit`, `plan`, `status`, `embed`."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from pathlib import Path
from typing import NoReturn

from dmlbench.cli.arguments import (
    AddCommand,
    add_study,
    cores,
    count,
    output_file,
    read,
    seconds,
    time,
    use_threads,
)
from dmlbench.utils.errors import UserError
from dmlbench.utils.files import data_folder


def add_commands(add_command: AddCommand) -> None:
    run = add_command("run", _run, "run a study, or the rest of it, with Snakemake")
    run.add_argument(
        "study", type=Path, nargs="?", help="study file, or name of a study with results"
    )
    run.add_argument("--demo", action="store_true", help="run the demo study")
    run.add_argument("-n", "--dry-run", action="store_true", help="only list the jobs")
    run.add_argument("--cores", type=cores, metavar="N", help="default: all of this machine")
    run.add_argument("--profile", metavar="FOLDER", help="a profile of Snakemake")
    run.epilog = "What follows `--` is passed on: dmlbench run my.yaml -- --resources gpu=2"
    submit = add_study(
        add_command("submit", _submit, "run a study on a cluster, and see it through overnight")
    )
    submit.add_argument(
        "--profile",
        default="slurm",
        metavar="PROFILE",
        help="a profile in profiles/, or a folder of yours; default: slurm",
    )
    submit.add_argument(
        "-n", "--dry-run", action="store_true", help="print what would be submitted, and its hours"
    )
    submit.add_argument("--detach", action="store_true", help="return at once")
    orphans = submit.add_mutually_exclusive_group()
    orphans.add_argument(
        "--wait-for-orphans",
        dest="orphans",
        action="store_const",
        const="wait",
        default="default",
        help="wait for all jobs of an earlier call; default: for those that run, and cancel those "
        "that wait in the queue",
    )
    orphans.add_argument(
        "--cancel-orphans",
        dest="orphans",
        action="store_const",
        const="cancel",
        help="cancel all jobs of an earlier call; trainings save their state",
    )
    submit.epilog = "What follows `--` is passed on: dmlbench submit my.yaml -- --jobs 50"
    plan = add_study(add_command("plan", _plan, "check a study, list its runs and their cost"))
    plan.add_argument("--diff", action="store_true", help="show which jobs are pending, and why")
    plan.add_argument("--probe", action="store_true", help="measure the speed of this machine")
    plan.add_argument("--gpus", type=count, help="number of GPUs; default: those of this machine")
    plan.add_argument(
        "--budget",
        type=time,
        metavar="TIME",
        help="propose what to leave out to stay within this GPU time (or core time): 90m, 40h, 2d",
    )
    status = add_study(
        add_command("status", _status, "show how far a study is, from its files alone")
    )
    status.add_argument(
        "--watch",
        type=seconds,
        nargs="?",
        const=2.0,
        metavar="SECONDS",
        help="look again every 2 s, or as often as this says, until all runs have ended",
    )
    embed = add_study(
        add_command("embed", _embed, "embed your own images with the model of a trained run")
    )
    embed.add_argument(
        "run", help="dataset/backbone/loss/seed<k>, of a study with keep_model: true"
    )
    embed.add_argument("images", nargs="+", type=Path, help="images; folders or zips of images")
    embed.add_argument("--output", type=output_file, required=True, help=".npz to write")


def _run(options: argparse.Namespace) -> NoReturn:
    from dmlbench.study.preflight import check_before_jobs
    from dmlbench.study.study import find_file, read_study
    from dmlbench.workflow.launch import demo_study, snakemake_command

    if options.demo == bool(options.study):
        raise UserError("run: name a study file, or give --demo, and not both.")
    file = demo_study() if options.demo else find_file(options.study)
    study = read_study(file)
    print(f"{study.name}: checking the study", file=sys.stderr, flush=True)
    check_before_jobs(study, data_folder() / "stores")  # here, a fault is one message
    arguments = list(options.passed_on)
    arguments += ["--dry-run"] if options.dry_run else []
    arguments += ["--cores", options.cores] if options.cores else []
    arguments += ["--profile", options.profile] if options.profile else []
    command = snakemake_command(file, arguments)
    sys.stdout.flush()
    # Snakemake takes the place of this process: signals and the exit code are its own
    os.execv(command[0], command)


def _submit(options: argparse.Namespace) -> int:
    from dmlbench.planning.submission import show_submission
    from dmlbench.study.preflight import check_before_jobs
    from dmlbench.study.study import find_file
    from dmlbench.workflow.submit import submit

    study, stores = read(options), data_folder() / "stores"
    check_before_jobs(study, stores)
    if options.dry_run:
        show_submission(study, stores)
        return 0
    file = find_file(options.study)
    return submit(study, file, options.profile, options.passed_on, options.orphans, options.detach)


def _plan(options: argparse.Namespace) -> int:
    from dmlbench.planning.report import show_diff, show_plan
    from dmlbench.planning.throughput import measure_throughput
    from dmlbench.study.preflight import check_before_jobs

    study, stores = read(options), data_folder() / "stores"
    check_before_jobs(study, stores)
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
    from dmlbench.workflow.status_display import show_status

    with contextlib.suppress(KeyboardInterrupt):  # Ctrl-C ends --watch
        show_status(read(options), options.watch)
    return 0


def _embed(options: argparse.Namespace) -> int:
    study = read(options)
    run = study.run(options.run)
    use_threads(run.recipe.cpu_threads)
    from dmlbench.utils.gpu_lease import lease_gpu

    with lease_gpu():
        from dmlbench.embed import embed

        embed(study, run, options.images, options.output)
    return 0
