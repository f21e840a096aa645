"""The choice of a trial and a number of epochs, by the mean score over the folds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dmlbench.study.result_shape import DIVERGED, OK
from dmlbench.study.search_space import FACTORS
from dmlbench.study.study import Study
from dmlbench.study.tuning import Trial, choice_key
from dmlbench.utils.errors import MissingResult
from dmlbench.utils.text import count_of


def choose(results: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """The trial with the best score of `results`, the contents of trial.json; the one with the
    smallest number of equals. None if no trial succeeded.

    >>> ok = {"status": "ok", "best_epoch": 3}
    >>> results = [{"trial": 0, "best_score": 0.2}, {"trial": 1, "best_score": 0.4}]
    >>> choose([ok | result for result in results])["trial"]
    1
    """
    succeeded = [result for result in results if result["status"] == OK]
    return min(succeeded, key=lambda r: (-r["best_score"], r["trial"]), default=None)


def choose_job(study: Study, trials: Sequence[Trial]) -> None:
    """Choose among the `trials` of a cell, and write chosen.json.

    Raises:
        MissingResult: a trial has no result, or that of other settings.
    """
    results = [_load(study, trial) for trial in trials]
    best = choose(results)
    outcome: dict[str, Any] = {"status": OK, "error": None, "chosen": None, "score": None}
    if best:
        outcome |= {
            "chosen": _chosen_values(trials[best["trial"]], best),
            "score": best["best_score"],
        }
    else:
        outcome |= _failure(results)
    study.files.choice(trials[0].cell).write_chosen(
        {
            "study": study.name,
            "cell": trials[0].cell,
            "key": choice_key(trials),
            **outcome,
            "trials": [
                _record(trial, result) for trial, result in zip(trials, results, strict=True)
            ],
            "spent": {
                "trials": len(results),
                "steps": sum(result["steps"] for result in results),
                "seconds": sum(
                    result["provenance"].get("train_seconds") or 0 for result in results
                ),
            },
            "made_from": {
                trial.path: result["digest"] for trial, result in zip(trials, results, strict=True)
            },
        }
    )


def _load(study: Study, trial: Trial) -> dict[str, Any]:
    """The result of `trial`.

    Raises:
        MissingResult: it is missing, damaged, or that of other settings.
    """
    files = study.files.trial(trial.path)
    result = files.load_trial()
    if result["key"] != trial.key:
        raise MissingResult(
            f"{files.trial}: it has key {result['key']}, and the study expects {trial.key}. "
            f"`snakemake` runs this trial again."
        )
    return result


def _chosen_values(trial: Trial, result: Mapping[str, Any]) -> dict[str, Any]:
    """What the final runs take from the chosen trial."""
    recipe = trial.run.recipe
    return {
        "trial": trial.number,
        "loss_options": {
            name: trial.run.loss_options[name] for name in trial.options if name not in FACTORS
        },
        "recipe": {"lr": recipe.lr, "head_lr_factor": recipe.head_lr_factor},
        "epochs": result["best_epoch"],
    }


def _failure(results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The status and the error of a cell in which no trial succeeded: the first failure that is no
    divergence, if there is one."""
    failures = sorted(results, key=lambda result: result["status"] == DIVERGED)
    first = failures[0]
    message = (
        f"{count_of(len(results), 'trial')}, and none succeeded. Trial {first['trial']}: "
        f"{first['status']}: {first['error']['message']}"
    )
    return {"status": first["status"], "error": {"message": message, "tail": []}}


def _record(trial: Trial, result: Mapping[str, Any]) -> dict[str, Any]:
    """What chosen.json says about a trial. Which of its settings were searched is known to the
    study of today: an equal trial may have been made when others were."""
    names = ("trial", "status", "best_epoch", "best_score", "steps")
    return {
        **{name: result[name] for name in names},
        "options": dict(trial.options),
        "wall_seconds": result["provenance"].get("wall_seconds"),
    }
