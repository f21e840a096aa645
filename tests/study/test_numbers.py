"""A number is read alike in the recipe, in the plan, and in the options of every loss."""

import copy
import datetime
from typing import Annotated, Literal

import pytest
from pydantic import Field, TypeAdapter, ValidationError

from dmlbench.study.numbers import AS_NUMBER, with_numbers
from dmlbench.study.study import check_study
from dmlbench.utils.errors import StudyError

LR = "recipe.lr"
GAMMA = "losses.st1.gamma"
NUMBERS = {
    LR: 0.001,
    "recipe.augmentation.jitter.hue": 0.1,
    "recipe.clip_norm": 2.0,
    "datasets.letters.class_fraction": 0.5,
    "datasets.letters.recipe.lr": 0.001,
    "backbones.tiny.recipe.weight_decay": 0.5,
    GAMMA: 0.1,
    "losses.pml.margin": 10.0,
    "losses.pml.nu": 1.5,
}
"""Key path of a number -> a right value."""
WHOLE = {
    "recipe.epochs": 3,
    "recipe.batch_size": 80,
    "recipe.cpu_threads": 2,
    "backbones.tiny.dim": 16,
    "evaluation.kmeans_seed": 3,
    "evaluation.threads": 2,
    "runs_per_gpu": 2,
    "losses.st1.centers_per_class": 2,
    "losses.pml.triplets_per_anchor": 5,
}
"""Key path of a whole number -> a right value."""
NO_NUMBERS = [
    *(True, False, "yes", "010", "08", "0x1F", "0o10", "1:30", "1_000", "nan", ".inf", " 3"),
    *("1,5", "3 ", "--1", [3], {"a": 3}, datetime.date(2024, 1, 1), float("nan"), float("inf")),
]


@pytest.fixture
def study(letters):
    letters["losses"]["pml"] = {"type": "pml.MarginLoss"}
    letters["plan"]["losses"].append("pml")
    letters["plan"]["controls"] = []
    return letters


def value_at(study, path):
    """The value of the setting at `path`, in the first run that has it."""
    section, name = path.partition(".")[0], path.rpartition(".")[2]
    if section == "losses":
        loss = path.split(".")[1]
        return next(run for run in study.runs.values() if run.loss == loss).loss_options[name]
    run = next(iter(study.runs.values()))
    holders = {"datasets": run.data, "backbones": run.model, "evaluation": run.evaluation}
    holder = holders.get(section, study.settings)
    if "recipe" in path:
        holder = run.recipe.augmentation.jitter if "jitter" in path else run.recipe
    return getattr(holder, name)


@pytest.mark.parametrize("path", [*NUMBERS, *WHOLE])
def test_text_that_is_a_number_is_that_number(path, study, changed):
    value = NUMBERS.get(path) or WHOLE[path]
    numbers = [value, str(value), f"{value:e}" if path in NUMBERS else f"+{value}"]
    for number in numbers:
        read = value_at(check_study(changed(path, number, study), "my.yaml"), path)
        assert (read, type(read)) == (value, type(value))


@pytest.mark.parametrize("path", [*NUMBERS, *WHOLE])
def test_what_is_no_plain_number_is_refused(path, study, changed):
    for value in NO_NUMBERS:
        if path == "losses.pml.triplets_per_anchor" and value in ("yes", "1,5", "--1"):
            continue  # it may be a word
        with pytest.raises(StudyError) as refused:
            check_study(changed(path, value, study), "my.yaml")
        assert f"\n  {path}: found " in str(refused.value), value


@pytest.mark.parametrize(
    ("value", "index"), [([True, False], 0), ([0, True], 1), (["010"], 0), ([0, "1:30"], 1)]
)
def test_numbers_in_a_list_are_read_alike(value, index, study, changed):
    for path in ("plan.seeds", "evaluation.recall_at", "datasets.letters.recall_at"):
        with pytest.raises(StudyError, match=rf"\n  {path}\.{index}: found "):
            check_study(changed(path, list(value), study), "my.yaml")


def test_seeds_as_text_are_those_seeds(study, changed):
    runs = check_study(changed("plan.seeds", ["0", "1e1"], study), "my.yaml").runs
    assert {run.seed for run in runs.values()} == {0, 10}


def test_a_number_as_text_has_the_key_of_the_number(study, keys, changed):
    as_text = copy.deepcopy(study)
    for path in (LR, GAMMA, "losses.pml.margin"):
        study, as_text = changed(path, 10.0, study), changed(path, "1e1", as_text)
    assert keys(as_text) == keys(study)


@pytest.mark.parametrize(
    ("annotation", "text", "value"),
    [
        (int | float, "1e1", 10.0),
        (int | float | bool | str, "1e1", 10.0),
        (int | float | bool | str, "all", "all"),
        (int | float | bool | str | None, True, True),
        (int | str, "12", 12),
        (float | None, None, None),
        (Literal[1, 3], "3", 3),
        (Literal["1", "2"], "1", "1"),
        (tuple[float, ...], ["1e1", 2], (10.0, 2.0)),
        (Annotated[float, Field(gt=0)], "1e-3", 0.001),
        (str, "010", "010"),
        (bool, True, True),
    ],
)
def test_an_option_of_any_type_is_read_by_the_rule(annotation, text, value):
    read = TypeAdapter(with_numbers(annotation)).validate_python(text)
    assert (read, type(read)) == (value, type(value))


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (int | float, True),
        (int | str, True),
        (int | str, "010"),
        (int | float | bool | str, "1_000"),
        (Literal[1, 3], True),
        (tuple[int, ...], [1, True]),
        (Annotated[float, Field(gt=0)], "-1"),
    ],
)
def test_an_option_of_any_type_refuses_what_is_no_plain_number(annotation, value):
    with pytest.raises(ValidationError):
        TypeAdapter(with_numbers(annotation)).validate_python(value)


def test_bounds_before_the_rule_are_in_the_schema():
    count = TypeAdapter(Annotated[int, Field(ge=1), AS_NUMBER])
    assert count.json_schema() == {"minimum": 1, "type": "integer"}
