"""The last word on a study: whether every run has a result."""

from __future__ import annotations

from dmlbench.files import read_result
from dmlbench.study import Study


def verdict(study: Study) -> int:
    """0 if all runs succeeded. Else: say which failed and why, take their result files away - so
    that asking again runs exactly these - and answer 1. The leaderboard stays, with its holes,
    and the reason in the run's folder as failed.json, which Snakemake does not know."""
    failed = []
    for path in study.runs:
        folder = study.folder / "runs" / path
        metrics = read_result(folder / "metrics.json")
        if metrics["status"] != "ok":
            failed.append(f"  {path}: {metrics['status']}: {metrics['error']['message']}")
            (folder / "metrics.json").replace(folder / "failed.json")
            if read_result(folder / "run.json")["status"] != "ok":
                for name in ("run.json", "embeddings.npz", "history.parquet"):
                    (folder / name).unlink(missing_ok=True)
        else:
            (folder / "failed.json").unlink(missing_ok=True)
    if failed:
        print(f"{study.name}: {len(failed)} of {len(study.runs)} runs failed:", *failed, sep="\n")
        print("The leaderboard shows them as holes. Asking again runs these alone.")
        return 1
    print(all_is_well(study))
    return 0


def all_is_well(study: Study) -> str:
    """What is said of a study whose runs all have a result."""
    tracked = ", and MLflow has them" if study.settings.tracking else ""
    return f"{study.name}: all {len(study.runs)} runs have a result{tracked}"
