"""A loss that does not fit its options, the classes or the batches is known before any job."""

import re

import pytest

from dmlbench.losses import _trial
from dmlbench.losses._trial import Question, loss_problems

FITTING = Question("triplet", {}, 16, 20, 200, None, 40, 4)
OWN = """
import torch
from dmlbench.losses.base import Loss

class Fine(Loss):
    def __init__(self, num_classes, embedding_dim, parents=None, *, margin: float = 0.1):
        super().__init__()
        self.proxies = torch.nn.Parameter(torch.randn(num_classes, embedding_dim))

    def compute(self, embeddings, labels):
        return (embeddings - self.proxies[labels]).square().mean()

class WithoutParents(Fine):
    def __init__(self, num_classes, embedding_dim, *, margin: float = 0.1):
        super().__init__(num_classes, embedding_dim)

class GivesSizesToItsBase(Loss):
    def __init__(self, num_classes, embedding_dim, parents=None):
        super().__init__(num_classes, embedding_dim)

class Exits(Fine):
    def __init__(self, num_classes, embedding_dim, parents=None):
        raise SystemExit("bye")

class ExitsLater(Fine):
    def compute(self, embeddings, labels):
        raise SystemExit

class WithoutCompute(Loss):
    def __init__(self, num_classes, embedding_dim, parents=None):
        super().__init__()

class NeedsMore(Fine):
    def __init__(self, num_classes, embedding_dim, parents=None, *, margin: float = 0.1):
        super().__init__(num_classes, embedding_dim)
        if margin < 1:
            raise RuntimeError("margin must be at least 1")

class OneValueEach(Fine):
    def compute(self, embeddings, labels):
        return embeddings.sum(dim=1)

class OtherDimension(Fine):
    def compute(self, embeddings, labels):
        return (embeddings @ torch.zeros(3, 4)).sum()

class AfterRefresh(OneValueEach):
    def refresh(self, embed):
        return ()

class OwnBatches(OneValueEach):
    def batches(self, labels, steps, batch_size, seed, epoch):
        raise ValueError("it needs the true numbers of images")
"""


@pytest.fixture
def ask(tmp_path, monkeypatch):
    """The problem of a loss, found in this process."""
    (tmp_path / "losses_of_mine.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    return lambda **changes: _trial._problem(FITTING._replace(**changes))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"batch_size": 80},  # all classes
        {"images_per_class": None, "batch_size": 50},
        {"type": "htl", "batch_size": 48},
        {
            "type": "hpl",
            "options": {"hierarchy": "given"},
            "parents": [[n // 2 for n in range(20)]],
        },
        {"type": "pml.ArcFaceLoss"},
        {"type": "losses_of_mine.Fine"},
        {"type": "losses_of_mine.AfterRefresh"},  # it may need embeddings of the training set
        {"type": "losses_of_mine.OwnBatches"},
        {"type": "losses_of_mine.OneValueEach", "batch_size": 1000, "classes": 250},  # not tried
    ],
)
def test_a_loss_that_fits_has_no_problem(ask, changes):
    assert ask(**changes) == ""


PROBLEMS = {
    "options": (
        {"type": "rll", "options": {"margin": 1.5, "alpha": 1.0}},
        r"margin 1\.5 is above alpha 1\.0$",
    ),
    "groups": (
        {"type": "hpl", "options": {"coarse_proxies": 21}},
        r"coarse_proxies 21 is more than 20 classes$",
    ),
    "levels": (
        {"type": "hpl", "options": {"hierarchy": "given"}},
        r"hierarchy 'given' with levels 2 needs .* 1 level.* super-classes, and this has 0$",
    ),
    "super-classes that are no tree": (
        {
            "type": "hpl",
            "options": {"hierarchy": "given", "levels": 3},
            "parents": [[n // 2 for n in range(20)], [n % 2 for n in range(20)]],
        },
        r"level_2 divides super-classes of level_1: no tree$",
    ),
    "classes of a batch": (
        {"batch_size": 84},
        r"recipe\.batch_size: 84 / images_per_class 4 = 21 classes a batch, and there are 20 to "
        r"train on\. Take batch_size: 80 or less, or images_per_class: null$",
    ),
    "own batches of a loss": (
        {"type": "htl", "batch_size": 96, "images_per_class": None},
        r"batch_size 96 / images_per_class 4 = 24 classes, but there are 20\. Take another",
    ),
    "constructor": (
        {"type": "losses_of_mine.WithoutParents", "options": {"margin": 0.2}},
        r"it cannot be created with num_classes=20, embedding_dim=16 and options "
        r"\{'margin': 0\.2\}: TypeError: .* Its constructor must be as here, .*: def __init__",
    ),
    "error of the constructor": (
        {"type": "losses_of_mine.NeedsMore", "options": {"margin": 0.2}},
        r"it cannot be created with .*: RuntimeError: margin must be at least 1, in line \d+ of "
        r"losses_of_mine\.py: raise RuntimeError\(\"margin must be at least 1\"\)$",
    ),
    "call inside the constructor": (
        {"type": "losses_of_mine.GivesSizesToItsBase"},
        r".*: TypeError: .* given, in line \d+ of losses_of_mine\.py: "
        r"super\(\)\.__init__\(num_classes, embedding_dim\)$",
    ),
    "exit of the constructor": (
        {"type": "losses_of_mine.Exits"},
        r".*: SystemExit: bye, in line \d+ of losses_of_mine\.py: raise SystemExit\(\"bye\"\)$",
    ),
    "exit of the first step": (
        {"type": "losses_of_mine.ExitsLater"},
        r"its first step fails, .*\{\}: SystemExit$",
    ),
    "no compute": (
        {"type": "losses_of_mine.WithoutCompute"},
        r"its first step fails, .*\{\}: NotImplementedError$",
    ),
    "option of a library's loss": (
        {"type": "pml.SupConLoss", "options": {"nothing": 1}},
        r"it cannot be created with .*: TypeError: .*'nothing'$",
    ),
    "value of a library's loss": (
        {"type": "pml.TripletMarginLoss", "options": {"triplets_per_anchor": "foo"}},
        r"its first step fails, with embeddings of shape \(40, 16\) and options .*: TypeError",
    ),
    "many values": (
        {"type": "losses_of_mine.OneValueEach"},
        r"compute must return one number, a tensor of shape \(\), and gives \(40,\)$",
    ),
    "dimension": (
        {"type": "losses_of_mine.OtherDimension"},
        r"its first step fails, .*\(40, 16\) .*: RuntimeError: .*40x16 and 3x4",
    ),
}


@pytest.mark.parametrize("case", PROBLEMS)
def test_a_loss_that_does_not_fit_has_a_problem_in_words(ask, case):
    changes, message = PROBLEMS[case]
    assert re.match(message, ask(**changes)), ask(**changes)


def test_another_process_answers_and_its_answer_is_remembered(monkeypatch, tmp_path):
    monkeypatch.setenv("DMLBENCH_CACHE", str(tmp_path / "cache"))
    wrong = FITTING._replace(type="rll", options={"margin": 1.5, "alpha": 1.0})
    assert loss_problems([FITTING, wrong, FITTING]) == ["", "margin 1.5 is above alpha 1.0", ""]
    monkeypatch.setattr(_trial, "__name__", "dmlbench.no_such_module")
    assert loss_problems([FITTING]) == [""]
