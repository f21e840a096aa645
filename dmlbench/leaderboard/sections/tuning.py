"""The tuning: what was tried for each loss, and what was chosen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from dmlbench.leaderboard.choices import Choice, by_panel, short_name
from dmlbench.leaderboard.content import (
    HOLE,
    Cell,
    Failure,
    Row,
    Section,
    Where,
    duration_cell,
    first_line,
    score_cell,
)
from dmlbench.leaderboard.sections.scores import metric_name
from dmlbench.study.result_shape import DIVERGED, OK
from dmlbench.study.row_names import display_name

CLASSES = {
    "random": "drawn at random within each super-class",
    "contiguous": "contiguous blocks of classes",
    "published": "the validation part of the data set",
}
UNTUNED = {
    "fair": "none: each loss has its defaults or the options of the study file. This is no ranking "
    "of losses: for that, each loss needs the same effort of tuning on held-out training classes",
    "paper": "none here: the settings are those of the study file, as published or as remarked",
}


def describe_tuning(choices: Sequence[Choice], track: str) -> str:
    """What the page's head says of the tuning: its specification and its budget."""
    if not choices:
        return UNTUNED[track]
    specifications = dict.fromkeys(_specification(choice.tuning) for choice in choices)
    trials = _range([choice.spent["trials"] for choice in choices if choice.spent])
    steps = _range([choice.spent["steps"] for choice in choices if choice.spent])
    return (
        f"{trials} trials for each loss (the first with the settings of the study, the others "
        f"Sobol points of its search space), {' / '.join(specifications)}. Budget: {steps} steps "
        f"trained for each loss. Final runs train on all training classes for the chosen number of "
        f"epochs"
    )


def _specification(tuning: Mapping[str, Any]) -> str:
    """How a trial is validated."""
    metric = metric_name(tuning["metric"])
    if tuning["classes"] == "published":
        folds = f"validated on {CLASSES['published']}"
    else:
        used, folds_made = tuning["use_folds"] or tuning["folds"], tuning["folds"]
        part = f"{used} of {folds_made}" if used < folds_made else str(folds_made)
        kind = CLASSES[tuning["classes"]]
        folds = f"validated on {part} folds of the training classes ({kind})"
    every = tuning["every"]
    often = "each epoch" if every == 1 else f"every {every} epochs"
    return f"{folds} after {often}, chosen by mean {metric}"


def _range(numbers: Sequence[int]) -> str:
    if not numbers:
        return "an unknown number of"
    low, high = min(numbers), max(numbers)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def tuning_sections(choices: Sequence[Choice]) -> Iterator[Section]:
    """A section for each data set and backbone: what was chosen for each loss, the best first."""
    for names, panel in by_panel(choices).items():
        metrics = dict.fromkeys(choice.metric for choice in panel)
        yield Section(
            title=f"Tuning: {' · '.join(names)}",
            facts=f"Validation scores are mean {' / '.join(metrics)} over the folds, in percent, "
            f"on training classes that the model did not see; they are no test scores. "
            f'"first" is the score of the first trial, which has the settings of the study.',
            columns=["validation", "first", "epochs", "chosen", "trial", "trials", "steps", "time"],
            rows=[
                _row(choice) for choice in sorted(panel, key=lambda c: (-(c.score or -1), c.loss))
            ],
            failures=[
                Failure(display_name(choice.loss), "nothing chosen", first_line(choice.error))
                for choice in panel
                if choice.error
            ],
            text_columns=("chosen", "trials"),
            where=Where(*names),
        )


def _row(choice: Choice) -> Row:
    chosen = choice.chosen
    first = next((t["best_score"] for t in choice.trials if t["trial"] == 0), None)
    return Row(
        choice.loss,
        [
            score_cell(choice.score),
            score_cell(first),
            Cell(str(chosen["epochs"]), chosen["epochs"]) if chosen else Cell(HOLE),
            Cell(_describe_chosen(choice)),
            Cell(str(chosen["trial"]), chosen["trial"]) if chosen else Cell(HOLE),
            Cell(_describe_trials(choice)),
            Cell(f"{choice.spent['steps']:,}", choice.spent["steps"])
            if choice.spent
            else Cell(HOLE),
            duration_cell(choice.spent.get("seconds", 0.0)),
        ],
    )


def _describe_chosen(choice: Choice) -> str:
    """The searched values of the chosen trial, as "lr_factor 1.3, alpha 32"."""
    if not choice.chosen:
        return HOLE
    number = choice.chosen["trial"]
    options = [trial["options"] for trial in choice.trials if trial["trial"] == number]
    values = {short_name(name): value for name, value in options[0].items()} if options else {}
    order = [name for name in choice.searched if name in values]
    return ", ".join(f"{name} {values[name]:.4g}" for name in order) or "the study's settings"


def _describe_trials(choice: Choice) -> str:
    """How the trials ended, as "14 ok, 2 diverged"."""
    if not choice.trials:
        return HOLE
    ends = Counter(
        trial["status"] if trial["status"] in (OK, DIVERGED) else "failed"
        for trial in choice.trials
    )
    return ", ".join(f"{ends[end]} {end}" for end in (OK, DIVERGED, "failed") if ends[end])
