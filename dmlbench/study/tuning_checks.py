"""What is wrong with the tuning of a study, before any job."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from pydantic import ValidationError

from dmlbench.losses._catalogue import loss_module
from dmlbench.study.error_messages import describe_errors, show
from dmlbench.study.loss_options import options_model
from dmlbench.study.run import Run
from dmlbench.study.search_space import FACTORS, searched_ranges, unused_options, whole_only
from dmlbench.study.settings import Recipe, Settings
from dmlbench.study.tuning_settings import SearchRange, Tuning
from dmlbench.utils.declarations import read_declarations
from dmlbench.utils.text import did_you_mean

DIVISORS = ("BATCH_DIVISORS", "DIM_DIVISORS")


def tuning_problems(settings: Settings, runs: Iterable[Run]) -> Iterator[str]:
    """Problems of the search spaces of `runs`, one run of each cell."""
    if settings.tuning:
        yield from _unknown_losses(settings.tuning, settings)
        for run in runs:
            yield from _space_problems(run, settings.tuning)
            yield from _recipe_problems(run, settings.tuning)


def _unknown_losses(tuning: Tuning, settings: Settings) -> Iterator[str]:
    known = {*settings.plan.losses, *settings.losses}
    for name in tuning.spaces:
        if name not in known:
            yield f"tuning.spaces.{name}: the study has no such loss. {did_you_mean(name, known)}"


def _space_problems(run: Run, tuning: Tuning) -> Iterator[str]:
    """Problems of the ranges of the options of a loss."""
    is_own = run.loss in tuning.spaces
    place = f"tuning.spaces.{run.loss}" if is_own else f"losses.{run.loss}: its SEARCH_SPACE"
    ranges = searched_ranges(run, tuning)
    if not isinstance(ranges, dict):
        yield f"{place}: found {show(ranges)}, not a mapping of options."
        return
    model = options_model(run.loss_type)
    for option, bounds in ranges.items():
        path = f"{place}.{option}" if is_own else f"{place}: {option}"
        if option not in model.model_fields:
            hint = did_you_mean(option, model.model_fields)
            yield f"{path}: {run.loss_type} has no such option. {hint}"
            continue
        try:
            checked = SearchRange.model_validate(bounds)
        except ValidationError as error:
            yield from describe_errors(error, SearchRange, path)
            continue
        if problem := _range_problem(run, option, checked, is_own):
            yield f"{path}: {problem}."


def _range_problem(run: Run, option: str, bounds: SearchRange, is_own: bool) -> str | None:
    """Why `bounds` cannot be the range of `option` of the loss of `run`; None if they can."""
    constants = read_declarations(loss_module(run.loss_type)).constants
    for constant in DIVISORS:
        if option in constants.get(constant, ()):
            return "it must divide other settings, so it cannot be searched"
    if is_own and option in unused_options(run):
        needed = constants["ONLY_WITH"][option]
        words = " and ".join(
            f"{name}: {' or '.join(map(str, values))}" for name, values in needed.items()
        )
        return f"it is only used with {words}. Leave it out"
    model = options_model(run.loss_type)
    is_whole = whole_only(model.model_fields[option].annotation)
    if is_whole is None:
        return "it is no number, so it cannot be searched"
    for end in ("low", "high"):
        value = getattr(bounds, end)
        if is_whole and not float(value).is_integer():
            return f"{end}: found {value:g}. Allowed: a whole number"
        try:
            model.model_validate({**run.loss_options, option: int(value) if is_whole else value})
        except ValidationError as error:
            return f"{end}: {describe_errors(error, model)[0].partition(': ')[2].rstrip('.')}"
    return None


def _recipe_problems(run: Run, tuning: Tuning) -> Iterator[str]:
    """Problems of the learning rates at the ends of the factors."""
    for name, setting in FACTORS.items():
        factor = name.removeprefix("recipe.")
        for value in getattr(tuning, factor):
            recipe = run.recipe.model_dump()
            found = recipe[setting]
            recipe[setting] *= value
            try:
                Recipe.model_validate(recipe)
            except ValidationError as error:
                problem = describe_errors(error, Recipe, "recipe")[0]
                yield f"tuning.{factor}: {value:g} x {setting} {found:g}: {problem}"
