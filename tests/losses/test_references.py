"""Value and gradient of every native loss equal the formulas of its paper, written as loops."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from dmlbench.losses import create_loss, list_losses
from dmlbench.losses._docs_page import header
from tests.losses.plain_numbers import AtKink, derivatives, distance, positive_part, sigmoid

NATIVE = [name for name in list_losses() if not header(name).wraps]

# Values and not ranges, since hypothesis would often choose the ends. Defaults come first.
OPTIONS = {
    "htl": {
        "levels": [16, 7, 2, 1],
        "beta": [0.1, 0.37, 0.0],
        "initial_margin": [0.2, 0.9],
        "tree_linkage": ["single", "average"],
        "squared": [True, False],
        "warmup_epochs": [0, 0, 1],
    },
    "softtriple": {
        "centers_per_class": [3, 2, 1],
        "la": [20.0, 78.0, 3.0],
        "gamma": [0.1, 0.01, 1.0],
        "tau": [0.2, 0.7, 0.0],
        "margin": [0.01, 0.4, 0.0],
    },
    "rll": {
        "alpha": [None, 1.4, 1.2, 1.7],
        "margin": [0.4, 0.2, 1.2, 0.0],
        "negative_temperature": [10.0, 0.0, 1.0, 20.0, 1000.0],
        "positive_temperature": [0.0, 1.0, 10.0],
        "form": ["cvpr", "tpami", "simpler"],
        "la": [None, 0.3, 0.0, 1.0],
        "pair_gradient": ["unit", "distance"],
        "anchor_weighting": ["uniform", "official"],
        "blocks": [1, 2, 3],
        "gallery_grad": [False, True],
        "weight_grad": [False, True],
    },
    "proxy_anchor": {"alpha": [32.0, 8.0, 1.0], "delta": [0.1, 0.4, 0.0]},
    "normalized_softmax": {"temperature": [0.05, 0.01, 0.3, 1.0]},
    "proxynca_pp": {"temperature": [1 / 9, 0.01, 0.3, 1.0]},
    "hpl": {
        "base": ["proxy_anchor", "proxynca_pp", "normalized_softmax", "softtriple"],
        "levels": [2, 3, 1],
        "coarse": ["learned", "centroid"],
        "hierarchy": ["given", "kmeans"],
        "omega": [0.1, 2.0],
        "omega_ratio": [1.0, 0.5],
        "warmup_epochs": [0, 0, 1],
        "alpha": [32.0, 8.0],
        "temperature": [None, 0.3],
        "centers_per_class": [2, 1],
        "tau": [0.2, 0.7],
    },
    "proxygml": {
        "proxies_per_class": [3, 1, 2],
        "ratio": [0.05, 0.7, 1.0],
        "regularization": [0.3, 0.0, 2.0],
    },
    "lifted_structure": {"margin": [1.0, 0.4, 0.0, 3.0]},
    "smooth_ap": {"temperature": [0.01, 0.05, 0.3, 1.0]},
    "recall_at_k": {
        "temperature": [0.01, 0.05, 0.3],
        "list_temperature": [1.0, 0.3],
        "largest_k": [16, 4, 1],
        "positives": [16, 2, 1],
    },
    "hyp": {
        "temperature": [0.2, 0.05, 1.0],
        "curvature": [0.1, 0.01, 1.0],
        "radius": [2.3, 0.5, 2.5],
    },
    "group_loss": {"temperature": [24.0, 1.0, 79.0], "anchors": [2, 1, 0], "steps": [1, 2, 0]},
}
KINDS = ["mixed"] * 5 + ["copies"] * 4 + ["few", "one_class", "no_positives"]


@st.composite
def batches(draw):
    """Embeddings of any length (N, D), some of equal direction, and labels of a few classes."""
    # The numbers come from a generator: hypothesis would choose many zeros and repeats
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    classes, dim = random.integers(2, 5), random.choice([2, 3, 4, 6])
    kind = draw(st.sampled_from(KINDS))
    if kind == "no_positives":
        labels = random.permutation(classes)
    elif kind == "one_class":
        classes = random.integers(1, 5)
        labels = np.full(random.integers(1, 9), random.integers(classes))
    else:
        size = random.integers(1, 5) if kind == "few" else random.integers(5, 9)
        labels = random.choice(classes, size, p=random.dirichlet(np.full(classes, 2)))
    lengths = random.lognormal(size=(len(labels), 1))
    embeddings = random.normal(size=(len(labels), dim))
    if kind == "copies":
        embeddings[:3] = embeddings[random.integers(len(labels), size=3)]
    return lengths * embeddings, labels.tolist(), int(classes), random


def consistent(name, options, dim):
    """The options, changed where they do not fit each other."""
    if name == "rll":
        if options["form"] == "simpler":
            options |= {"alpha": None, "la": None, "positive_temperature": 0.0}
        if dim % options["blocks"]:
            options["blocks"] = 1
    return options


def htl(references, loss, options, random, parents):
    """HTL with the margins of a tree of other images, or with the margin before the first tree.

    The classes of the tree have one to four images.
    """
    classes = parents.shape[1]
    labels = np.repeat(np.arange(classes), random.integers(1, 5, size=classes))
    images = random.normal(size=(classes, len(loss.means[0])))[labels]
    images += 0.5 * random.normal(size=images.shape)
    loss.refresh(lambda: (functional.normalize(torch.tensor(images)), torch.tensor(labels)))
    if options["warmup_epochs"]:
        pairs = [(a, n) for a in range(classes) for n in range(classes)]
        margins = dict.fromkeys(pairs, options["initial_margin"])
    else:
        margins = references.htl_margins(
            images.tolist(),
            labels.tolist(),
            beta=options["beta"],
            levels=options["levels"],
            linkage=options["tree_linkage"],
        )
    return partial(references.htl, margins=margins, squared=options["squared"])


def softtriple(references, loss, options, random, parents):
    options = {key: value for key, value in options.items() if key != "centers_per_class"}
    return partial(references.softtriple, **options)


def proxygml(references, loss, options, random, parents):
    options = {key: value for key, value in options.items() if key != "proxies_per_class"}
    return partial(references.proxygml, **options)


def rll(references, loss, options, random, parents):
    """RLL with the papers' alpha and shares, which the defaults of its options mean."""
    options = dict(options)
    form, la = options.pop("form"), options.pop("la")
    if options["alpha"] is None:
        options["alpha"] = 1 + options["margin"] / 2
    if form == "cvpr":
        shares = 1.0, 1.0 if la is None else la
    else:
        shares = (0.5, 0.5) if la is None else (1 - la, la)
    positive, negative = shares
    return partial(references.rll, **options, positive_share=positive, negative_share=negative)


