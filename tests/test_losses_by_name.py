"""Losses that a study names without a file here: pytorch-metric-learning's, and one's own."""

import copy
import re
import shutil
import subprocess
import sys
import textwrap

import pytest
import torch

from dmlbench import grid, installed, source, study
from dmlbench.losses import _own, create_loss
from dmlbench.problems import StudyError

STUDY = {
    "study": "made",
    "plan": {
        "datasets": ["glyphs"],
        "backbones": ["test_resnet"],
        "losses": ["pml.CircleLoss", "fast_ap", "rll"],
        "seeds": [0],
        "controls": [],
    },
    "losses": {"fast_ap": {"type": "pml.FastAPLoss", "num_bins": 20}},
    "backbones": {"test_resnet": {"dim": 16, "image_size": 32}},
}
OWN = """
    from __future__ import annotations
    from typing import Literal
    from .helper import scale
    from dmlbench.losses.base import Loss
    from dmlbench.losses.rll import RankedList

    class Sharp(Loss):
        def __init__(self, num_classes, embedding_dim, parents=None, *,
                     sharpness: float = 2.0, how: Literal["p", "q"] = "p"):
            super().__init__()
            self.sharpness = sharpness

        def compute(self, embeddings, labels):
            return scale(self.sharpness * embeddings.sum())

    class Listed(RankedList):
        def __init__(self, *args, extra: int, **options):
            super().__init__(*args, **options)

    class Odd(Loss):
        def __init__(self, num_classes, embedding_dim, parents=None, *, at=print): ...

    class NotALoss: ...
"""


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    """A cache of answers, in which what takes seconds may be known already."""
    folder = tmp_path_factory.mktemp("cache")
    for kind in ("timm", "pml"):
        for known in installed.cache_folder().glob(f"{kind}-*.json"):
            shutil.copy(known, folder)
    return folder


