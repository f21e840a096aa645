import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch.nn import functional

from dmlbench.losses import create_loss


def recall_at_k(dim=2, **options):
    return create_loss("recall_at_k", 5, dim, **options)


def sigmoid(x):
    return 1 / (1 + torch.exp(-x))


def reference(x, labels, t, t_k, ks, ranked=None):
    """The loss by loops over queries and positives; a tensor with a gradient."""
    unit = functional.normalize(x)
    return reference_of(unit @ unit.T, labels, t, t_k, ks, ranked)


def reference_of(similarity, labels, t, t_k, ks, ranked=None):
    """The same from the similarities of all pairs."""
    losses = []
    for q, row in enumerate(similarity):
        database = [z for z in range(len(row)) if z != q]
        s = {z: row[z] for z in database}
        positives = sorted((z for z in database if labels[z] == labels[q]), key=lambda z: -s[z])
        ranks = [
            sum((sigmoid((s[z] - s[p]) / t) for z in database if z != p), torch.ones_like(s[p]))
            for p in positives[:ranked]
        ]
        for k in (min(k, len(row)) for k in ks if positives):
            listed = sum(sigmoid((k - rank) / t_k) for rank in ranks)
            retrieved = listed if listed < k else torch.tensor(k, dtype=row.dtype)
            losses.append((1 - retrieved / min(k, len(positives))) / len(ks))
    queries = sum((labels == y).sum() > 1 for y in labels)
    return sum(losses, torch.zeros((), dtype=similarity.dtype)) / max(1, queries)


def test_oracle_value_by_hand(batch):
    """The positives of the queries at 0, 60, 90, 180 have the ranks 1, 2, 2.5 and 1.

    The rank is 2.5, since 90 is as near to 0 as to 180.
    """
    # Of four images, recall at 8 and at 16 is recall at 4
    ranks, ks = torch.tensor([1, 2, 2.5, 1]).double(), torch.tensor([1, 2, 4, 4, 4])
    expected = 1 - sigmoid(ks - ranks[:, None]).mean()
    assert expected.item() == pytest.approx(0.2699207903, abs=1e-9)
    assert recall_at_k()(*batch).item() == pytest.approx(expected.item(), abs=1e-6)


def test_sharp_sigmoids_give_the_exact_recall(at):
    # Ranks of the positives of 0: 1 and 3; of 10: 1 and 3; of 40: 2 and 3; 25 has none
    x, labels = at(0, 10, 25, 40), torch.tensor([0, 0, 1, 0])
    loss = recall_at_k(temperature=1e-4, list_temperature=1e-4, largest_k=2)
    # A positive at rank k counts by half; recall at 1 is divided by 1
    at_1, at_2 = [0.5, 0.5, 0.0], [1 / 2, 1 / 2, 0.5 / 2]
    expected = 1 - (sum(at_1) + sum(at_2)) / 6
    assert loss(x, labels).item() == pytest.approx(expected, abs=1e-6)


@settings(max_examples=25, deadline=None)
@example(6, 1, 322, 0.3, 0.5, (5, [1, 2, 4]), 16)  # the smooth list of k = 1 holds more than one
@given(
    st.integers(1, 9),
    st.integers(1, 4),
    st.integers(0, 2**31),
    st.sampled_from([0.05, 0.3]),
    st.sampled_from([0.5, 1.0]),
    st.sampled_from([(1, [1]), (5, [1, 2, 4]), (16, [1, 2, 4, 8, 16])]),
    st.sampled_from([1, 2, 16]),
)
def test_value_and_gradient_agree_with_a_loop(n, classes, seed, t, t_k, lists, ranked):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 3, dtype=torch.float64, generator=generator).requires_grad_()
    labels = torch.randint(classes, (n,), generator=generator)
    largest, ks = lists
    options = {"temperature": t, "list_temperature": t_k, "largest_k": largest}
    loss = recall_at_k(dim=3, positives=ranked, **options)
    value, expected = loss(x, labels), reference(x, labels, t, t_k, ks, ranked)
    torch.testing.assert_close(value, expected, rtol=1e-10, atol=1e-10)
    if expected.requires_grad:
        gradients = (torch.autograd.grad(scalar, x)[0] for scalar in (value, expected))
        torch.testing.assert_close(*gradients, rtol=1e-7, atol=1e-9)


