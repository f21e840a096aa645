"""The fairness audit: what each loss had, and what it had more of than the others."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import mean, median_low
from typing import Any, NamedTuple

from dmlbench.leaderboard.choices import Choice
from dmlbench.leaderboard.content import HOLE, Cell, Row, Section, Where, duration_cell
from dmlbench.leaderboard.table import Result
from dmlbench.losses._catalogue import loss_module
from dmlbench.study.result_shape import OK
from dmlbench.study.row_names import display_name, is_external, is_trained
from dmlbench.utils.declarations import calls_its_argument, defines

MORE = "▲"
"""The mark of what a loss had more of than the others."""
RECIPE_COLUMNS = ("epochs", "batch_size", "images_per_class", "sampler", "pooling", "freeze_bn")
"""Settings of the recipe that have a column of their own."""


@dataclass(frozen=True)
class Audited:
    """A loss on one data set and backbone: its runs, and what was chosen for it."""

    loss: str
    results: Sequence[Result]
    choice: Choice | None

    @cached_property
    def settings(self) -> Mapping[str, Any]:
        """The settings that it was trained with."""
        settings: Mapping[str, Any] = self._run["settings"]
        return settings

    @property
    def chosen(self) -> Mapping[str, Any]:
        """What its tuning chose; empty if it is not tuned."""
        return self._run.get("chosen") or {}

    @property
    def _run(self) -> Mapping[str, Any]:
        """The content of run.json of one of its runs, which have the same settings but the seed."""
        return (self.succeeded or self.results)[0].run

    @property
    def recipe(self) -> Mapping[str, Any]:
        recipe: Mapping[str, Any] = self.settings["recipe"]
        return recipe

    @property
    def spent(self) -> Mapping[str, Any]:
        """What its tuning cost; no trials if it is not tuned, empty if that is not known."""
        return self.choice.spent if self.choice else {"trials": 0, "steps": 0, "seconds": 0.0}

    @property
    def succeeded(self) -> list[Result]:
        return [result for result in self.results if result.run["status"] == OK]

    def measured(self, name: str) -> list[Any]:
        """What its runs recorded as `name`, if they succeeded."""
        values = [result.run["provenance"].get(name) for result in self.succeeded]
        return [value for value in values if value is not None]


class Column(NamedTuple):
    """A column of the audit."""

    name: str
    read: Callable[[Audited], Any]
    """The value; None if it is not known."""
    show: Callable[[Any], str] = str
    reference: Callable[[Sequence[Any]], Any] | None = None
    """The value of the others, above which a value is marked; None: nothing is marked."""
    reason: str = ""
    """What more of it means."""
    is_chosen: bool = False
    """Whether tuning chooses it for each loss: then more of it is no advantage."""


def audit_sections(results: Sequence[Result], choices: Sequence[Choice]) -> Iterator[Section]:
    """A section for each data set and backbone: a row for each loss that the study trained."""
    chosen = {(choice.dataset, choice.backbone, choice.loss): choice for choice in choices}
    panels: dict[tuple[str, str], dict[str, list[Result]]] = {}
    for result in results:
        names = result.planned["dataset"], result.planned["backbone"]
        panels.setdefault(names, {}).setdefault(result.planned["loss"], []).append(result)
    for names, losses in panels.items():
        rows = [
            Audited(loss, runs, chosen.get((*names, loss)))
            for loss, runs in losses.items()
            if is_trained(loss)
        ]
        if rows:
            external = [display_name(loss) for loss in losses if is_external(loss)]
            yield _section(Where(*names), rows, external)


def _section(where: Where, audited: Sequence[Audited], external: Sequence[str]) -> Section:
    is_tuned = any(loss.choice for loss in audited)
    others = [*_other_settings(audited)]
    shown, equal, unknown, notes = [], [], [], []
    for column in [*(TUNING_COLUMNS if is_tuned else []), *COLUMNS, *others]:
        values = [column.read(loss) for loss in audited]
        if all(value is None for value in values):
            unknown.append(column.name)
        elif all(value == values[0] for value in values):
            equal.append(f"{column.name} {column.show(values[0])}")
        else:
            more = set() if is_tuned and column.is_chosen else _find_more(column, values)
            shown.append((column, values, more))
            if note := _note(column, values, more, audited):
                notes.append(note)
    if is_tuned:
        notes.append(
            "Tuning chose the epochs, up to those of the recipe, the learning rates and the "
            "options of each loss; so these may differ."
        )
    if external:
        notes.append(f"How these embeddings were made is not known here: {', '.join(external)}.")
    any_more = any(more for _, _, more in shown)
    facts = [
        f"{MORE} marks what a loss had more of than the others; the reasons are below the table."
        if any_more
        else "Nothing is marked: no loss had more of what counts as an advantage here.",
        "" if is_tuned else "No loss was tuned.",
        f"Equal for all: {'; '.join(equal)}." if equal else "",
        "" if others else "All other settings of recipe and backbone are those of the study.",
        f"Not recorded: {', '.join(unknown)}." if unknown else "",
    ]
    return Section(
        title=f"Fairness audit: {where.dataset} · {where.backbone}",
        facts=" ".join(filter(None, facts)),
        columns=[column.name for column, _, _ in shown],
        rows=[
            Row(loss.loss, [_cell(column, values[n], n in more) for column, values, more in shown])
            for n, loss in enumerate(audited)
            if shown
        ],
        notes=notes,
        text_columns=tuple(
            column.name
            for column, values, _ in shown
            if any(isinstance(value, str) for value in values)
        ),
        where=where,
    )


def _find_more(column: Column, values: Sequence[Any]) -> set[int]:
    """Positions of the values that are more than those of the others."""
    known = [value for value in values if value is not None]
    if column.reference is None or len(known) < 2:
        return set()
    limit = column.reference(known)
    return {row for row, value in enumerate(values) if value is not None and value > limit}


def _note(
    column: Column, values: Sequence[Any], more: set[int], audited: Sequence[Audited]
) -> str | None:
    """What is marked in a column, and why; None if nothing is."""
    if not more or column.reference is None:
        return None
    names = [display_name(audited[row].loss) for row in sorted(more)]
    if any(values[row] is True for row in more):
        return f"{MORE} {column.name}: {', '.join(names)}. {column.reason}"
    limit = column.show(column.reference([value for value in values if value is not None]))
    counts = [column.show(values[row]) for row in sorted(more)]
    losses = ", ".join(f"{name} ({count})" for name, count in zip(names, counts, strict=True))
    return f"{MORE} {column.name}: more than {limit}: {losses}. {column.reason}"


def _cell(column: Column, value: Any, is_marked: bool) -> Cell:
    if value is None:
        return Cell(HOLE)
    text = column.show(value) + (f" {MORE}" if is_marked else "")
    return Cell(text, None if isinstance(value, str) else float(value))


def _other_settings(audited: Sequence[Audited]) -> Iterator[Column]:
    """A column for each other setting of recipe and backbone that is not the study's for all."""
    for part in ("recipe", "backbone"):
        settings = [loss.settings.get(part, {}) for loss in audited]
        planned = [loss.results[0].planned["settings"].get(part, {}) for loss in audited]
        for key in dict.fromkeys(key for values in settings for key in values):
            is_shown = key in RECIPE_COLUMNS if part == "recipe" else key == "dim"
            wanted = {_text(values.get(key)) for values in planned}
            if not is_shown and len(wanted | {_text(values.get(key)) for values in settings}) > 1:
                study = f" (study: {', '.join(sorted(wanted))})"
                yield Column(key + study, _reader(part, key), _text)