@pytest.fixture
def own(tmp_path, monkeypatch, answers):
    """A package with losses of one's own, where dmlbench is called; a function to write in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("DMLBENCH_CACHE", str(answers))
    monkeypatch.setenv("PYTHONPATH", str(source.PACKAGE.parent), prepend=":")
    package = tmp_path / "own_losses"
    package.mkdir()

    def fresh():
        for cached in (source.digest, source.code, source._normalised):
            cached.cache_clear()
        for cached in (installed.own_loss, grid.options_model):
            cached.cache_clear()
        for name in [name for name in sys.modules if name.startswith("own_losses")]:
            del sys.modules[name]

    def write(name, text):
        (package / f"{name}.py").write_text(textwrap.dedent(text))
        fresh()

    write("__init__", "")
    write("helper", "def scale(x):\n    return 3 * x\n")
    write("sharp", OWN)
    yield write
    fresh()


def with_loss(entry, name="mine"):
    made = copy.deepcopy(STUDY)
    made["plan"]["losses"].append(name)
    made["losses"][name] = entry
    return made


def runs(settings):
    return {run.loss: run for run in study.check(settings, "my.yaml").runs.values()}


def moved(before, after):
    return {loss for loss in before if before[loss] != after[loss]}


def keys(settings):
    return {loss: run.train_key for loss, run in runs(settings).items()}


def test_a_loss_of_the_library_has_its_constructor_s_options_and_defaults():
    found = runs(STUDY)
    assert found["pml.CircleLoss"].loss_options == {"m": 0.4, "gamma": 80, "lr_factor": 1.0}
    assert found["fast_ap"].loss_options == {"num_bins": 20, "lr_factor": 1.0}
    run = found["fast_ap"]
    assert create_loss(run.loss_type, 5, 8, **run.loss_options).criterion.num_bins == 20


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"type": "pml.CircelLoss"}, r"losses\.mine: no loss .*Did you mean 'pml\.CircleLoss'\?"),
        ({"type": "pml.CircleLoss", "gama": 1}, r"losses\.mine\.gama: .*Did you mean 'gamma'\?"),
        ({"type": "pml.CircleLoss", "gamma": "much"}, r"losses\.mine\.gamma.*: found 'much'"),
        ({"type": "pml.RankedListLoss", "margin": 0.4}, r"losses\.mine\.Tn: is missing"),
        ({"type": "pml.CosFaceLoss", "num_classes": 7}, r"losses\.mine\.num_classes: unknown key"),
        ({"type": "pml.VICRegLoss"}, r"losses\.mine: no loss 'pml\.VICRegLoss'"),
        ({"type": "nowhere.to.be.Found"}, r"losses\.mine: .*no module nowhere\.to\.be "),
        ({"type": "json.decoder..Loss"}, r"losses\.mine: .*no module json\.decoder\. "),
        ({"type": "."}, r"losses\.mine: no loss '\.'"),
    ],
)
def test_a_wrong_name_or_option_is_refused_with_its_place_and_fix(entry, message):
    with pytest.raises(StudyError, match=message):
        study.check(with_loss(entry), "my.yaml")


def test_an_option_moves_the_key_of_its_loss_alone():
    before = keys(STUDY)
    changed = copy.deepcopy(STUDY)
    changed["losses"]["fast_ap"]["num_bins"] = 21
    assert moved(before, keys(changed)) == {"fast_ap"}
    changed = copy.deepcopy(STUDY)
    changed["losses"]["pml.CircleLoss"] = {"gamma": 80}  # its default
    assert moved(before, keys(changed)) == set()


def test_one_s_own_loss_is_checked_and_made(own):
    entry = {"type": "own_losses.sharp.Sharp", "sharpness": 4}
    run = runs(with_loss(entry))["mine"]
    assert run.loss_options == {"sharpness": 4.0, "how": "p"}
    loss = create_loss(run.loss_type, 5, 8, **run.loss_options)
    assert loss(torch.ones(2, 8), torch.tensor([0, 1])).item() == 3 * 4 * 16
    for wrong, message in (
        ({**entry, "sharpnes": 4}, r"losses\.mine\.sharpnes: .*Did you mean 'sharpness'\?"),
        ({**entry, "how": "r"}, r"losses\.mine\.how: found 'r'"),
    ):
        with pytest.raises(StudyError, match=message):
            study.check(with_loss(wrong), "my.yaml")


def test_one_s_own_loss_that_does_not_import_is_refused_and_asked_again(own, answers):
    known = set(answers.iterdir())
    own("sharp", "import nothing_of_this_name\n")
    entry = {"type": "own_losses.sharp.Sharp"}
    with pytest.raises(StudyError, match=r"mine: .*does not import: .*nothing_of_this_name"):
        study.check(with_loss(entry), "my.yaml")
    assert set(answers.iterdir()) == known  # what is missing may be installed
    own("sharp", "def broken(:\n")
    with pytest.raises(StudyError, match=r"mine: .*own_losses\.sharp does not import: "):
        study.check(with_loss(entry), "my.yaml")
    own("sharp", OWN)
    assert "mine" in runs(with_loss(entry))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("sharp.Shrap", "Shrap is not there. Did you mean 'own_losses.sharp.Sharp'?"),
        ("sharp.NotALoss", "NotALoss is no subclass of dmlbench.losses.base.Loss."),
        ("sharp.Odd", "option 'at=<built-in function print>' needs an annotation of Literal"),
        ("lost.Sharp", "own_losses.lost does not import: ModuleNotFoundError"),
    ],
)
def test_what_is_no_loss_says_why(own, name, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        _own.describe(f"own_losses.{name}")


def test_options_that_are_handed_on_to_a_base_are_options(own):
    options = _own.describe("own_losses.sharp.Listed")
    assert options["extra"] == ["int"]
    assert options["margin"] == ["float", 0.4]
    assert options["form"] == ["Literal['cvpr', 'tpami', 'simpler']", "cvpr"]


def test_the_code_of_one_s_own_package_moves_the_key_of_its_loss_alone(own, monkeypatch):
    monkeypatch.setattr(installed, "own_loss", lambda kind: {})
    monkeypatch.setattr(installed.own_loss, "cache_clear", lambda: None, raising=False)
    settings = with_loss({"type": "own_losses.sharp.Sharp"})
    before = keys(settings)
    own("sharp", OWN + "\n    # a comment\n")
    assert moved(before, keys(settings)) == set()
    own("sharp", OWN + "\n    NEW = 1\n")
    assert moved(before, keys(settings)) == {"mine"}
    own("sharp", OWN)
    assert moved(before, keys(settings)) == set()
    own("helper", "def scale(x):\n    return 4 * x\n")  # by a relative import
    assert moved(before, keys(settings)) == {"mine"}
    own("helper", "import beside\ndef scale(x):\n    return 3 * x\n")
    before = keys(settings)
    own("../beside", "NEW = 1\n")
    assert moved(before, keys(settings)) == {"mine"}


def test_checking_such_a_study_imports_no_torch(own):
    settings = with_loss({"type": "own_losses.sharp.Sharp"})
    code = (
        f"import sys; from dmlbench import study; found = study.check({settings!r}, 'my.yaml');"
        "[run.train_key for run in found.runs.values()];"
        "print({'torch', 'pytorch_metric_learning', 'own_losses'} & set(sys.modules))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"
