import math
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from dmlbench.losses import create_loss
from dmlbench.losses.base import distances, pair_masks


def rll(dim=2, **options):
    return create_loss("rll", 5, dim, **options)


def gradient(loss, embeddings, labels):
    embeddings = embeddings.clone().requires_grad_()
    return torch.autograd.grad(loss(embeddings, labels), embeddings)[0]


def tangential(vectors, points):
    """The part of gradients at unit `points` that passes through the normalisation."""
    vectors = torch.as_tensor(vectors, dtype=torch.float64)
    return vectors - (vectors * points).sum(dim=1, keepdim=True) * points


def reference(x, labels, alpha, margin, t_n, t_p, shares, options):
    """The papers' formulas, query by query; a tensor with a gradient."""
    unit = functional.normalize(x)
    values, totals = [], []
    for i, query in enumerate(unit):
        pairs = {"p": [], "n": []}
        for j, other in enumerate(unit):
            other = other if options["gallery_grad"] else other.detach()
            d = torch.linalg.vector_norm(query - other)
            radius = alpha - margin if labels[j] == labels[i] else alpha
            hinge = d - radius
            if options["pair_gradient"] == "distance":
                hinge = (d**2 - radius**2) / 2
            at = d if options["weight_grad"] else d.detach()
            if j != i and labels[j] == labels[i] and d > radius:
                pairs["p"].append((hinge, torch.exp(t_p * (at - radius))))
            elif labels[j] != labels[i] and d < radius:
                pairs["n"].append((-hinge, torch.exp(t_n * (radius - at))))
        value = torch.zeros((), dtype=x.dtype)
        for part, share in zip(pairs.values(), shares, strict=True):
            for hinge, weight in part:
                value = value + share * hinge * weight / sum(w for _, w in part)
        values.append(value)
        totals.append(sum((w for _, w in (*pairs["p"], *pairs["n"])), torch.zeros_like(value)))
    if options["anchor_weighting"] == "uniform":
        return sum(values) / len(x)
    weighted = sum(v * t for v, t in zip(values, totals, strict=True))
    return weighted / sum(totals) if sum(totals) > 0 else sum(values)


def test_oracle_value_and_gradient(batch):
    x, _ = batch
    assert rll()(*batch).item() == pytest.approx(0.7482877361, abs=1e-10)
    assert rll(form="tpami")(*batch).item() == pytest.approx(0.3741438680, abs=1e-10)
    expected = tangential(
        [
            (0.125, -0.2165063509),
            (-0.3664814566, 0.2812111122),
            (0.4182581519, 0.1120719340),
            (-0.1767766953, -0.1767766953),
        ],
        x,
    )
    torch.testing.assert_close(gradient(rll(), *batch), expected, rtol=0, atol=1e-9)
    both = gradient(rll(gallery_grad=True), *batch)
    torch.testing.assert_close(both, 2 * expected, rtol=0, atol=1e-9)


def test_each_query_has_the_positive_and_negative_part_of_the_paper(batch):
    x, labels = batch
    positive, negative = pair_masks(labels)
    pull, _ = rll()._mean_violation(distances(x, x), positive, 1, 0.8, 0)
    assert pull.tolist() == pytest.approx([0.2, 0.2, 0.6142135624, 0.6142135624], abs=1e-9)
    push, _ = rll()._mean_violation(distances(x, x), negative, -1, 1.2, 10)
    assert push.tolist() == pytest.approx([0, 0.6823619098, 0.6823619098, 0], abs=1e-9)


def test_embeddings_that_nearly_coincide_have_equal_gradients_in_float32_and_float64(at):
    """Otherwise a collapsed network could not leave its point."""
    x, labels = at(*(0.1 * i for i in range(5))), torch.arange(5)
    close, exact = gradient(rll(), x.float(), labels), gradient(rll(), x, labels)
    torch.testing.assert_close(close.double(), exact, rtol=0, atol=0.1 * exact.norm().item())


def test_the_gradient_equals_that_of_the_authors_code_of_2020(batch):
    """Queries have the sums of their pairs' raw weights: .00054, .49946, .49946, .00054."""
    x, _ = batch
    expected = tangential(
        [
            (1.3568e-4, -2.3500e-4),
            (-0.3660830797, 0.2809055380),
            (0.4178035753, 0.1119502876),
            (-1.9188e-4, -1.9188e-4),
        ],
        x,
    )
    actual = gradient(rll(form="tpami", anchor_weighting="official"), *batch)
    # The authors divide by d + 1e-6, which changes the seventh digit
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(actual, expected, rtol=3e-6, atol=1e-8)


