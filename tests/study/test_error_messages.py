"""Errors of pydantic become lines with a key path, the value, and what is allowed, in words."""

import datetime
import re
from typing import Literal

import pytest
from pydantic import ValidationError

from dmlbench.losses import list_losses
from dmlbench.study.backbone_settings import Backbone
from dmlbench.study.error_messages import MAX_LENGTH, describe_errors, show
from dmlbench.study.loss_options import create_options_model, options_model
from dmlbench.study.plan import Plan
from dmlbench.study.sections import SECTIONS
from dmlbench.study.settings import Dataset, Recipe, Settings
from dmlbench.study.study import check_study
from dmlbench.utils.errors import StudyError

LR = "a number above 0 and at most 1,000"
NAME = (
    "a name (letters, digits, _ . + -, and a letter or a digit first; at most 100 characters, as "
    "it names a folder)"
)
YES = "YAML reads yes, no, on and off as true and false."
PLAIN = "Write a number in plain decimal, as 10, 0.5 or 1e-3."
PLAN = {"datasets": ["a"], "backbones": ["b"], "losses": ["c"], "seeds": [0]}
REQUIRED = {
    Settings: {"study": "my", "plan": PLAN},
    Plan: PLAN,
    Backbone: {"type": "resnet18"},
    Dataset: {"type": "glyphs"},
    SECTIONS["embeddings"][1]: {"dataset": "a", "file": "b"},
    SECTIONS["plan.exclude"][1]: {"loss": "c"},
}
"""Model -> the keys that it needs."""


def errors_of(model, values, path=""):
    with pytest.raises(ValidationError) as caught:
        model.model_validate(values)
    return describe_errors(caught.value, model, path)


LINES = {
    "no number": (Recipe, {"lr": True}, f"lr: found true. Allowed: {LR}. {YES}"),
    "no whole number": (
        Recipe,
        {"epochs": 2.5},
        "epochs: found 2.5. Allowed: a whole number of at least 1 and at most 100,000.",
    ),
    "two bounds": (
        Recipe,
        {"momentum": 1},
        "momentum: found 1. Allowed: a number of at least 0 and below 1.",
    ),
    "or null": (
        Recipe,
        {"clip_norm": "x"},
        "clip_norm: found 'x'. Allowed: a number above 0 and at most 1,000,000,000 or null. "
        f"{PLAIN}",
    ),
    "octal": (Recipe, {"lr": "010"}, f"lr: found '010'. Allowed: {LR}. {PLAIN}"),
    "several values": (
        Recipe,
        {"lr": [0.1, 0.2]},
        f"lr: found [0.1, 0.2]. Allowed: {LR}. Write one value, without brackets.",
    ),
    "no list": (
        Plan,
        PLAN | {"seeds": 3},
        "seeds: found 3. Allowed: a list of: a whole number of at least 0 and below 2,147,483,648. "
        "Write a list: [3].",
    ),
    "nothing": (
        Recipe,
        {"step_epochs": None},
        "step_epochs: found null. Allowed: a list of: a whole number of at least 1 and at most "
        "100,000. "
        "Write a list: [0, 1, 2].",
    ),
    "empty list": (
        Plan,
        PLAN | {"datasets": []},
        "datasets: found []. Allowed: a list of: a name. It is empty: write one value or more.",
    ),
    "one of two": (
        Recipe,
        {"augmentation": {"crop_scale": [0.5]}},
        "augmentation.crop_scale: found [0.5]. "
        "Allowed: a list of two: a number of at least 0.0001 and at most 1.",
    ),
    "boolean": (
        Plan,
        PLAN | {"losses": [False]},
        f"losses.0: found false. Allowed: {NAME}. {YES} Put text in quotes.",
    ),
    "date": (
        Plan,
        PLAN | {"losses": [datetime.date(2024, 1, 1)]},
        f"losses.0: found 2024-01-01. Allowed: {NAME}. YAML reads it as a date. "
        "Put text in quotes.",
    ),
    "number in place of a name": (
        Plan,
        PLAN | {"losses": [7]},
        f"losses.0: found 7. Allowed: {NAME}. Put text in quotes.",
    ),
    "pattern": (Settings, {"study": "a b", "plan": PLAN}, f"study: found 'a b'. Allowed: {NAME}."),
    "key": (
        Settings,
        {"study": "a", "plan": PLAN, "losses": {True: {}}},
        f"losses: found the key true. Allowed: {NAME}. {YES} Put text in quotes.",
    ),
    "checksum": (
        Dataset,
        {"type": "csv", "checksums": {"a.zip": "sha256:" + "a" * 32}},
        "checksums: a.zip: sha256 has 64 hex digits, and these are 32: " + "a" * 32 + ".",
    ),
    "choice": (
        Recipe,
        {"optimizer": "x"},
        "optimizer: found 'x'. Allowed: adamw, adam, sgd or rmsprop.",
    ),
    "one choice": (
        create_options_model("folder", {"split": (Literal["classes"] | None, None)}),
        {"split": "random"},
        "split: found 'random'. Allowed: classes or null.",
    ),
    "two types": (
        Backbone,
        {"type": "a", "pretrained": 3},
        "pretrained: found 3. Allowed: true, false or text. Put text in quotes.",
    ),
    "no mapping": (
        Settings,
        {"study": "a", "plan": PLAN, "losses": ["b"]},
        "losses: found ['b']. Allowed: a mapping of names. Write a line for each key: "
        "`key: value`.",
    ),
    "empty section": (
        Settings,
        {"study": "a", "plan": PLAN, "losses": None},
        "losses: found null. Allowed: a mapping of names. It is empty: remove it, or write its "
        "keys below it, indented.",
    ),
    "digits": (
        Recipe,
        {"epochs": 10**5000},
        "epochs: found a whole number of more than 15 digits.",
    ),
    "not finite": (Recipe, {"lr": float("inf")}, f"lr: found inf. Allowed: {LR}."),
}


