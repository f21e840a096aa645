"""Why trials have to run again, and why settings have to be chosen again."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

from dmlbench.planning.describe_changes import describe_changes
from dmlbench.planning.reasons import Reason, damage_reason, failure_reason
from dmlbench.study.result_shape import SETTLED
from dmlbench.study.tuning import Trial, choice_key
from dmlbench.study.tuning_files import ChoiceFiles, TrialFiles
from dmlbench.training.run_state import inspect_training
from dmlbench.utils.fingerprint import code_digests

AFTER_TRIALS = Reason("after their trials")
AFTER_CHOICE = Reason("after the choice of their settings; they end at once if it is the same")


class TrialResults:
    """The result files of a planned trial, read once."""

    def __init__(self, trial: Trial, files: TrialFiles) -> None:
        self.trial, self.files = trial, files
        self.tried = files.read_trial()

    def why_repeat(self) -> Reason | None:
        """Why the result is not the planned one; None if it is, or if it is missing.

        A trial that diverged is a result like others. One that failed in another way is repeated.
        """
        files, tried = self.files, self.tried
        if not tried:
            return damage_reason([files.trial]) if files.trial.exists() else None
        if tried["key"] != self.trial.key:
            code = code_digests(*self.trial.modules)
            changes = describe_changes(tried["settings"], self.trial.settings, tried["code"], code)
            return Reason(changes or "the trial's code")
        if tried["status"] not in SETTLED:
            return failure_reason(tried)
        if files.curve.exists() and not files.is_whole(tried):
            return damage_reason([files.curve])
        return None

    def why_try(self) -> Reason:
        """Why there is no result."""
        if unfinished := inspect_training(self.files.state, self.trial.key):
            is_running = unfinished.state == "running"
            return Reason("running now" if is_running else "interrupted", unfinished.place)
        return Reason("no result yet")


class ChoiceResults:
    """The choice of a tuned cell and the results of its trials, read once."""

    def __init__(self, cell: str, trials: Sequence[TrialResults], files: ChoiceFiles) -> None:
        self.cell, self.trials, self.files = cell, trials, files
        self.chosen = files.read_chosen()

    @cached_property
    def key(self) -> str:
        """The planned key of the choice."""
        return choice_key([result.trial for result in self.trials])

    def why_choose_again(self) -> Reason | None:
        """Why the choice is not the planned one; None if it is, or if it is missing.

        Trials whose results are missing are no reason: the choice has what it needs of them.
        """
        files, chosen = self.files, self.chosen
        if not chosen:
            return damage_reason([files.chosen]) if files.chosen.exists() else None
        if chosen["key"] != self.key:
            before, now = len(chosen["trials"]), len(self.trials)
            if before != now:
                return Reason(f"tuning.trials: {before} -> {now}")
            return Reason("other trials, or the code of the choice")
        made_from = chosen["made_from"]
        for result in self.trials:
            if result.tried and made_from.get(result.trial.path) != result.tried["digest"]:
                return Reason("results of trials changed")
        return None

    def why_choose(self) -> Reason:
        """Why there is no choice."""
        return Reason("not chosen yet")
