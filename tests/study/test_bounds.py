"""Every number of a study has bounds, and no combination of allowed numbers is absurd."""

import time

import pytest

from dmlbench.losses import list_losses
from dmlbench.study.loss_options import options_model
from dmlbench.study.plan import MAX_RUNS
from dmlbench.study.sections import SECTIONS
from dmlbench.study.study import check_study
from dmlbench.utils.declarations import read_declarations
from dmlbench.utils.errors import StudyError

EXTREMES = [1e300, -1e300, 1e30, -1e30, 1e-300, -1e-300, 5e-324, 10**14, -(10**14), "1e400", 1e-31]
LOW, HIGH = ("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")


def leaves(schema, root, path=""):
    """Key path -> JSON schema of each number and each list inside `schema`."""
    if "$ref" in schema:
        return  # a section of its own
    for option in schema.get("anyOf", ()):
        yield from leaves(option, root, path)
    if schema.get("type") in ("integer", "number") and "enum" not in schema:
        yield path, schema
    if schema.get("type") == "array" and "enum" not in schema["items"]:
        yield path, schema
        yield from leaves(schema["items"], root, f"{path}[]")


def numbers_of(model):
    schema = model.model_json_schema()
    for name, field in schema.get("properties", {}).items():
        if "prefixItems" in field:
            for inner in field["prefixItems"]:
                yield name, inner
        else:
            yield from leaves(field, schema, name)


@pytest.mark.parametrize("title", SECTIONS)
def test_every_number_and_every_list_of_a_section_has_bounds(title):
    for name, schema in numbers_of(SECTIONS[title][1]):
        if schema["type"] == "array":
            assert schema["maxItems"] <= 10_000, name
        else:
            low = [schema[key] for key in LOW if key in schema]
            high = [schema[key] for key in HIGH if key in schema]
            assert low, name
            assert high, name
            assert high[0] <= 2**31, name


@pytest.mark.parametrize("kind", [*list_losses(), "pml.SoftTripleLoss", "pml.CircleLoss"])
def test_every_number_of_a_loss_has_bounds_that_contain_its_default(kind):
    model = options_model(kind)
    for name, schema in numbers_of(model):
        low, high = schema.get("minimum", schema.get("exclusiveMinimum")), schema["maximum"]
        assert low >= -1_000_000, name
        assert high <= 1_000_000, name
        default = model.model_fields[name].default
        if isinstance(default, int | float):
            assert low <= default <= high, name


@pytest.mark.parametrize("kind", list_losses())
def test_the_search_space_of_a_loss_is_within_its_bounds(kind):
    model, constants = options_model(kind), read_declarations(f"dmlbench.losses.{kind}").constants
    for name, space in constants["SEARCH_SPACE"].items():
        model.model_validate({name: space["low"]})
        model.model_validate({name: space["high"]})


PATHS = [
    "recipe.lr",
    "recipe.epochs",
    "recipe.batch_size",
    "recipe.images_per_class",
    "recipe.chunk",
    "recipe.head_lr_factor",
    "recipe.momentum",
    "recipe.eps",
    "recipe.bn_momentum",
    "recipe.weight_decay",
    "recipe.step_factor",
    "recipe.warmup_steps",
    "recipe.clip_value",
    "recipe.clip_norm",
    "recipe.cpu_threads",
    "recipe.augmentation.jitter.brightness",
    "backbones.tiny.dim",
    "backbones.tiny.image_size",
    "backbones.tiny.resize",
    "datasets.letters.class_fraction",
    "datasets.letters.recipe.lr",
    "backbones.tiny.recipe.epochs",
    "evaluation.threads",
    "evaluation.kmeans_seed",
    "evaluation.kmeans_iterations",
    "evaluation.kmeans_restarts",
    "runs_per_gpu",
    "cluster.max_minutes",
    "cluster.time_factor",
    "losses.st1.centers_per_class",
    "losses.st1.gamma",
    "losses.st1.margin",
]


@pytest.mark.parametrize("path", PATHS)
def test_an_absurd_number_is_refused_with_its_key_and_what_is_allowed(path, changed):
    for value in EXTREMES:
        with pytest.raises(StudyError) as refused:
            check_study(changed(path, value), "my.yaml")
        line = str(refused.value).splitlines()[1]
        assert line.startswith(f"  {path}: found "), value
        assert "Allowed: " in line or "closer to 0" in line or "15 digits" in line, value


def test_what_a_message_allows_is_the_range(changed):
    with pytest.raises(StudyError) as refused:
        check_study(changed("recipe.lr", 1e300), "my.yaml")
    line = str(refused.value).splitlines()[1]
    assert line == "  recipe.lr: found 1e+300. Allowed: a number above 0 and at most 1,000."