def test_positives_behind_many_others_hardly_count():
    x, labels = torch.randn(60, 3, dtype=torch.float64), torch.zeros(60, dtype=torch.int64)
    all_ranked, nearest_ranked = (recall_at_k(dim=3, positives=count) for count in (60, 32))
    torch.testing.assert_close(nearest_ranked(x, labels), all_ranked(x, labels), rtol=0, atol=1e-5)


def test_images_without_positives_are_not_queries(at):
    alone = recall_at_k()(at(0, 60), torch.tensor([0, 1]))
    assert alone.item() == 0
    loss = recall_at_k(largest_k=2)  # as many as the images of the smaller batch
    with_two = loss(at(0, 10, 180), torch.tensor([0, 0, 1]))
    assert with_two.item() == pytest.approx(loss(at(0, 10), torch.tensor([0, 0])).item())


@pytest.mark.parametrize(("n", "largest"), [(5, 8), (6, 16), (16, 16)])
def test_a_k_above_the_batch_size_is_the_batch_size(n, largest):
    generator = torch.Generator().manual_seed(n)
    x = torch.randn(n, 3, dtype=torch.float64, generator=generator)
    labels = torch.arange(n) % 2
    ks = [min(2**i, n) for i in range(largest.bit_length())]
    expected = reference(x, labels, 0.3, 1.0, ks)
    value = recall_at_k(dim=3, temperature=0.3, largest_k=largest)(x, labels)
    assert value.item() == pytest.approx(expected.item(), rel=1e-12)


def test_equal_images_share_their_ranks(at):
    x = at(0, 0, 0, 90).requires_grad_()
    loss = recall_at_k(largest_k=1)
    value = loss(x, torch.tensor([0, 0, 1, 1]))
    # The queries at 0 have two images at their place, of rank 1.5 each; that at 90 sees a tie of 3
    expected = 1 - sigmoid(1 - torch.tensor([1.5, 1.5, 3, 2])).mean()
    assert value.item() == pytest.approx(expected.item(), abs=1e-6)
    value.backward()
    assert x.grad.isfinite().all()


@pytest.mark.parametrize("labels", [[0, 1, 0, 1, 1, 2], [0, 0, 0, 0], [0, 1, 2, 3]])
def test_value_and_gradient_with_mixtures_agree_with_mixed_similarities(labels):
    """A mixture has no embedding in the reference, only the mixed similarities of two images."""
    x = torch.randn(len(labels), 3, dtype=torch.float64).requires_grad_()
    pairs = [
        (a, b) for a, y in enumerate(labels) for b in range(a + 1, len(labels)) if labels[b] == y
    ]
    loss = recall_at_k(dim=3, temperature=0.1, mixup=True)
    torch.manual_seed(7)
    value = loss(x, torch.tensor(labels))
    torch.manual_seed(7)
    shares = torch.rand(len(pairs), dtype=torch.float64).tolist()
    # each image as the (weight, image) that it is mixed of
    parts = [[(1.0, a)] for a in range(len(labels))]
    parts += [[(u, a), (1 - u, b)] for u, (a, b) in zip(shares, pairs, strict=True)]
    unit = functional.normalize(x)
    similarity = torch.stack(
        [
            torch.stack(
                [sum(u * v * (unit[a] @ unit[b]) for u, a in p for v, b in q) for q in parts]
            )
            for p in parts
        ]
    )
    mixed = torch.tensor(labels + [labels[a] for a, _ in pairs])
    expected = reference_of(similarity, mixed, 0.1, 1.0, [1, 2, 4, 8, 16], 16)
    torch.testing.assert_close(value, expected, rtol=1e-10, atol=1e-10)
    if expected.requires_grad:
        gradients = (torch.autograd.grad(scalar, x)[0] for scalar in (value, expected))
        torch.testing.assert_close(*gradients, rtol=1e-7, atol=1e-9)


def test_mixtures_are_drawn_anew_for_each_batch_of_a_training_alone():
    x, labels = torch.randn(8, 3), torch.arange(8) % 2
    loss = recall_at_k(dim=3, mixup=True)
    values = {loss(x, labels).item() for _ in range(3)}
    assert len(values) == 3
    assert loss.eval()(x, labels).item() == recall_at_k(dim=3)(x, labels).item()