@pytest.mark.parametrize(
    ("dim", "alpha", "margin", "clusters", "spread", "low", "high"),
    [(512, 1.4, 0.2, 20, 0, 0.86, 0.97), (64, 1.2, 0.4, 60, 0.3, 0.62, 0.85)],
)
def test_the_header_says_how_far_uniform_weights_are_from_the_authors_code(
    dim, alpha, margin, clusters, spread, low, high
):
    """Cosines between gradients, of ten batches of clusters with three images each."""
    labels = torch.arange(clusters).repeat_interleave(3)
    cosines = []
    for seed in range(10):
        normal = partial(torch.randn, generator=torch.Generator().manual_seed(seed))
        x = normal(clusters, dim)[labels] + spread * normal(3 * clusters, dim)
        x = functional.normalize(x.double())
        options = {"form": "tpami", "alpha": alpha, "margin": margin}
        uniform, official = (
            gradient(create_loss("rll", clusters, dim, anchor_weighting=way, **options), x, labels)
            for way in ("uniform", "official")
        )
        cosines.append(functional.cosine_similarity(uniform.flatten(), official.flatten(), dim=0))
    cosines = torch.stack(cosines)
    assert low <= cosines.min()
    assert cosines.median() <= high


def test_the_gradient_of_a_pair_is_its_distance_in_the_code_of_2019(batch):
    """Query 1 has an active pair of each kind, at distances 1 and .5176; queries 0 and 3 have 1."""
    x, _ = batch
    options = {"form": "tpami", "anchor_weighting": "official", "pair_gradient": "distance"}
    actual = gradient(rll(**options), *batch)
    weight = torch.tensor([1, 1 + math.exp(10 * (1.2 - 2 * math.sin(math.radians(15))))])
    weight = (weight / weight.sum() / 2 / 2).double()  # two queries of each; half of each part
    expected = torch.stack(
        [
            weight[0] * (x[0] - x[1]),
            weight[1] * ((x[1] - x[0]) - (x[1] - x[2])),
            weight[1] * ((x[2] - x[3]) - (x[2] - x[1])),
            weight[0] * (x[3] - x[2]),
        ]
    )
    torch.testing.assert_close(actual, tangential(expected, x), rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize(
    ("temperature", "parts"),
    [
        (0.0, (0.6843316790, 0.8540252121, 0.9103652679, 0.6836750893)),
        (1.0, (0.7124159103, 0.8832074132, 0.9171948745, 0.7025049995)),
        (10.0, (0.8414804037, 1.0149520601, 0.9804033348, 0.8176676189)),
    ],
)
def test_oracle_values_of_negative_weights(at, temperature, parts):
    x, labels = at(0, 10, 20, 40), torch.tensor([0, 0, 1, 2])
    value = rll(negative_temperature=temperature)(x, labels).item()
    assert value == pytest.approx(sum(parts) / 4, abs=1e-9)


def test_an_extreme_temperature_selects_the_nearest_negative(at):
    x, labels = at(0, 10, 20, 40), torch.tensor([0, 0, 1, 2])
    nearest = [2 * math.sin(math.radians(a / 2)) for a in (20, 10, 10, 20)]
    for dtype in (torch.float32, torch.float64):
        value = rll(negative_temperature=1e3)(x.to(dtype), labels)
        assert value.item() == pytest.approx(1.2 - sum(nearest) / 4, abs=1e-6)


@pytest.mark.parametrize(
    ("attached", "expected"),
    [(False, (-0.0448149495, 0.2458260310)), (True, (-0.0402482031, 0.2470496870))],
)
def test_oracle_gradient_of_a_query_with_weights_fixed_or_not(at, attached, expected):
    x, labels = at(0, 10, 20, 40), torch.tensor([0, 0, 1, 2])
    actual = gradient(rll(weight_grad=attached), x, labels)[0]
    torch.testing.assert_close(actual, tangential([expected], x[:1])[0], rtol=0, atol=1e-9)


def test_without_violations_value_and_gradient_are_zero(at):
    x, labels = at(0, 40, 180, 220), torch.tensor([0, 0, 1, 1])
    assert rll()(x, labels).item() == 0
    assert not gradient(rll(), x, labels).any()


def test_the_margin_sets_alpha_in_rll_simpler(batch):
    simpler = rll(form="simpler", margin=0.4)
    assert torch.equal(simpler(*batch), rll(form="tpami", alpha=1.2, margin=0.4)(*batch))
    assert torch.equal(rll(margin=0.4)(*batch), rll(alpha=1.2, margin=0.4)(*batch))
    assert torch.equal(rll(margin=0.6)(*batch), rll(alpha=1.3, margin=0.6)(*batch))


def test_the_margin_sets_the_positive_radius(at):
    x, labels = at(0, 60), torch.tensor([0, 0])  # distance 1
    assert rll(alpha=1.2, margin=1.2)(x, labels).item() == pytest.approx(1.0)
    assert rll(alpha=0.9, margin=0.0)(x, labels).item() == pytest.approx(0.1)
    x, labels = at(0, 60), torch.tensor([0, 1])
    assert rll(alpha=1.1, margin=0.0)(x, labels).item() == pytest.approx(0.1)


@pytest.mark.parametrize("labels", [[0, 0, 1], [0, 1, 1]])
def test_duplicates_have_no_gradient_between_them(at, labels):
    # Two at one point, and one opposite, which is too far for a negative
    loss = rll(alpha=1.2, margin=1.2, gallery_grad=True)
    actual = gradient(loss, at(0, 0, 180), torch.tensor(labels))
    assert actual.isfinite().all()
    torch.testing.assert_close(actual, torch.zeros_like(actual))


def test_one_image_per_class_gives_no_positive_part(at):
    value = rll()(at(0, 60), torch.tensor([0, 1]))
    assert value.item() == pytest.approx(0.2)


def test_the_order_of_the_batch_does_not_matter():
    x, labels = torch.randn(10, 3, dtype=torch.float64), torch.arange(10) % 3
    order = torch.randperm(10)
    loss = rll(dim=3)
    torch.testing.assert_close(
        gradient(loss, x[order], labels[order]), gradient(loss, x, labels)[order]
    )


def test_pairs_on_their_radius_have_no_gradient():
    x = torch.tensor([[1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    # By the loss's own arithmetic: some builds of torch round the root of 2 differently
    right_angle = distances(x, x)[0, 1].item()
    assert right_angle == pytest.approx(math.sqrt(2), rel=1e-15)
    for labels in ([0, 1], [0, 0]):
        loss = rll(alpha=right_angle, margin=0.0)
        assert not gradient(loss, x, torch.tensor(labels)).any()


@settings(max_examples=40, deadline=None)
@given(
    n=st.integers(1, 9),
    classes=st.integers(1, 4),
    seed=st.integers(0, 2**31),
    t_n=st.sampled_from([0.0, 3.0, 10.0]),
    t_p=st.sampled_from([0.0, 2.0]),
    tpami=st.booleans(),
    options=st.fixed_dictionaries(
        {
            "weight_grad": st.booleans(),
            "gallery_grad": st.booleans(),
            "pair_gradient": st.sampled_from(["unit", "distance"]),
            "anchor_weighting": st.sampled_from(["uniform", "official"]),
        }
    ),
)
def test_value_and_gradient_agree_with_a_loop(n, classes, seed, t_n, t_p, tpami, options):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 3, dtype=torch.float64, generator=generator).requires_grad_()
    labels = torch.randint(classes, (n,), generator=generator)
    loss = rll(
        dim=3,
        alpha=1.3,
        margin=0.5,
        negative_temperature=t_n,
        positive_temperature=t_p,
        form="tpami" if tpami else "cvpr",
        la=0.3,
        **options,
    )
    shares = (0.7, 0.3) if tpami else (1.0, 0.3)
    expected = reference(x, labels, 1.3, 0.5, t_n, t_p, shares, options)
    torch.testing.assert_close(loss(x, labels), expected, rtol=1e-10, atol=1e-12)
    if expected.requires_grad:
        torch.testing.assert_close(
            gradient(loss, x.detach(), labels),
            torch.autograd.grad(expected, x)[0],
            atol=1e-9,
            rtol=1e-7,
        )


def test_official_weights_do_not_overflow(batch):
    loss = rll(anchor_weighting="official", negative_temperature=1e4)
    for dtype in (torch.float32, torch.float64):
        x = batch[0].to(dtype)
        assert loss(x, batch[1]).isfinite()
        assert gradient(loss, x, batch[1]).isfinite().all()


def test_the_losses_of_the_blocks_are_added():
    x, labels = torch.randn(12, 6, dtype=torch.float64), torch.arange(12) % 4
    block_loss = rll(dim=2)
    expected = sum(block_loss(part, labels) for part in x.split(2, dim=1))
    loss = rll(dim=6, blocks=3)
    torch.testing.assert_close(loss(x, labels), expected)
    # Each block is set to unit length, so its length does not matter
    longer = x * torch.tensor([1.0, 1, 7, 7, 0.2, 0.2], dtype=torch.float64)
    torch.testing.assert_close(loss(longer, labels), expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dim": 8, "blocks": 3}, "blocks 3 does not divide the dimension 8"),
        ({"margin": 0.5, "alpha": 0.4}, "margin 0.5 is above alpha 0.4"),
        ({"form": "simpler", "alpha": 1.2}, "form 'simpler' has no alpha, la and positive"),
        ({"form": "simpler", "la": 0.5}, "form 'simpler' has no alpha, la and positive"),
        ({"form": "simpler", "positive_temperature": 1.0}, "form 'simpler' has no alpha"),
        ({"form": "tpami", "la": 1.5}, "la 1.5 is above 1: form 'tpami' weighs positives by 1"),
    ],
)
def test_inconsistent_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        rll(**options)
