import math

import pytest
import torch
from pytorch_metric_learning.losses import SmoothAPLoss

from dmlbench.losses import create_loss


def reference(embeddings, labels, temperature):
    """The loss by a loop; a query is its own positive, as in the authors' code."""
    unit = torch.nn.functional.normalize(embeddings)
    s = (unit @ unit.T).tolist()
    n, total = len(labels), 0.0
    for i in range(n):
        positives = [j for j in range(n) if labels[j] == labels[i]]

        def rank(j, among, row=s[i]):
            ahead = [1 / (1 + math.exp((row[j] - row[k]) / temperature)) for k in among if k != j]
            return 1 + sum(ahead)

        total += 1 - sum(rank(j, positives) / rank(j, range(n)) for j in positives) / len(positives)
    return total / n


def test_oracle_value(batch):
    assert create_loss("smooth_ap", 2, 2)(*batch).item() == pytest.approx(0.09523847, abs=1e-8)


@pytest.mark.parametrize("temperature", [0.01, 0.2])
def test_agrees_with_pytorch_metric_learning_on_batches_that_it_ranks_right(temperature):
    # They are sorted by class, and hold as many classes as images of each
    labels = torch.tensor([4, 4, 4, 1, 1, 1, 3, 3, 3])
    x = torch.randn(len(labels), 5, dtype=torch.float64, requires_grad=True)
    value = create_loss("smooth_ap", 5, 5, temperature=temperature)(x, labels)
    expected = SmoothAPLoss(temperature)(x, labels)
    # The library's ranks are float32
    torch.testing.assert_close(value, expected.double(), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(
        torch.autograd.grad(value, x), torch.autograd.grad(expected, x), rtol=1e-5, atol=1e-5
    )


def test_agrees_with_a_loop_on_any_batch():
    labels = torch.tensor([0, 1, 0, 2, 1, 0, 3, 0])
    x = torch.randn(len(labels), 4, dtype=torch.float64)
    value = create_loss("smooth_ap", 4, 4, temperature=0.1)(x, labels)
    assert value.item() == pytest.approx(reference(x, labels, 0.1), abs=1e-12)


def test_images_without_positives_have_no_loss():
    value = create_loss("smooth_ap", 6, 4)(torch.randn(6, 4), torch.arange(6))
    assert value.item() == pytest.approx(0, abs=1e-3)
