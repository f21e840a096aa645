import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dmlbench.losses import create_loss


def group_loss(weight, bias=None, **options):
    """Group Loss with the classifier `weight` (C, D) and `bias` (C,), which is 0 if None."""
    loss = create_loss("group_loss", *weight.shape, **options).double()
    with torch.no_grad():
        loss.classifier.weight.copy_(weight)
        loss.classifier.bias.copy_(torch.zeros(len(weight)) if bias is None else bias)
    return loss


def rows(*vectors):
    return torch.tensor(vectors, dtype=torch.float64)


def softmax(values):
    exponentials = [torch.exp(v - max(values)) for v in values]
    return [e / sum(exponentials) for e in exponentials]


def reference(x, labels, weight, bias, temperature, anchors, steps):
    """The authors' formulas, image by image; a tensor with a gradient."""
    n, classes = len(x), range(len(weight))
    logits = [[weight[c] @ row + bias[c] for c in classes] for row in x]
    beliefs, seen = [], dict.fromkeys(classes, 0)
    for i, y in enumerate(labels):
        seen[y] += 1
        one_hot = [torch.tensor(float(c == y), dtype=x.dtype) for c in classes]
        prior = softmax([v / temperature for v in logits[i]])
        beliefs.append(one_hot if seen[y] <= anchors else prior)
    centred = [row - row.mean() for row in x]
    w = [[torch.clamp(a @ b / (a.norm() * b.norm()), min=0) for b in centred] for a in centred]
    for _ in range(steps):
        support = [
            [beliefs[i][c] * sum(w[i][j] * beliefs[j][c] for j in range(n)) for c in classes]
            for i in range(n)
        ]
        beliefs = [[v / sum(row) for v in row] for row in support]
    refined = -sum(torch.log(beliefs[i][y] + 1e-12) for i, y in enumerate(labels)) / n
    return refined - sum(torch.log(softmax(logits[i])[y]) for i, y in enumerate(labels)) / n


def test_oracle_value_by_hand():
    """Two images of class 0 with correlation 1/2. The first is an anchor; X_1 = (1/2, 1/2).

    One step: W X = (1/2 + 1/2, 1/2), so X_1 = (1/2, 1/4) / (3/4). The second: W X = (4/3, 1/3).
    """
    x, labels = rows([1, 0, -1], [1, -1, 0]), torch.tensor([0, 0])
    for steps, belief in ((0, 1 / 2), (1, 2 / 3), (2, 7 / 8)):
        loss = group_loss(torch.zeros(2, 3), anchors=1, steps=steps)
        expected = -math.log(belief) / 2 + math.log(2)
        assert loss(x, labels).item() == pytest.approx(expected, abs=1e-11)


def test_a_negative_correlation_counts_as_none():
    x, labels = rows([1, 0, -1], [-1, 0, 1]), torch.tensor([0, 0])
    loss = group_loss(torch.zeros(2, 3), anchors=1)
    assert loss(x, labels).item() == pytest.approx(1.5 * math.log(2), abs=1e-11)


def test_length_and_offset_of_embeddings_do_not_change_their_similarity():
    x, labels = torch.randn(6, 4, dtype=torch.float64), torch.arange(6) % 2
    loss = group_loss(torch.zeros(2, 4), anchors=1)
    other = torch.rand(6, 1).double() * x + torch.randn(6, 1)
    torch.testing.assert_close(loss(other, labels), loss(x, labels))


@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 8),
    st.integers(2, 4),
    st.integers(0, 2**31),
    st.sampled_from([1.0, 24.0]),
    st.integers(0, 3),
    st.integers(0, 3),
)
def test_value_and_gradient_agree_with_a_loop(n, classes, seed, temperature, anchors, steps):
    generator = torch.Generator().manual_seed(seed)

    def random(*shape):
        return torch.randn(*shape, dtype=torch.float64, generator=generator)

    x = random(n, 5).requires_grad_()
    weight, bias = random(classes, 5), random(classes)
    labels = torch.randint(classes, (n,), generator=generator)
    loss = group_loss(weight, bias, temperature=temperature, anchors=anchors, steps=steps)
    weight.requires_grad_()
    expected = reference(x, labels.tolist(), weight, bias, temperature, anchors, steps)
    value = loss(x, labels)
    torch.testing.assert_close(value, expected, rtol=1e-10, atol=1e-10)
    for a, b in zip(
        torch.autograd.grad(value, (x, loss.classifier.weight)),
        torch.autograd.grad(expected, (x, weight)),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-9)


def test_an_image_without_variance_keeps_its_beliefs():
    x, labels = rows([2, 2, 2], [1, 0, -1]), torch.tensor([0, 1])
    x.requires_grad_()
    value = group_loss(torch.zeros(3, 3), anchors=0)(x, labels)
    assert value.item() == pytest.approx(2 * math.log(3), abs=1e-11)
    value.backward()
    assert x.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [1e-20, 1e-3, 1e4])
def test_sharp_beliefs_have_finite_values_and_gradients(dtype, scale):
    x = (torch.randn(8, 4) * scale).to(dtype).requires_grad_()
    loss = group_loss(torch.randn(5, 4), temperature=0.01, steps=3).to(dtype)
    value = loss(x, torch.arange(8) % 4)
    value.backward()
    assert value.isfinite()
    assert x.grad.isfinite().all()


def test_the_classifier_has_its_own_learning_rate():
    (group,) = create_loss("group_loss", 4, 3, classifier_lr_factor=10.0).param_groups(1e-2)
    assert group["lr"] == pytest.approx(0.1)
    assert [tuple(p.shape) for p in group["params"]] == [(4, 3), (4,)]