def hpl(references, loss, options, random, parents):
    """HPL on groups that are given or found by the loss; on no groups before the first grouping."""
    loss.refresh(pytest.fail)
    if options["hierarchy"] == "given":
        rows = parents[: options["levels"] - 1] if options["warmup_epochs"] == 0 else []
        groups = [np.unique(row, return_inverse=True)[1].tolist() for row in rows]
    else:
        groups = loss.artefact().get("parents", [])
    bases = {
        "proxy_anchor": partial(references.proxy_anchor, alpha=options["alpha"], delta=0.1),
        "proxynca_pp": partial(references.proxynca_pp, temperature=options["temperature"] or 1 / 9),
        "normalized_softmax": partial(
            references.normalized_softmax, temperature=options["temperature"] or 0.05
        ),
        "softtriple": partial(
            references.hpl_softtriple, la=20.0, gamma=0.1, tau=options["tau"], margin=0.01
        ),
    }
    weights = [options["omega"] * options["omega_ratio"] ** level for level in range(len(groups))]
    return partial(references.hpl, parents=groups, weights=weights, base=bases[options["base"]])


def group_loss(references, loss, options, random, parents):
    def reference(**inputs):
        linear = {key: inputs.pop(f"classifier.{key}") for key in ("weight", "bias")}
        return references.group_loss(**inputs, **linear, **options)

    return reference