def _reader(part: str, key: str) -> Callable[[Audited], Any]:
    def read(loss: Audited) -> Any:
        value = loss.settings.get(part, {}).get(key)
        return value if isinstance(value, int | float) else _text(value)

    return read


def _text(value: Any) -> str:
    """A setting as text."""
    if isinstance(value, float):
        return f"{value:.4g}"
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)


def _count(value: float) -> str:
    return f"{round(value):,}"


def _duration(seconds: float) -> str:
    return duration_cell(seconds).text


def _megabytes(value: float) -> str:
    return f"{value:,.0f} MB"


def _mean_steps(loss: Audited) -> float | None:
    """Steps of a final training: mean over the seeds that succeeded."""
    last = [
        result.epochs["step"].iloc[-1]
        for result in loss.succeeded
        if "step" in result.epochs and len(result.epochs)
    ]
    return float(mean(last)) if last else None


def _epochs(loss: Audited) -> int | None:
    epochs: int | None = loss.chosen.get("epochs") or loss.recipe.get("epochs")
    return epochs


def _by_code(check: Callable[[str, str], bool], method: str) -> Callable[[Audited], bool | None]:
    """What the code of the loss says of its `method`."""

    def read(loss: Audited) -> bool | None:
        kind = loss.settings.get("loss", {}).get("type")
        return check(loss_module(kind), method) if kind else None

    return read


