import pytest
import torch

from dmlbench.losses.base import Loss, distances, pair_masks, squared_distances, unit_length


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_unit_length_is_zero_with_zero_gradient_at_zero(dtype):
    x = torch.zeros(2, 3, dtype=dtype)
    x[0, 0] = 5
    x.requires_grad_()
    unit = unit_length(x)
    unit.sum().backward()
    assert unit.tolist() == [[1, 0, 0], [0, 0, 0]]
    assert torch.equal(x.grad, torch.tensor([[0, 0.2, 0.2], [0, 0, 0]], dtype=dtype))


def test_unit_length_agrees_with_torch():
    x = torch.randn(20, 5, dtype=torch.float64)
    assert torch.equal(unit_length(x), torch.nn.functional.normalize(x))


def test_distances_agree_with_cdist_in_value_and_gradient():
    a, b = (unit_length(torch.randn(n, 6, dtype=torch.float64)) for n in (9, 7))
    for function, reference in (
        (distances, torch.cdist),
        (squared_distances, lambda a, b: torch.cdist(a, b) ** 2),
    ):
        # For unit vectors, only the tangential part of a gradient has a meaning
        x, y = a.clone().requires_grad_(), a.clone().requires_grad_()
        weights = torch.randn(9, 7, dtype=torch.float64)
        (function(unit_length(x), b) * weights).sum().backward()
        (reference(unit_length(y), b) * weights).sum().backward()
        torch.testing.assert_close(function(a, b), reference(a, b), rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(x.grad, y.grad, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_distance_of_coincident_points_is_zero_with_zero_gradient(dtype):
    x = unit_length(torch.randn(50, 128, dtype=dtype)).requires_grad_()
    distance = distances(x, x.detach()).diagonal()
    distance.sum().backward()
    assert not distance.any()
    assert not x.grad.any()


def test_positives_are_other_rows_of_a_class_and_negatives_other_classes():
    positive, negative = pair_masks(torch.tensor([3, 1, 3]))
    assert positive.int().tolist() == [[0, 0, 1], [0, 0, 0], [1, 0, 0]]
    assert negative.int().tolist() == [[0, 1, 0], [1, 0, 1], [0, 1, 0]]


def test_a_loss_without_optional_methods_leaves_all_to_the_trainer():
    loss = Loss()
    assert loss.param_groups(1.0) == []
    assert tuple(loss.refresh(pytest.fail)) == ()
    assert loss.batches(None, 1, 2, 3, 4) is None
    assert loss.statistics() == {}
