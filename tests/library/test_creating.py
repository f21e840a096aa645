"""`dmlbench.create_loss` checks a loss's name, sizes and options as a study does."""

import numpy as np
import pytest
import torch

import dmlbench
from dmlbench import losses
from dmlbench.utils.errors import InvalidArgument, UserError

BOMB = ["x"]
for _ in range(9):
    BOMB = [BOMB] * 9  # 9^9 texts, which no message may write


def test_the_loss_is_that_of_the_package_with_the_same_numbers():
    torch.manual_seed(0)
    ours = dmlbench.create_loss("proxy_anchor", 5, 8, alpha=16)
    torch.manual_seed(0)
    theirs = losses.create_loss("proxy_anchor", 5, 8, alpha=16.0)
    batch = torch.randn(6, 8), torch.arange(6) % 5
    assert torch.equal(ours(*batch), theirs(*batch))
    assert repr(ours) == repr(theirs)


def test_sizes_may_be_numbers_of_numpy():
    loss = dmlbench.create_loss("softtriple", np.int64(5), embedding_dim=np.int32(8))
    assert loss.centers.shape == (5, 10, 8)


@pytest.mark.parametrize("convert", [list, np.int32, torch.tensor])
def test_super_classes_reach_the_loss(convert):
    parents = convert([[0, 0, 1, 1]])
    loss = dmlbench.create_loss("hpl", 4, 8, parents, hierarchy="given")
    assert loss.coarse[0].parent.tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("softripple", 5, 8), "no loss 'softripple'. Did you mean 'softtriple'"),
        (("pml.CircleLos", 5, 8), "no loss 'pml.CircleLos'. Did you mean 'pml.CircleLoss'"),
        (("HTL", 5, 8), "no loss 'HTL'. Did you mean 'htl'"),
        ((None, 5, 8), "name: found None, not a text"),
        ((torch.nn.CrossEntropyLoss, 5, 8), "name: found <class .*, not a text"),
        (
            ("htl", 5, 8, [0, 0, 1, 1, 1]),
            r"parents: they are int64 \(5,\), not integers \(levels, 5",
        ),
        (("htl", 5, 8, [[0, 0, 1]]), r"parents: they are int64 \(1, 3\), not integers \(levels, 5"),
        (("htl", 5, 8, [[0.5] * 5]), r"parents: they are float64 \(1, 5\), not integers"),
        (("htl", 5, 8, "ab"), r"parents: they are <U2 \(\), not integers"),
        (("nowhere.Mine", 5, 8), "no loss 'nowhere.Mine'. There is no module nowhere"),
        (("htl", 0, 8), "num_classes: found 0, not a whole number from 1 to 1,000,000,000"),
        (("htl", 5, 8.0), "embedding_dim: found 8.0, not a whole number from 1 to 1,000,000,000"),
        (("htl", True, 8), "num_classes: found True"),
        (("htl", 10**12, 8), "num_classes: found 1000000000000, not a whole number from 1 to"),
        (("htl", 5, 10**5000), "embedding_dim: found a number of thousands of digits, not a"),
        (("arcface", 10**9, 10**9), "arcface: it cannot be created for 1,000,000,000 classes"),
        (("triplet", 5, 8, None, {"margin": -1e300}), r"triplet.margin: found -1e\+300. Allowed:"),
        (("supcon", 5, 8, None, {"temperature": 1e-300}), "supcon.temperature: found 1e-300"),
        (("htl", 5, 8, None, {"levels": 10**9}), "htl.levels: found 1000000000. Allowed: .* 1,000"),
        (("htl", 5, 8, None, {"levels": BOMB}), r"htl.levels: found \[\[\["),
        ((BOMB, 5, 8), r"name: found \[\[\["),
        (("htl", BOMB, 8), r"num_classes: found \[\[\["),
        (("htl", "5", 8), "num_classes: found '5'"),
        (("hpl", 5, 8, None, {"hierarchy": "given"}), "hpl: hierarchy 'given' with levels 2 needs"),
        (("htl", 5, 8, None, {"level": 4}), r"htl.level: .*levels"),
        (("htl", 5, 8, None, {"levels": 0}), "htl.levels: found 0"),
        (("triplet", 5, 8, None, {"mining": "easy"}), "triplet.mining: found 'easy'"),
    ],
)
def test_a_wrong_argument_is_refused_with_its_name(arguments, message):
    *sizes, options = arguments if isinstance(arguments[-1], dict) else (*arguments, {})
    with pytest.raises(InvalidArgument, match=message) as caught:
        dmlbench.create_loss(*sizes, **options)
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, UserError)
