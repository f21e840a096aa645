"""The result files of trials and choices, written without any training."""

import json

from dmlbench.study.tuning import choice_key
from dmlbench.utils.errors import failure_result
from dmlbench.utils.fingerprint import code_digests

OK = {"status": "ok", "error": None}


def write_trials(study, *paths, status="ok", score=0.5, **provenance):
    """Write the results of trials, by default of all, as the jobs would have."""
    for path in paths or study.trials:
        trial, files = study.trials[path], study.files.trial(path)
        files.folder.mkdir(parents=True, exist_ok=True)
        files.curve.write_text("a curve")
        epochs = [1] if status == "ok" else []
        dataset, backbone, loss, _ = path.split("/")
        outcome = OK if status == "ok" else failure_result(ValueError(f"it is {status}"), status)
        files.write_trial(
            {
                "study": study.name,
                "dataset": dataset,
                "backbone": backbone,
                "loss": loss,
                "trial": trial.number,
                "key": trial.key,
                **outcome,
                "settings": json.loads(json.dumps(trial.settings)),
                "options": dict(trial.options),
                "code": code_digests(*trial.modules),
                "steps": 10,
                "epochs": epochs,
                "scores": [score] * len(epochs),
                "best_epoch": 1 if epochs else None,
                "best_score": score if epochs else None,
                "folds": [],
                "provenance": {"wall_seconds": 60.0} | provenance,
            }
        )


def write_choices(study, *cells, number=0):
    """Write what is chosen for cells, by default for all, from the trials that are there.

    The chosen trial is `number`, or the choice has failed if no trial succeeded.
    """
    for cell in cells or study.tuned_cells:
        trials = study.tuned_cells[cell]
        tried = {trial.number: study.files.trial(trial.path).read_trial() for trial in trials}
        records = [
            {
                "trial": i,
                "status": result["status"],
                "options": result["options"],
                "best_epoch": result["best_epoch"],
                "best_score": result["best_score"],
                "steps": result["steps"],
                "wall_seconds": result["provenance"]["wall_seconds"],
            }
            for i, result in tried.items()
            if result
        ]
        succeeded = any(record["status"] == "ok" for record in records)
        values = {"trial": number, "loss_options": {}, "recipe": {}, "epochs": 1}
        outcome = OK if succeeded else failure_result(ValueError("no trial succeeded"))
        study.files.choice(cell).write_chosen(
            {
                "key": choice_key(trials),
                **outcome,
                "chosen": values if succeeded else None,
                "score": 0.5 if succeeded else None,
                "trials": records,
                "spent": {"trials": len(records), "steps": 10, "seconds": 60.0},
                "made_from": {f"{cell}/trial{i}": tried[i]["digest"] for i in tried if tried[i]},
            }
        )


def write_chosen_runs(study, edit_result):
    """Let the run.json of each tuned run say with which settings it was trained."""
    for path, run in study.runs.items():
        if run.tuning:
            chosen = study.files.choice(run.cell).load_chosen()["chosen"]
            planned = json.loads(json.dumps(run.settings))
            edit_result(study.files.run(path).run, chosen=chosen, planned=planned)