SPECIAL = {
    "htl": htl,
    "softtriple": softtriple,
    "proxygml": proxygml,
    "rll": rll,
    "hpl": hpl,
    "group_loss": group_loss,
}


def arguments(numbers, shapes):
    """Nested lists of the given shapes, filled in order."""
    numbers = iter(numbers)

    def fill(shape):
        return [fill(shape[1:]) for _ in range(shape[0])] if shape else next(numbers)

    return {name: fill(shape) for name, shape in shapes.items()}


def test_derivatives_are_exact_to_rounding():
    def function(numbers):
        x, y = numbers
        return sigmoid(x / y) * distance([x, y], [y, x])

    x, y = 0.3, 0.7
    logistic, apart = 1 / (1 + math.exp(-x / y)), math.sqrt(2) * (y - x)
    slope = logistic * (1 - logistic) * apart
    expected = [slope / y - math.sqrt(2) * logistic, -slope * x / y**2 + math.sqrt(2) * logistic]
    assert derivatives(function, [x, y]) == pytest.approx(expected, rel=1e-14)


def test_a_hinge_lacks_a_derivative_at_its_kink_alone():
    for x, slope in ((-0.1, 0), (0.1, 1)):
        assert derivatives(lambda numbers: positive_part(*numbers), [x]) == [slope]
    with pytest.raises(AtKink):
        derivatives(lambda numbers: positive_part(*numbers), [1e-9])
    assert positive_part(1e-9) == 1e-9


@pytest.mark.parametrize("name", NATIVE)
@settings(max_examples=200, deadline=None, derandomize=True, database=None)
@given(data=st.data(), batch=batches())
def test_value_and_gradient_equal_the_formulas_of_the_paper(name, references, data, batch):
    embeddings, labels, classes, random = batch
    options = {key: data.draw(st.sampled_from(values)) for key, values in OPTIONS[name].items()}
    options = consistent(name, options, embeddings.shape[1])
    # Two groups at the first level, one at the second
    parents = random.integers(2, size=(1, classes)) * [[7], [0]] + [[3], [5]]
    loss = create_loss(
        name, classes, embeddings.shape[1], torch.tensor(parents), **options
    ).double()
    special = SPECIAL.get(name)
    reference = (
        special(references, loss, options, random, parents)
        if special
        else partial(getattr(references, name), **options)
    )
    inputs = {"embeddings": torch.tensor(embeddings)}
    for key, parameter in loss.named_parameters():
        parameter.data = inputs[key] = torch.tensor(random.normal(size=parameter.shape))

    x = inputs["embeddings"].clone().requires_grad_()
    value = loss(x, torch.tensor(labels))
    gradients = torch.autograd.grad(value, [x, *loss.parameters()], materialize_grads=True)
    gradient = torch.cat([g.flatten() for g in gradients]).numpy()
    assert np.isfinite(gradient).all()

    shapes = {key: tensor.shape for key, tensor in inputs.items()}
    numbers = [number for tensor in inputs.values() for number in tensor.flatten().tolist()]
    assert len(numbers) == sum(map(math.prod, shapes.values()))

    def evaluate(numbers):
        return reference(labels=labels, **arguments(numbers, shapes))

    assert value.item() == pytest.approx(complex(evaluate(numbers)).real, rel=1e-9, abs=1e-9)
    try:
        expected = derivatives(evaluate, numbers)
    except AtKink:
        return
    largest = max(1.0, np.abs(expected).max())
    np.testing.assert_allclose(gradient / largest, np.divide(expected, largest), rtol=0, atol=1e-9)