@pytest.mark.parametrize("case", LINES)
def test_each_kind_of_error_is_a_sentence(case):
    model, values, line = LINES[case]
    assert errors_of(model, values) == [line]


def test_each_error_is_a_line_that_begins_with_its_key_path():
    lines = errors_of(Recipe, {"epochs": 0, "momentun": 0.8}, "recipe")
    assert len(lines) == 2
    assert lines[0].startswith("recipe.epochs: found 0. ")
    assert lines[1].startswith("recipe.momentun: unknown key. Did you mean 'momentum'?")


def test_a_list_with_wrong_values_is_not_called_too_short_as_well():
    lines = errors_of(Plan, PLAN | {"seeds": [True, -1]}, "plan")
    assert [line.partition(". Allowed")[0] for line in lines] == [
        "plan.seeds.0: found true",
        "plan.seeds.1: found -1",
    ]


def test_a_key_inside_a_list_of_models_is_looked_up_in_the_inner_model():
    (line,) = errors_of(Plan, PLAN | {"exclude": [{"los": "c"}]})
    assert line == (
        "exclude.0.los: unknown key. Did you mean 'loss'? Allowed: backbone, dataset, loss."
    )


def test_an_option_without_a_study_belongs_nowhere_else():
    (line,) = errors_of(options_model("snr"), {"lr": 1})
    assert line.startswith("lr: unknown key. Allowed: ")


def test_an_error_without_a_key_path_is_about_the_study():
    (line,) = errors_of(Recipe, {"schedule": "step"})
    assert line.startswith("study: schedule: step needs step_epochs")


def test_a_long_value_is_cut():
    (line,) = errors_of(Recipe, {"optimizer": "x" * 1000})
    assert f"found '{'x' * (MAX_LENGTH - 4)}.... " in line


def test_a_shown_value_looks_as_in_yaml():
    assert (
        show([True, None, datetime.date(2024, 1, 2), "a\nb"]) == r"[true, null, 2024-01-02, 'a\nb']"
    )