@pytest.mark.parametrize("path", ["evaluation.recall_at", "datasets.letters.recall_at"])
def test_the_k_of_recall_are_each_there_once_and_not_absurd(path, changed):
    assert check_study(changed(path, [8, 1]), "my.yaml").runs  # in any order
    for value, problem in (
        ([1, 1, 1], r": 1 is listed twice\."),
        ([10**9], r"\.0: found 1000000000\. Allowed: .* at most 1,000,000"),
        ([*range(1, 102)], r": found 101 values\. Allowed: at most 100\."),
    ):
        with pytest.raises(StudyError, match=path.replace(".", r"\.") + problem):
            check_study(changed(path, value), "my.yaml")


def test_a_learning_rate_that_grows_without_end_is_refused(changed):
    wrong = changed("recipe", {"schedule": "step", "step_factor": 100, "step_epochs": [1, 2, 3, 4]})
    problem = r"recipe: lr 0\.0001 x step_factor 100, 4 times, is above 1000, the largest learning"
    with pytest.raises(StudyError, match=problem):
        check_study(wrong, "my.yaml")
    wrong["recipe"]["step_epochs"] = [1, 2, 3]  # 1e-4 x 100^3 = 100
    assert check_study(wrong, "my.yaml").runs
    wrong["recipe"]["step_epochs"] = [*range(1, 1001)]  # beyond the numbers of a computer
    with pytest.raises(StudyError, match="1000 times, is above"):
        check_study(wrong, "my.yaml")


def test_a_batch_that_no_memory_holds_is_refused_with_its_size(changed):
    wrong = changed("backbones.tiny.image_size", 5000)
    wrong["recipe"] = {"batch_size": 100_000}
    problem = (
        r"backbones\.tiny on letters: batch_size 100,000 x image_size 5,000 squared x 1 channel x "
        r"4 bytes are 10,000 GB in a batch, and 1,000 GB are the most"
    )
    with pytest.raises(StudyError, match=problem):
        check_study(wrong, "my.yaml")


def test_a_training_without_end_is_refused_with_its_steps(changed):
    wrong = changed("plan.datasets", ["inat2018"])
    wrong["recipe"] = {"batch_size": 2, "images_per_class": 1, "epochs": 100_000}
    problem = r"on inat2018: 100,000 epochs of .* images in batches of 2 are 1\d,\d+,\d+,\d+ steps"
    with pytest.raises(StudyError, match=problem):
        check_study(wrong, "my.yaml")


def test_a_grid_that_is_too_large_is_refused_before_it_is_built(changed):
    wrong = changed("plan.seeds", [*range(10_000)])
    wrong["plan"]["losses"] = ["htl", "rll", "triplet", "npair", "margin", "circle"] + [
        f"loss{number}" for number in range(5)
    ]
    started = time.process_time()
    with pytest.raises(StudyError) as refused:
        check_study(wrong, "my.yaml")
    assert time.process_time() - started < 2
    sizes = "1 datasets x 1 backbones x 11 losses x 10,000 seeds are 110,000 runs"
    assert f"plan: {sizes}, and a study has at most {MAX_RUNS:,}." in str(refused.value)


def test_exclusions_are_found_in_any_number(changed):
    study = changed("plan.exclude", [{"dataset": "letters", "loss": "st1"}])
    study["plan"]["losses"] = ["st1", "rll"]
    started = time.process_time()
    assert {run.loss for run in check_study(study, "my.yaml").runs.values() if run.trains} == {
        "rll"
    }
    study["plan"]["exclude"] = [{"loss": f"x{number}"} for number in range(10_001)]
    with pytest.raises(StudyError, match=r"plan\.exclude: found 10,001 values\. Allowed: at most"):
        check_study(study, "my.yaml")
    assert time.process_time() - started < 5


def test_names_that_differ_only_in_case_are_refused(changed):
    wrong = changed("losses.ST1", {"type": "rll"})
    wrong["plan"]["losses"] = ["st1", "ST1"]
    with pytest.raises(StudyError, match=r"plan: losses: st1 and ST1 differ only in upper and low"):
        check_study(wrong, "my.yaml")


@pytest.mark.parametrize("zero", [0, 0.0, -0.0, "0", "-0.0"])
def test_zero_is_no_number_that_is_too_close_to_zero(zero, changed):
    study = check_study(changed("recipe.weight_decay", zero), "my.yaml")
    assert next(iter(study.runs.values())).recipe.weight_decay == 0
