"""The options of losses that a study names: those of pytorch-metric-learning, and the user's."""

import copy
import re
import shutil
import subprocess
import sys
import textwrap

import pytest
import torch

from dmlbench.losses import _catalogue, _user_loss, create_loss
from dmlbench.losses._catalogue import own_loss
from dmlbench.study import loss_options
from dmlbench.study.study import check_study
from dmlbench.utils import discovery
from dmlbench.utils.errors import StudyError
from dmlbench.utils.modules import PACKAGE

STUDY = {
    "study": "my_study",
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
SHARP = "own_losses.sharp.Sharp"
SHARP_FILE = """
    from __future__ import annotations
    from typing import Literal
    from .helper import scale
    from dmlbench.losses.base import Loss
    from dmlbench.losses.rll import RankedList

    class Sharp(Loss):
        def __init__(self, num_classes, embedding_dim, parents=None, *,
                     sharpness: float = 2.0, form: Literal["p", "q"] = "p"):
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
    """A cache of answers, which may begin with those that take seconds."""
    folder = tmp_path_factory.mktemp("cache")
    for kind in ("timm", "pml"):
        for known in discovery.cache_folder().glob(f"{kind}-*.json"):
            shutil.copy(known, folder)
    return folder


@pytest.fixture
def write(tmp_path, monkeypatch, answers, read_package):
    """Write a file of the user's package `own_losses`, which lies in the current folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("DMLBENCH_CACHE", str(answers))
    monkeypatch.setenv("PYTHONPATH", str(PACKAGE.parent), prepend=":")
    package = tmp_path / "own_losses"
    package.mkdir()

    def forget():
        read_package(PACKAGE)
        own_loss.cache_clear()
        loss_options.options_model.cache_clear()
        for name in [name for name in sys.modules if name.startswith("own_losses")]:
            del sys.modules[name]

    def write_file(name, text):
        (package / f"{name}.py").write_text(textwrap.dedent(text))
        forget()

    write_file("__init__", "")
    write_file("helper", "def scale(x):\n    return 3 * x\n")
    write_file("sharp", SHARP_FILE)
    yield write_file
    forget()


def with_loss(entry, name="mine"):
    """STUDY with one more loss."""
    study = copy.deepcopy(STUDY)
    study["plan"]["losses"].append(name)
    study["losses"][name] = entry
    return study


def runs_by_loss(settings):
    return {run.loss: run for run in check_study(settings, "my.yaml").runs.values()}


def read_keys(settings):
    return {loss: run.train_key for loss, run in runs_by_loss(settings).items()}


def moved_losses(before, after):
    return {loss for loss in before if before[loss] != after[loss]}


def test_a_library_loss_has_the_options_and_defaults_of_its_constructor():
    runs = runs_by_loss(STUDY)
    assert runs["pml.CircleLoss"].loss_options == {"m": 0.4, "gamma": 80, "lr_factor": 1.0}
    assert runs["fast_ap"].loss_options == {"num_bins": 20, "lr_factor": 1.0}
    run = runs["fast_ap"]
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
        check_study(with_loss(entry), "my.yaml")


def test_an_option_moves_only_the_key_of_its_loss():
    before = read_keys(STUDY)
    changed = copy.deepcopy(STUDY)
    changed["losses"]["fast_ap"]["num_bins"] = 21
    assert moved_losses(before, read_keys(changed)) == {"fast_ap"}
    changed = copy.deepcopy(STUDY)
    changed["losses"]["pml.CircleLoss"] = {"gamma": 80}  # its default
    assert moved_losses(before, read_keys(changed)) == set()


@pytest.mark.usefixtures("write")
def test_the_user_s_loss_is_checked_and_created():
    entry = {"type": SHARP, "sharpness": 4}
    run = runs_by_loss(with_loss(entry))["mine"]
    assert run.loss_options == {"sharpness": 4.0, "form": "p"}
    loss = create_loss(run.loss_type, 5, 8, **run.loss_options)
    assert loss(torch.ones(2, 8), torch.tensor([0, 1])).item() == 3 * 4 * 16
    for wrong, message in (
        ({**entry, "sharpnes": 4}, r"losses\.mine\.sharpnes: .*Did you mean 'sharpness'\?"),
        ({**entry, "form": "r"}, r"losses\.mine\.form: found 'r'"),
    ):
        with pytest.raises(StudyError, match=message):
            check_study(with_loss(wrong), "my.yaml")


def test_a_user_s_loss_that_does_not_import_is_refused_until_it_does(write, answers):
    known = set(answers.iterdir())
    write("sharp", "import nothing_of_this_name\n")
    with pytest.raises(StudyError, match=r"mine: .*does not import: .*nothing_of_this_name"):
        check_study(with_loss({"type": SHARP}), "my.yaml")
    assert set(answers.iterdir()) == known  # the missing module may be installed later
    write("sharp", "def broken(:\n")
    with pytest.raises(StudyError, match=r"mine: .*own_losses\.sharp does not import: "):
        check_study(with_loss({"type": SHARP}), "my.yaml")
    write("sharp", SHARP_FILE)
    assert "mine" in runs_by_loss(with_loss({"type": SHARP}))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("sharp.Shrap", "Shrap is not there. Did you mean 'own_losses.sharp.Sharp'?"),
        ("sharp.NotALoss", "NotALoss is no subclass of dmlbench.losses.base.Loss."),
        ("sharp.Odd", "option 'at=<built-in function print>' needs an annotation of Literal"),
        ("lost.Sharp", "own_losses.lost does not import: ModuleNotFoundError"),
    ],
)
@pytest.mark.usefixtures("write")
def test_a_class_that_is_no_loss_is_refused_with_the_reason(name, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        _user_loss.describe(f"own_losses.{name}")


def test_a_class_of_an_installed_library_costs_no_digest_of_the_library(monkeypatch):
    digested = []
    monkeypatch.setattr(_catalogue, "code_digest", lambda *modules: digested.extend(modules))
    monkeypatch.setattr(_catalogue, "ask_once", lambda *_: {})
    _catalogue.own_loss.__wrapped__("torch.nn.CrossEntropyLoss")
    assert digested == ["dmlbench.losses._user_loss"]


@pytest.mark.usefixtures("write")
def test_options_that_a_loss_passes_to_its_base_class_are_options():
    options = _user_loss.describe("own_losses.sharp.Listed")
    assert options["extra"] == ["int"]
    assert options["margin"] == ["float", 0.4]
    assert options["form"] == ["Literal['cvpr', 'tpami', 'simpler']", "cvpr"]


def test_the_code_of_the_user_s_package_moves_only_the_key_of_the_user_s_loss(write, monkeypatch):
    monkeypatch.setattr(loss_options, "own_loss", lambda kind: {})  # the options do not matter
    settings = with_loss({"type": SHARP})
    before = read_keys(settings)
    write("sharp", SHARP_FILE + "\n    # a comment\n")
    assert moved_losses(before, read_keys(settings)) == set()
    write("sharp", SHARP_FILE + "\n    NEW = 1\n")
    assert moved_losses(before, read_keys(settings)) == {"mine"}
    write("sharp", SHARP_FILE)
    assert moved_losses(before, read_keys(settings)) == set()
    write("helper", "def scale(x):\n    return 4 * x\n")  # by a relative import
    assert moved_losses(before, read_keys(settings)) == {"mine"}
    write("helper", "import beside\ndef scale(x):\n    return 3 * x\n")
    before = read_keys(settings)
    write("../beside", "NEW = 1\n")
    assert moved_losses(before, read_keys(settings)) == {"mine"}


@pytest.mark.usefixtures("write")
def test_checking_a_study_with_a_user_s_loss_imports_no_torch():
    settings = with_loss({"type": SHARP})
    code = (
        "import sys; from dmlbench.study.study import check_study;"
        f"study = check_study({settings!r}, 'my.yaml');"
        "[run.train_key for run in study.runs.values()];"
        "print({'torch', 'pytorch_metric_learning', 'own_losses'} & set(sys.modules))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"