ELSEWHERE = {
    "recipe.seeds": "It belongs under plan.",
    "exclude": "It belongs under plan.",
    "epochs": "It belongs under recipe.",
    "plan.batch_size": "It belongs under recipe.",
    "plan.recipe": "It belongs at the top of the file, or under backbones.<name>, "
    "or under datasets.<name>.",
    "recipe.dim": "It belongs under backbones.<name>.",
    "recipe.flip": "It belongs under recipe.augmentation.",
    "recipe.hue": "It belongs under recipe.augmentation.jitter.",
    "recipe.margin": "It belongs under losses.<name>.",
    "image_size": "It belongs under backbones.<name>.",
    "split_seed": "It belongs under datasets.<name>.",
    "kmeans_seed": "It belongs under evaluation.",
    "evaluation.track": "It belongs at the top of the file.",
    "losses.st1.lr": "It belongs under recipe.",
    "losses.st1.images_per_class": "It belongs under recipe.",  # htl has an option of this name
    "losses.st1.dim": "It belongs under backbones.<name>.",
    "backbones.tiny.lr": "It belongs under recipe, or under backbones.tiny.recipe, which overrides "
    "it for tiny.",
    "backbones.tiny.recipe.dim": "It belongs under backbones.<name>.",
    "datasets.letters.epochs": "It belongs under recipe, or under datasets.letters.recipe, which "
    "overrides it for letters.",
    "epoch": "Did you mean recipe.epochs?",
    "recipe.image_sizes": "Did you mean backbones.<name>.image_size?",
    "backbone": "Did you mean 'backbones'?",  # and not that of plan.exclude
    "losses.st1.gama": "Did you mean 'gamma'?",
    "losses.st1.neighbours": "Allowed: centers_lr_factor, ",  # an option of another loss
    "nothing_like_it": "Allowed: backbones, cluster, datasets, ",
}


@pytest.mark.parametrize("path", ELSEWHERE)
def test_a_key_at_the_wrong_level_is_told_where_it_belongs(path, changed):
    with pytest.raises(StudyError) as refused:
        check_study(changed(path, 1), "my.yaml")
    assert f"\n  {path}: unknown key. {ELSEWHERE[path]}" in str(refused.value)


VALUES = [
    *(None, True, "", "x", "010", "1e-3", "nan", 0, -1, 2.5, float("nan"), 10**400, [], {}, [[]]),
    *([None], [True], ["x"], [1, 2, 3], [0.5], {"x": 1}, {1: 2}, {None: []}, {"x": {"y": 1}}),
    *(datetime.date(2024, 1, 1), "x" * 200, "\n", [{"x": 1}], {"x": True}, {"x": [1]}),
]
SENTENCE = re.compile(
    r"[\w.]+: (found (the key )?\S.*\. Allowed: \w.*\.|found .*, not a mapping\. Allowed: \w.*\."
    r"|found a whole number of more than 15 digits\.|unknown key\. \S.*[.?]|is missing\."
    r"|[\w:]+.* .*\.)"
)


@pytest.mark.parametrize("model", [model for _, model in SECTIONS.values()])
def test_every_wrong_value_of_every_setting_is_refused_in_words(model):
    needed, refusals = REQUIRED.get(model, {}), 0
    for field in model.model_fields:
        for value in VALUES:
            try:
                model.model_validate({**needed, field: value})
            except ValidationError as error:
                for line in describe_errors(error, model, "place"):
                    refusals += 1
                    assert SENTENCE.fullmatch(line), line
                    assert not re.search("tuple|NoneType|Input should|pattern|dict|int_|<", line)
    assert refusals > 10 * len(model.model_fields)


@pytest.mark.parametrize("loss", list_losses())
def test_every_wrong_value_of_every_option_is_refused_in_words(loss):
    model = options_model(loss)
    for option in model.model_fields:
        for value in VALUES:
            try:
                model.model_validate({option: value})
            except ValidationError as error:
                for line in describe_errors(error, model, f"losses.{loss}"):
                    assert SENTENCE.fullmatch(line), line
                    assert not re.search("tuple|NoneType|Input should|pattern|dict|int_|<", line)
