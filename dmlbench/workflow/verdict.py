"""The verdict on a study: whether every run has a result."""

from __future__ import annotations

from dmlbench.study.result_files import RunFiles
from dmlbench.study.study import Study
from dmlbench.utils.files import read_result


def verdict(study: Study) -> int:
    """Print whether all runs of `study` succeeded; return 0 if so, else 1.

    If runs failed, say which and why, and remove their result files: then Snakemake runs exactly
    these runs again. The leaderboard stays and shows them as holes. The reason stays in the run's
    folder as failed.json, a file that Snakemake does not know.

    Raises:
        MissingResult: a result file is missing or damaged.
    """
    failed = []
    for path, run in study.runs.items():
        files = study.files.run(path)
        metrics, training = read_result(files.metrics), read_result(files.run)
        outdated = training["train_key"] != run.train_key
        if outdated or metrics["eval_key"] != run.eval_key:  # Snakemake lost its notes of the key
            failed.append(f"  {path}: this result is from other settings or code")
            files.metrics.unlink()
        elif metrics["status"] != "ok":
            failed.append(f"  {path}: {metrics['status']}: {metrics['error']['message']}")
            put_aside(files)
        else:
            files.failed.unlink(missing_ok=True)
            continue
        if outdated:
            for file in files.training_files:
                file.unlink(missing_ok=True)
    if failed:
        print(f"{study.name}: {len(failed)} of {len(study.runs)} runs failed:", *failed, sep="\n")
        print("The leaderboard shows them as holes. The same `snakemake` call repeats only these.")
        return 1
    print(success_message(study))
    return 0


def put_aside(files: RunFiles) -> None:
    """Remove the result of a run if it failed, so that Snakemake runs it again.

    The reason stays as failed.json.
    """
    metrics, training = files.read_metrics(), files.read_run()
    if metrics and metrics["status"] != "ok":
        files.metrics.replace(files.failed)
    if training and training["status"] != "ok":
        for file in files.training_files:
            file.unlink(missing_ok=True)


def success_message(study: Study) -> str:
    """The verdict on a study whose runs all have a result, as verdict.txt holds it."""
    tracked = ", and MLflow has them" if study.settings.tracking else ""
    return f"{study.name}: all {len(study.runs)} runs have a result{tracked}"
