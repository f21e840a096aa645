"""A backbone that cannot be built, or whose weights do not fit, is known before any job."""

import re

import pytest
import timm
import torch

from dmlbench.backbones import trial
from dmlbench.backbones.trial import Question, backbone_problems
from dmlbench.utils.errors import BrokenInstallation

FITTING = Question("test_resnet", 32, 16, "linear", 3, None, None)


def ask(**changes):
    """The problem of a backbone, found in this process."""
    return trial._problem(FITTING._replace(**changes))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"channels": 1},
        {"pooling": "max"},
        {"type": "test_vit", "image_size": 64},
        {"type": "bn_inception", "image_size": 227},
        {"type": "resnet18", "image_size": 80, "head": "low_mid_high", "dim": 12},
        {"type": "swin_tiny_patch4_window7_224", "image_size": 100},  # it pads
        {"image_size": 4096},  # no memory is needed to know it
    ],
)
def test_a_backbone_that_can_be_built_has_no_problem(changes):
    assert ask(**changes) == ""


PROBLEMS = {
    "patches do not cover the image": (
        {"type": "vit_tiny_patch16_224", "image_size": 65},
        "image_size: 65 is not a multiple of 16, the patch of vit_tiny_patch16_224, which would "
        "not see 1 pixel. Take image_size: 64 or 80",
    ),
    "no multiple of the patch": (
        {"type": "test_vit", "image_size": 65},
        r"image_size: test_vit cannot take .* by patch size \(16\)\. Take image_size: 64 or 80",
    ),
    "smaller than a patch": (
        {"type": "test_vit", "image_size": 8},
        "image_size: test_vit cannot take images of 8 pixels: .*Take image_size: 16",
    ),
    "too small for the stages": (
        {"type": "inception_v3", "image_size": 32},
        "image_size: inception_v3 cannot take images of 32 pixels: .*Take image_size: 96",
    ),
    "no multiple of the windows": (
        {"type": "levit_128s", "image_size": 100},
        "image_size: levit_128s cannot take images of 100 pixels: .*image_size: 96 or 112",
    ),
    "own limits of a model": (
        {"type": "bn_inception", "image_size": 40},
        "image_size: bn_inception cannot take .*multiple of 32 pixels.*image_size: 32 or 64",
    ),
    "too small for the head": (
        {"type": "resnet18", "image_size": 16, "head": "low_mid_high", "dim": 12},
        "head: low_mid_high averages 5x5 windows, .*Take image_size: 80 or more, or head: linear",
    ),
    "pooling": (
        {"pooling": "maxx"},
        "recipe.pooling: 'maxx' does not fit test_resnet: Invalid pool type: maxx",
    ),
    "no pooling": ({"pooling": ""}, "recipe.pooling: '' does not fit test_resnet"),
    "pooling of another kind of model": (
        {"type": "test_vit", "image_size": 64, "pooling": "catavgmax"},
        "recipe.pooling: 'catavgmax' does not fit test_vit",
    ),
}


@pytest.mark.parametrize("case", PROBLEMS)
def test_a_backbone_that_cannot_be_built_has_a_problem_with_its_key_and_fix(case):
    changes, message = PROBLEMS[case]
    assert re.match(message, ask(**changes)), ask(**changes)


def test_the_proposed_sizes_can_be_built():
    assert ask(type="levit_128s", image_size=96) == ask(type="levit_128s", image_size=112) == ""


def test_weights_of_another_model_are_a_problem_by_their_shapes_alone(tmp_path):
    with torch.device("meta"):
        state = timm.create_model("test_convnext").state_dict()
    torch.save(state, tmp_path / "w.pth")
    problem = ask(weights=str(tmp_path / "w.pth"))
    begin = f"pretrained: no weights of test_resnet from {tmp_path}/w.pth: 90 are missing"
    assert problem.startswith(begin)


def test_a_model_that_fails_only_without_numbers_has_no_problem(monkeypatch):
    build = trial._build

    def fail_on_meta(question):
        if str(torch.get_default_device()) == "meta":
            raise NotImplementedError("Tensor.item() cannot be called on meta tensors")
        return build(question)

    monkeypatch.setattr(trial, "_build", fail_on_meta)
    monkeypatch.setattr(trial, "_unseen_margin", lambda question: "")
    assert ask() == ""


def test_a_backbone_is_built_once_and_again_if_its_weights_change(monkeypatch, tmp_path):
    monkeypatch.setenv("DMLBENCH_CACHE", str(tmp_path / "cache"))
    weights = tmp_path / "w.pth"
    torch.save(timm.create_model("test_resnet").state_dict(), weights)
    asked = []

    def run(module, arguments, text):
        asked.append(text)
        return [""] * text.count("test_resnet")

    monkeypatch.setattr("dmlbench.utils.discovery._run", run)
    questions = [FITTING, FITTING, FITTING._replace(weights=str(weights))]
    assert backbone_problems(questions) == {}
    assert backbone_problems(questions) == {}
    assert len(asked) == 1
    torch.save({}, weights)
    assert backbone_problems(questions) == {}
    assert len(asked) == 2
    assert asked[1].count("test_resnet") == 1


def test_a_problem_is_asked_again_since_it_may_be_gone(monkeypatch, tmp_path):
    monkeypatch.setenv("DMLBENCH_CACHE", str(tmp_path / "cache"))
    answers = [["head: bad"], [""]]
    monkeypatch.setattr("dmlbench.utils.discovery._run", lambda *_: answers.pop(0))
    assert backbone_problems([FITTING]) == {FITTING: "head: bad"}
    assert backbone_problems([FITTING]) == {}
    assert backbone_problems([FITTING]) == {}  # remembered: there is no third answer


def test_missing_weights_are_a_problem_without_another_process():
    question = FITTING._replace(weights="no.pth")
    assert backbone_problems([question]) == {
        question: "pretrained: there is no file no.pth. `true` takes timm's own weights."
    }


def test_another_process_answers(monkeypatch, tmp_path):
    monkeypatch.setenv("DMLBENCH_CACHE", str(tmp_path / "cache"))
    wrong = FITTING._replace(pooling="maxx")
    problems = backbone_problems([FITTING, wrong])
    assert problems == {wrong: PROBLEMS["pooling"][1]}


def test_a_process_that_dies_is_an_error_with_its_last_line(monkeypatch, tmp_path):
    monkeypatch.setenv("DMLBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(trial, "__name__", "dmlbench.no_such_module")
    with pytest.raises(BrokenInstallation, match=r"No module named dmlbench\.no_such_module"):
        backbone_problems([FITTING])
