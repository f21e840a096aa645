"""Losses that wrap pytorch-metric-learning give what direct calls of the library give."""

import inspect
import math

import pytest
import torch
from pytorch_metric_learning import distances, losses, miners, regularizers

from dmlbench.losses import create_loss, list_losses
from dmlbench.losses._docs_page import header
from dmlbench.losses._pml import UNFIT, catalogue

C, D = 6, 8
UNIT = torch.nn.functional.normalize


def arcface(margin, scale):
    return losses.ArcFaceLoss(C, D, margin=math.degrees(margin), scale=scale)


def dot():
    return distances.DotProductSimilarity(normalize_embeddings=False)


def squared_lengths():
    return regularizers.LpRegularizer(p=2, power=2)


def snr(weight, **margins):
    return losses.SignalToNoiseRatioContrastiveLoss(
        **margins,
        distance=distances.SNRDistance(normalize_embeddings=False),
        embedding_regularizer=regularizers.ZeroMeanRegularizer(),
        embedding_reg_weight=weight,
    )


def npairs(weight):
    return losses.NPairsLoss(
        distance=dot(), embedding_regularizer=squared_lengths(), embedding_reg_weight=weight
    )


def facenet(margin, power):
    return losses.TripletMarginLoss(margin, distance=distances.LpDistance(power=power))


def semihard(margin, power):
    return miners.TripletMarginMiner(
        margin, type_of_triplets="semihard", distance=distances.LpDistance(power=power)
    )


# name, options, the library's criterion and miner
DIRECT = [
    ("angular", {}, lambda: losses.AngularLoss(40), None),
    ("angular", {"alpha": 50.0}, lambda: losses.AngularLoss(50), None),
    ("arcface", {}, lambda: arcface(0.5, 64), None),
    ("arcface", {"margin": 0.1, "scale": 9.0}, lambda: arcface(0.1, 9), None),
    ("circle", {}, losses.CircleLoss, None),
    ("circle", {"margin": 0.25, "gamma": 256.0}, lambda: losses.CircleLoss(0.25, 256), None),
    ("contrastive", {}, losses.ContrastiveLoss, None),
    (
        "contrastive",
        {"positive_margin": 0.1, "negative_margin": 0.7},
        lambda: losses.ContrastiveLoss(0.1, 0.7),
        None,
    ),
    ("cosface", {}, lambda: losses.CosFaceLoss(C, D), None),
    (
        "cosface",
        {"margin": 0.1, "scale": 9.0},
        lambda: losses.CosFaceLoss(C, D, margin=0.1, scale=9),
        None,
    ),
    (
        "margin",
        {},
        lambda: losses.MarginLoss(learn_beta=True, num_classes=C),
        miners.DistanceWeightedMiner,
    ),
    (
        "margin",
        {"margin": 0.1, "beta": 0.9, "learn_beta": False, "mining": "all"},
        lambda: losses.MarginLoss(0.1, beta=0.9),
        None,
    ),
    ("multi_similarity", {}, losses.MultiSimilarityLoss, miners.MultiSimilarityMiner),
    ("npair", {}, lambda: npairs(0.005), None),
    ("npair", {"l2_weight": 0.1}, lambda: npairs(0.1), None),
    ("snr", {}, lambda: snr(0.005), None),
    (
        "snr",
        {"positive_margin": 0.1, "negative_margin": 0.5, "mean_weight": 0.1},
        lambda: snr(0.1, pos_margin=0.1, neg_margin=0.5),
        None,
    ),
    ("supcon", {}, losses.SupConLoss, None),
    ("supcon", {"temperature": 0.3}, lambda: losses.SupConLoss(0.3), None),
    ("triplet", {}, lambda: facenet(0.2, 2), lambda: semihard(0.2, 2)),
    (
        "triplet",
        {"margin": 0.1, "squared": False, "mining": "distance_weighted"},
        lambda: facenet(0.1, 1),
        miners.DistanceWeightedMiner,
    ),
]


def value_and_gradients(loss, embeddings, *others):
    torch.manual_seed(2)  # for losses that draw random numbers
    value = loss(embeddings, *others)
    inputs = [embeddings, *loss.parameters()]
    return value, torch.autograd.grad(value, inputs, materialize_grads=True)


def test_every_wrapped_loss_is_compared():
    wrapped = {name for name in list_losses() if header(name).wraps}
    assert {name for name, *_ in DIRECT} == wrapped


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("name", "options", "criterion", "miner"), DIRECT)
def test_value_and_gradients_equal_those_of_the_library(name, options, criterion, miner, dtype):
    labels = torch.arange(C).repeat_interleave(4)
    embeddings = torch.randn(len(labels), D, dtype=dtype) + 0.7 * torch.randn(C, D)[labels]
    embeddings = embeddings.to(dtype).requires_grad_()
    wrapped, direct, select = create_loss(name, C, D, **options), criterion(), miner and miner()
    direct.load_state_dict(wrapped.criterion.state_dict())

    def library(embeddings):
        if name == "angular":  # its negatives would have any length in the library
            embeddings = UNIT(embeddings)
        return direct(embeddings, labels, select(embeddings, labels) if select else None)

    library.parameters = direct.parameters
    value, gradients = value_and_gradients(wrapped, embeddings, labels)
    expected, expected_gradients = value_and_gradients(library, embeddings)
    assert value > 0
    tolerance = {torch.float32: 1e-5, torch.float64: 1e-12}[dtype]
    torch.testing.assert_close(value, expected, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(gradients, expected_gradients, rtol=tolerance, atol=10 * tolerance)


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("angular", {}, 1.23952613),
        ("arcface", {"margin": math.radians(28.6)}, 13.46549161),
        ("circle", {}, 60.97347406),
        ("circle", {"margin": 0.25, "gamma": 256.0}, 232.17328682),
        ("contrastive", {}, 1.68946869),
        ("cosface", {}, 11.45640646),
        ("margin", {"mining": "all"}, 0.57026301),
        ("npair", {"l2_weight": 0.0}, 0.70926605),
        ("supcon", {}, 3.08993314),
    ],
)
def test_oracle_values(name, options, expected, batch, at):
    loss = create_loss(name, 2, 2, **options)
    if name in ("arcface", "cosface"):
        loss.criterion.W.data = at(0, 90).T
    assert loss(*batch).item() == pytest.approx(expected, abs=2e-8)


