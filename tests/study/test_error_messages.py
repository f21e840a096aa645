"""Errors of pydantic become lines with a key path, the value, and what is allowed."""

import pytest
from pydantic import ValidationError

from dmlbench.study.error_messages import MAX_LENGTH, describe_errors
from dmlbench.study.settings import Plan, Recipe


def errors_of(model, values, path=""):
    with pytest.raises(ValidationError) as caught:
        model.model_validate(values)
    return describe_errors(caught.value, model, path)


def test_each_error_is_a_line_that_begins_with_its_key_path():
    lines = errors_of(Recipe, {"epochs": 0, "momentun": 0.8}, "recipe")
    assert len(lines) == 2
    assert lines[0].startswith("recipe.epochs: found 0. ")
    assert lines[1].startswith("recipe.momentun: unknown key. Did you mean 'momentum'?")


def test_a_key_inside_a_list_of_models_is_looked_up_in_the_inner_model():
    plan = {"datasets": ["a"], "backbones": ["b"], "losses": ["c"], "seeds": [0]}
    (line,) = errors_of(Plan, plan | {"exclude": [{"los": "c"}]})
    assert line == (
        "exclude.0.los: unknown key. Did you mean 'loss'? Allowed: backbone, dataset, loss."
    )


def test_an_error_without_a_key_path_is_about_the_study():
    (line,) = errors_of(Recipe, {"schedule": "step"})
    assert line.startswith("study: schedule: step needs step_epochs")


def test_a_long_value_is_cut():
    (line,) = errors_of(Recipe, {"optimizer": "x" * 1000})
    assert f"found '{'x' * (MAX_LENGTH - 4)}.... " in line
