"""Values and gradients are finite at the papers' temperatures, scales and margins."""

import pytest
import torch

from dmlbench.losses import list_losses
from dmlbench.losses._docs_page import header

NATIVE = [name for name in list_losses() if not header(name).wraps]
C, D, N = 7, 12, 21

PAPERS = {
    "htl": [{"squared": squared, "beta": 0.1} for squared in (True, False)],
    "softtriple": [
        {"la": la, "gamma": gamma, "margin": margin}
        for la, gamma, margin in (
            (20.0, 0.1, 0.01),
            (20.0, 0.01, 0.01),
            (78.02, 58.95, 0.4307),
            (100.0, 47.9, 0.3145),
            (100.0, 0.01, 0.5),
        )
    ],
    "hpl": [
        {"base": base, "coarse": coarse}
        for base in ("proxy_anchor", "proxynca_pp", "normalized_softmax", "softtriple")
        for coarse in ("learned", "centroid")
    ],
    "rll": [
        {"alpha": alpha, "margin": margin, "negative_temperature": temperature, **more}
        for alpha, margin in ((1.2, 0.4), (1.4, 0.2))
        for temperature in (0.0, 5.0, 10.0, 15.0, 20.0, 1000.0)
        for more in (
            {},
            {"weight_grad": True, "gallery_grad": True},
            {"anchor_weighting": "official", "pair_gradient": "distance", "blocks": 3},
        )
    ],
    "proxy_anchor": [{"alpha": alpha, "delta": 0.1} for alpha in (32.0, 64.0)],
    "normalized_softmax": [{"temperature": t} for t in (0.01, 0.05, 0.1)],
    "proxynca_pp": [{"temperature": 1 / scale} for scale in (1.0, 9.0, 32.0)],
    "proxygml": [{}, {"proxies_per_class": 1, "ratio": 1.0, "regularization": 0.0}],
    "lifted_structure": [{"margin": margin} for margin in (0.0, 1.0, 1000.0)],
    "smooth_ap": [{"temperature": t} for t in (0.001, 0.01, 0.1)],
    "recall_at_k": [{"temperature": t} for t in (0.001, 0.01, 0.1)],
    "hyp": [{"temperature": t, "curvature": c} for t in (0.02, 0.2) for c in (0.01, 0.1, 1.0)],
    "group_loss": [{"temperature": t, "anchors": n} for t, n in ((24.0, 2), (79.0, 3), (54.0, 2))],
}


@pytest.fixture
def degenerate_batches():
    """Embeddings (N, D) and labels of batches that a training meets, and of worse ones."""
    x, labels = torch.randn(N, D), torch.arange(C).repeat(3)
    copies = x[:C].repeat(3, 1)
    return {
        "random": (x, labels),
        "one class": (x, torch.full_like(labels, 2)),
        "no positives": (x[:C], labels[:C]),
        "one image": (x[:1], labels[:1]),
        "classes at points": (copies, labels),
        "copies in other classes": (copies, labels.roll(1)),
        "collapsed": (x[:1].expand_as(x), labels),
        "nearly collapsed": (x[:1] + 1e-4 * x, labels),
        "opposite": (x[:1] * (-1.0) ** labels[:, None], labels),
        "on an axis": (torch.eye(D)[labels], labels),
        "zeros": (x * (labels[:, None] > 2), labels),
        "long": (1e6 * x, labels),
        "short": (1e-6 * x, labels),
    }


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", NATIVE)
def test_values_and_gradients_are_finite(name, dtype, degenerate_batches, ready):
    for options in PAPERS[name]:
        loss = ready(name, C, D, **options)
        for case, (embeddings, labels) in degenerate_batches.items():
            x = embeddings.to(dtype, copy=True).requires_grad_()
            value = loss(x, labels)
            inputs = [x, *loss.parameters()]
            gradients = torch.autograd.grad(value, inputs, materialize_grads=True)
            assert value.isfinite(), (options, case)
            assert all(gradient.isfinite().all() for gradient in gradients), (options, case)


@pytest.mark.parametrize("name", ["softtriple", "hpl", "proxy_anchor", "normalized_softmax"])
def test_embeddings_on_a_proxy_and_merged_proxies_are_finite(name, ready):
    """There, a cosine is 1 up to rounding, so above it or below."""
    labels = torch.arange(C).repeat(3)
    for options in PAPERS[name]:
        loss = ready(name, C, D, **options)
        for parameter in loss.parameters():
            parameter.data = parameter.data[:1].expand_as(parameter).clone()
        x = next(loss.parameters()).detach().reshape(-1, D)[labels].requires_grad_()
        value = loss(x, labels)
        gradients = torch.autograd.grad(value, [x, *loss.parameters()], materialize_grads=True)
        assert value.isfinite(), options
        assert all(gradient.isfinite().all() for gradient in gradients), options