def _largest(name: str) -> Callable[[Audited], float | None]:
    return lambda loss: max(loss.measured(name), default=None)


def _mean_of(name: str) -> Callable[[Audited], float | None]:
    def read(loss: Audited) -> float | None:
        values = loss.measured(name)
        return float(mean(values)) if values else None

    return read


def _devices(loss: Audited) -> str | None:
    return " / ".join(dict.fromkeys(loss.measured("device"))) or None


def _tuned(loss: Audited) -> str:
    return ", ".join(loss.choice.searched) if loss.choice else "nothing"


def _recipe(key: str, null: str | None = None) -> Callable[[Audited], Any]:
    """The setting `key` of the recipe; `null` is the text for null."""

    def read(loss: Audited) -> Any:
        return null if key in loss.recipe and loss.recipe[key] is None else loss.recipe.get(key)

    return read


def _sampler(loss: Audited) -> str | None:
    recipe = loss.recipe
    if "images_per_class" in recipe and recipe["images_per_class"] is None:
        return "shuffled images"  # whatever the setting is
    return recipe.get("sampler")


def _yes(value: bool) -> str:
    return "yes" if value else "no"


MORE_TUNING = "A longer search finds better settings."
TUNING_COLUMNS = [
    Column("trials", lambda x: x.spent.get("trials"), _count, median_low, MORE_TUNING),
    Column("steps in tuning", lambda x: x.spent.get("steps"), _count, median_low, MORE_TUNING),
    Column("time of tuning", lambda x: x.spent.get("seconds"), _duration),
    Column("tuned", _tuned),
]
COLUMNS = [
    Column("epochs", _epochs, _count),
    Column("steps", _mean_steps, _count, median_low, "A longer training learns more.", True),
    Column(
        "embeds between epochs",
        _by_code(calls_its_argument, "refresh"),
        _yes,
        min,
        "It may look at all training images between epochs, beside those of its steps.",
    ),
    Column(
        "own batches",
        _by_code(defines, "batches"),
        _yes,
        min,
        "It draws the images of its batches itself, in place of the recipe's images per class.",
    ),
    Column(
        "parameters of the loss",
        _largest("loss_parameters"),
        _count,
        min,
        "They learn beside the model, as proxies of the training classes do.",
    ),
    Column(
        "dimension",
        lambda x: x.settings.get("backbone", {}).get("dim"),
        _count,
        median_low,
        "A longer embedding holds more.",
    ),
    Column(
        "batch size",
        _recipe("batch_size"),
        _count,
        median_low,
        "A larger batch has more pairs to learn from.",
    ),
    Column("images per class", _recipe("images_per_class", "any number")),
    Column("sampler", _sampler),
    Column("pooling", _recipe("pooling", "of the backbone")),
    Column("batch norm frozen", _recipe("freeze_bn"), _yes),
    Column("train time", _mean_of("train_seconds"), _duration),
    Column("peak memory", _largest("peak_memory_mb"), _megabytes),
    Column("device", _devices),
]
