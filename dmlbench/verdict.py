"""The last word on a study: whether every run has a result."""

from __future__ import annotations

from dmlbench.files import read_result
from dmlbench.study import Study


def verdict(study: Study) -> int:
    """0 if all runs succeeded. Else: say which failed and why, take their result files away - so
    that asking again runs exactly these - and answer 1. The leaderboard stays, with its holes,
    and the reason in the run's folder as failed.json, which Snakemake does not know."""
    failed = []
    for path, run in study.runs.items():
        folder = study.folder / "runs" / path
        metrics, trained = (read_result(folder / name) for name in ("metrics.json", "run.json"))
        other = trained["train_key"] != run.train_key
        if other or metrics["eval_key"] != run.eval_key:  # Snakemake's notes of it are lost
            failed.append(f"  {path}: this result is of other settings or code")
            (folder / "metrics.json").unlink()
        elif metrics["status"] != "ok":
            failed.append(f"  {path}: {metrics['status']}: {metrics['error']['message']}")
            (folder / "metrics.json").replace(folder / "failed.json")
        else:
            (folder / "failed.json").unlink(missing_ok=True)
            continue
        if other or trained["status"] != "ok":
            for name in ("run.json", "embeddings.npz", "history.parquet"):
                (folder / name).unlink(missing_ok=True)
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
