import pytest
import torch
from pytorch_metric_learning.losses import LiftedStructureLoss

from dmlbench.losses import create_loss


def test_oracle_value(batch):
    assert create_loss("lifted_structure", 2, 2)(*batch).item() == pytest.approx(
        2.77799439, abs=2e-8
    )


@pytest.mark.parametrize("margin", [1.0, 0.4, 0.0])
def test_value_and_gradient_are_those_of_pytorch_metric_learning(margin):
    labels = torch.tensor([4, 1, 4, 4, 2, 1, 0, 2, 1, 4])
    x = torch.randn(len(labels), 5, dtype=torch.float64, requires_grad=True)
    value = create_loss("lifted_structure", 5, 5, margin=margin)(x, labels)
    expected = LiftedStructureLoss(neg_margin=margin)(x, labels)
    torch.testing.assert_close(value, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(
        torch.autograd.grad(value, x), torch.autograd.grad(expected, x), rtol=1e-10, atol=1e-12
    )


@pytest.mark.parametrize("labels", [[0, 1, 2, 3], [2, 2, 2, 2]])
def test_a_batch_without_positives_or_negatives_has_no_loss(labels):
    x = torch.randn(4, 3, requires_grad=True)
    value = create_loss("lifted_structure", 4, 3)(x, torch.tensor(labels))
    (gradient,) = torch.autograd.grad(value, x)
    assert value.item() == 0
    assert gradient.tolist() == torch.zeros(4, 3).tolist()
