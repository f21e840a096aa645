"""The verdict on a study: whether every run has a result."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from dmlbench.leaderboard.made_of import (
    UNKNOWN,
    failed_plot_lines,
    leaderboard_digest,
    read_made_of,
)
from dmlbench.leaderboard.table import NO_HOLES, Hole
from dmlbench.study.result_files import RunFiles
from dmlbench.study.result_shape import DAMAGED, SETTLED
from dmlbench.study.study import Study
from dmlbench.utils.files import replacing

ADVICE = {
    "diverged": "a lower lr, or clip_norm",
    "killed": "its log; often the machine has too little memory",
    "lost": "nothing: the same call goes on from its checkpoint",
    "out_of_memory": "a smaller batch_size, fewer runs_per_gpu, or a machine with more memory",
    "timeout": "a longer time limit: no checkpoint fits into this one",
}
"""Status of a failed run -> what helps, if its message does not say it."""
NEXT_CALL = "The same `snakemake` call repeats only these."
MAX_LINES = 30
"""Lines of failed runs that a verdict shows; `dmlbench status` and the leaderboard show more."""


def verdict(study: Study, holes: Mapping[str, Hole] = NO_HOLES) -> int:
    """Print whether all runs and trials of `study` succeeded; return 0 if so, else 1.

    If all did, verdict.txt is written. If runs failed, say which and why, and remove verdict.txt
    and their result files: then Snakemake runs exactly these runs again. The leaderboard stays and
    shows them as holes. The reason stays in the run's folder as failed.json, a file that Snakemake
    does not know. The result of a failed trial stays as it is: its status lets it run again.

    Args:
        holes: path of a run that has no result -> why.

    Raises:
        MissingResult: the result of another run is missing or damaged.
    """
    failed: dict[str, Hole] = {}
    for path, run in study.runs.items():
        files = study.files.run(path)
        if path in holes:
            failed[path] = holes[path]
            continue
        metrics, training = files.load_metrics(), files.load_run()
        outdated = training["train_key"] != run.train_key
        if outdated or metrics["eval_key"] != run.eval_key:  # Snakemake lost its notes of the key
            failed[path] = Hole("outdated", "this result is from other settings or code")
            files.metrics.unlink()
        elif metrics["status"] != "ok":
            failed[path] = Hole(metrics["status"], metrics["error"]["message"])
            put_aside(files)
        else:
            files.failed.unlink(missing_ok=True)
            continue
        if outdated:
            for file in files.training_files:
                file.unlink(missing_ok=True)
    failed_trials = find_failed_trials(study)
    if failed or failed_trials:
        study.files.verdict.unlink(missing_ok=True)
        if failed_trials:
            print(*describe_failures(study, failed_trials, "trial"), sep="\n")
            print(f"No settings were chosen by them. {NEXT_CALL}")
        if failed:
            print(*describe_failures(study, failed), sep="\n")
            print(f"The leaderboard shows them as holes. {NEXT_CALL}")
        return 1
    made_of = read_made_of(study.files) or {}
    plots = failed_plot_lines(made_of.get("failed_plots", {}))
    lines = [success_message(study), *plots, *_missing_pictures(study), leaderboard_line(study)]
    text = "\n".join(lines)
    print(text)
    with replacing(study.files.verdict) as temporary:
        temporary.write_text(f"{text}\n", "utf-8")
    return 0


def _missing_pictures(study: Study) -> Iterator[str]:
    """A line for each loss whose pictures could not be drawn, or that could not be compared."""
    for group in study.galleries:
        made_of = read_made_of(study.files.gallery(group)) or {}
        for loss, why in made_of.get("problems", {}).items():
            yield f"pictures of {group}/{loss}: {why}"


def find_failed_trials(study: Study) -> dict[str, Hole]:
    """Path of each trial whose result is a failure, and not a divergence -> why."""
    failed = {}
    for path, trial in study.trials.items():
        result = study.files.trial(path).read_trial()
        if result and result["key"] == trial.key and result["status"] not in SETTLED:
            failed[path] = Hole(result["status"], result["error"]["message"])
    return failed


def describe_failures(study: Study, failed: Mapping[str, Hole], noun: str = "run") -> list[str]:
    """Lines that name the failed runs of `study`, or its failed trials, those with the same reason
    together; `noun` is `run` or `trial`."""
    groups: dict[Hole, list[str]] = {}
    for path, hole in failed.items():
        groups.setdefault(hole, []).append(path)
    lines = [
        f"  {_name(paths, noun)}: {hole.status}: {hole.message}" for hole, paths in groups.items()
    ]
    if len(lines) > MAX_LINES:
        more = len(lines) - MAX_LINES
        lines[MAX_LINES:] = [f"  ... and {more} more: dmlbench status {study.name}"]
    statuses = dict.fromkeys(hole.status for hole in groups)
    helps = [f"  {status}: {ADVICE[status]}" for status in statuses if status in ADVICE]
    total = len(study.trials if noun == "trial" else study.runs)
    return [
        f"{study.name}: {len(failed)} of {total} {noun}s failed:",
        *lines,
        *(["What helps:", *helps] if helps else []),
    ]


def _name(paths: Sequence[str], noun: str) -> str:
    """The only one of `paths`; for more, how many, and the names that they share."""
    if len(paths) == 1:
        return paths[0]
    names = zip(*(path.split("/")[:-1] for path in paths), strict=True)  # without the seed
    shared = [values[0] for values in names if len({*values}) == 1]
    return f"{len(paths)} {noun}s" + (f" of {' x '.join(shared)}" if shared else "")


def put_aside(files: RunFiles) -> None:
    """Remove the result of a run if it failed, so that Snakemake runs it again.

    The reason stays as failed.json. If the embeddings were damaged, the training is made again too.
    """
    metrics, training = files.read_metrics(), files.read_run()
    is_damaged = metrics is not None and metrics["status"] == DAMAGED
    if metrics and metrics["status"] != "ok":
        files.metrics.replace(files.failed)
    if training and (training["status"] != "ok" or is_damaged):
        for file in files.training_files:
            file.unlink(missing_ok=True)


def success_message(study: Study) -> str:
    """The verdict on a study whose runs all have a result, as verdict.txt holds it."""
    tracked = ", and MLflow has them" if study.settings.tracking else ""
    return f"{study.name}: all {len(study.runs)} runs have a result{tracked}"


def leaderboard_line(study: Study) -> str:
    """The line of verdict.txt and tracked.txt that names the leaderboard to which they belong, and
    its pictures."""
    made = [read_made_of(study.files.gallery(group)) for group in study.galleries]
    pictures = [str(made_of["digest"])[:16] if made_of else UNKNOWN for made_of in made]
    return " ".join(["leaderboard", leaderboard_digest(study.files), *pictures])