def test_oracle_value_of_snr():
    embeddings = torch.tensor([[1, 0, 0], [0.8, 0.6, 0], [0, 1, 0], [-0.6, 0.8, 0]])
    loss = create_loss("snr", 2, 3, mean_weight=0.0)
    assert loss(embeddings.double(), torch.tensor([0, 0, 1, 1])).item() == pytest.approx(
        0.4972973, abs=1e-7
    )


def test_npair_and_snr_take_embeddings_at_their_length():
    labels = torch.arange(C).repeat_interleave(2)
    embeddings = torch.randn(len(labels), D)
    for name, options in (("npair", {"l2_weight": 0.0}), ("snr", {"mean_weight": 0.0})):
        loss = create_loss(name, C, D, **options)
        assert not torch.isclose(loss(embeddings, labels), loss(UNIT(embeddings), labels))


@pytest.mark.parametrize(("name", "factor"), [("margin", 50.0), ("cosface", 1.0), ("arcface", 1.0)])
def test_the_parameters_of_a_loss_have_their_own_learning_rate(name, factor):
    (group,) = create_loss(name, C, D).param_groups(0.01)
    assert group["lr"] == pytest.approx(0.01 * factor)
    assert [p.numel() for p in group["params"]] == [C if name == "margin" else C * D]


@pytest.mark.parametrize("name", ["arcface", "cosface"])
def test_embeddings_on_their_proxies_have_finite_gradients(name):
    loss = create_loss(name, 200, D)  # many cosines are rounded to 1 or above
    embeddings = loss.criterion.W.detach().T.clone().requires_grad_()
    loss(embeddings, torch.arange(200)).backward()
    assert embeddings.grad.isfinite().all()
    assert loss.criterion.W.grad.isfinite().all()


# Any other loss, by name

REQUIRED = {"RankedListLoss": {"margin": 0.4, "Tn": 10}}


@pytest.mark.filterwarnings("ignore::UserWarning:pytorch_metric_learning")
@pytest.mark.parametrize("name", sorted(catalogue()))
def test_every_offered_loss_of_the_library_trains(name):
    loss = create_loss(f"pml.{name}", C, D, **REQUIRED.get(name, {}))
    labels = torch.arange(C).repeat_interleave(4)
    embeddings = torch.randn(len(labels), D, requires_grad=True)
    value = loss(embeddings, labels)
    value.backward()
    assert value.shape == ()
    assert value.isfinite()
    assert embeddings.grad.any()
    assert embeddings.grad.isfinite().all()
    assert len(loss.param_groups(0.1)) == bool(list(loss.parameters()))


def test_only_losses_that_refuse_labels_are_not_offered():
    offered = {
        name
        for name, value in vars(losses).items()
        if inspect.isclass(value) and issubclass(value, losses.BaseMetricLossFunction)
    }
    assert offered - catalogue().keys() == UNFIT
    for refuses in (losses.VICRegLoss(), losses.ManifoldLoss(D)):
        with pytest.raises(ValueError, match="labels"):
            refuses(torch.randn(60, D), torch.arange(60))


def test_the_options_of_a_loss_by_name_are_those_of_its_constructor():
    options = catalogue()
    assert options["CircleLoss"] == {
        "m": ["int | float", 0.4],
        "gamma": ["int | float", 80],
        "lr_factor": ["float", 1.0],
    }
    # Its constructor hands num_classes and embedding_size on; users do not set them
    assert set(options["CosFaceLoss"]) == {"margin", "scale", "lr_factor"}
    assert options["CosFaceLoss"]["margin"] == ["int | float", 0.35]  # its base has 4
    assert options["RankedListLoss"]["Tn"] == ["int | float | bool | str"]
    # It inherits its margins from its base
    assert set(options["SignalToNoiseRatioContrastiveLoss"]) == {
        "pos_margin",
        "neg_margin",
        "lr_factor",
    }


def test_a_loss_by_name_gets_its_sizes_and_options():
    loss = create_loss("pml.SubCenterArcFaceLoss", C, D, margin=20, sub_centers=2, lr_factor=7.0)
    assert loss.criterion.W.shape == (D, 2 * C)
    assert loss.criterion.margin == pytest.approx(math.radians(20))
    (group,) = loss.param_groups(0.1)
    assert group["lr"] == pytest.approx(0.7)
    labels = torch.arange(C).repeat(2)
    embeddings = torch.randn(len(labels), D)
    value = create_loss("pml.FastAPLoss", C, D, num_bins=5)(embeddings, labels)
    assert torch.equal(value, losses.FastAPLoss(5)(embeddings, labels))


def test_sizes_that_a_loss_does_not_require_are_not_filled_in():
    # On a GPU, the library cannot look up values per class that are not learnt
    assert len(create_loss("pml.MarginLoss", C, D).criterion.beta) == 1
