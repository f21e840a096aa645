"""What every loss must do, whatever it computes."""

import numpy as np
import pytest
import torch
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from dmlbench.losses import create_loss, list_losses
from dmlbench.losses._headers import header

NATIVE = [name for name in list_losses() if not header(name).wraps]
ANY_LENGTH = {"npair", "snr", "group_loss"}  # as in their papers
BY_PLACE = {"npair", "margin", "group_loss"}  # a class's first ones; draws, class by class
every_loss = pytest.mark.parametrize("name", list_losses())


def every_loss_but(*names):
    return pytest.mark.parametrize("name", [name for name in list_losses() if name not in names])


C, D, N = 7, 12, 20


@pytest.fixture
def data():
    """Embeddings (N, D) of any length, float32, and labels."""
    labels = torch.arange(C).repeat(3)[:N]
    return torch.randn(N, D) * 3 + torch.randn(C, D)[labels], labels


def value_of(loss, embeddings, labels):
    """The loss, with the same draws each time where it draws."""
    torch.manual_seed(1)
    return loss(embeddings, labels)


def value_and_gradient(loss, embeddings, labels):
    embeddings = embeddings.clone().requires_grad_()
    value = value_of(loss, embeddings, labels)
    (gradient,) = torch.autograd.grad(value, embeddings)
    return value.detach(), gradient


@every_loss
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_arithmetic_is_float32_or_float64(name, dtype, data, ready):
    loss, (embeddings, labels) = ready(name), data
    value, gradient = value_and_gradient(loss, embeddings.to(dtype), labels)
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    assert value.dtype == wide
    assert value.shape == ()
    assert gradient.dtype == dtype
    assert gradient.isfinite().all()
    assert torch.equal(value, value_and_gradient(loss, embeddings.to(dtype).to(wide), labels)[0])


@every_loss
def test_embeddings_that_are_no_numbers_give_no_number(name, data, ready):
    """A training that has diverged must be seen to have."""
    embeddings, labels = data
    value = ready(name)(torch.full_like(embeddings, torch.nan), labels)
    assert not value.isfinite()


@every_loss
def test_autocast_changes_nothing(name, data, ready):
    loss = ready(name)
    expected = value_of(loss, *data)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(value_of(loss, *data), expected)


@every_loss
@pytest.mark.parametrize(
    "case", ["no_positives", "one_class", "repeats", "duplicates", "one_point", "zeros"]
)
def test_degenerate_batches_have_finite_values_and_gradients(name, case, data, ready):
    loss, (embeddings, labels) = ready(name), data
    if case == "no_positives":
        embeddings, labels = embeddings[:C], labels[:C]
    elif case == "one_class":
        labels = torch.full_like(labels, 2)
    elif case == "repeats":  # P x K where a class has but one image
        embeddings, labels = embeddings[:5].repeat(4, 1), labels[:5].repeat(4)
    elif case == "duplicates":
        embeddings = embeddings[:5].repeat(4, 1)
    elif case == "one_point":
        embeddings = embeddings[:1].expand_as(embeddings)
    else:
        embeddings = embeddings.clone()
        embeddings[::2] = 0
    embeddings = embeddings.clone().requires_grad_()
    value = loss(embeddings, labels)
    value.backward()
    assert embeddings.grad.isfinite().all()
    for parameter in loss.parameters():  # of a batch without pairs it may not hear at all
        assert parameter.grad is None or parameter.grad.isfinite().all()
    assert value.isfinite()


@every_loss
@pytest.mark.parametrize("broken", [torch.nan, torch.inf])
def test_a_broken_embedding_breaks_the_value(name, broken, data, ready):
    """A model that diverged must not look like one whose pairs are all in order."""
    loss, (embeddings, labels) = ready(name), data
    embeddings[3, 2] = broken
    assert not loss(embeddings, labels).isfinite()


@every_loss
def test_gradients_move_embeddings_and_every_parameter(name, data, ready):
    loss, (embeddings, labels) = ready(name), data
    embeddings = embeddings.clone().requires_grad_()
    loss(embeddings, labels).backward()
    assert embeddings.grad.any(dim=1).float().mean() > 0.5
    assert all(parameter.grad.any() for parameter in loss.parameters())


@every_loss_but(*ANY_LENGTH)
def test_length_of_an_embedding_does_not_matter(name, data, ready):
    loss, (embeddings, labels) = ready(name), data
    scale = torch.rand(N, 1).double() + 0.5
    expected = value_of(loss, embeddings.double(), labels)
    torch.testing.assert_close(value_of(loss, scale * embeddings.double(), labels), expected)


@every_loss
def test_optimiser_groups_hold_every_parameter_once(name):
    loss = create_loss(name, C, D)
    groups = loss.param_groups(0.5)
    assert {id(p) for group in groups for p in group["params"]} == {
        id(p) for p in loss.parameters()
    }
    torch.optim.AdamW([{"params": [torch.nn.Parameter(torch.zeros(1))]}, *groups])
    assert all(group["lr"] > 0 for group in groups)


@every_loss
def test_state_dict_restores_values_and_batches(name, data, ready, tmp_path):
    loss = ready(name)
    torch.save(loss.state_dict(), tmp_path / "loss.pt")
    other = create_loss(name, C, D)
    other.load_state_dict(torch.load(tmp_path / "loss.pt", weights_only=True))
    assert torch.equal(value_of(loss, *data), value_of(other, *data))
    labels = np.arange(C).repeat(4)
    if loss.batches(labels, 2, 16, 0, 3) is not None:
        np.testing.assert_array_equal(
            loss.batches(labels, 2, 16, 0, 3), other.batches(labels, 2, 16, 0, 3)
        )


@every_loss
@pytest.mark.parametrize("epochs", [1, 2])
def test_a_restored_loss_prepares_its_next_epoch_alike(name, epochs):
    loss, other = create_loss(name, C, D), create_loss(name, C, D)
    labels = torch.arange(C).repeat_interleave(3)
    embeddings = functional.normalize(torch.randn(len(labels), D))
    for _ in range(epochs):
        loss.refresh(lambda: (embeddings, labels))
    other.load_state_dict(loss.state_dict())
    for one in (loss, other):
        one.refresh(lambda: (embeddings, labels))
    for (key, value), restored in zip(
        loss.state_dict().items(), other.state_dict().values(), strict=True
    ):
        assert torch.equal(value, restored), key


@every_loss_but(*BY_PLACE)
def test_order_of_the_batch_does_not_matter(name, data, ready):
    loss, (embeddings, labels) = ready(name).double(), data
    order = torch.randperm(N)
    value, gradient = value_and_gradient(loss, embeddings.double(), labels)
    permuted, its_gradient = value_and_gradient(loss, embeddings.double()[order], labels[order])
    torch.testing.assert_close(permuted, value, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(its_gradient, gradient[order], rtol=1e-9, atol=1e-12)


@every_loss_but("margin")
def test_numbering_of_the_classes_does_not_matter(name, data, ready):
    loss, (embeddings, labels) = ready(name).double(), data
    expected = loss(embeddings.double(), labels)
    number = torch.randperm(C)
    state = loss.state_dict()
    for key, value in state.items():
        for dim, size in enumerate(value.shape):
            if size == C:  # no other dimension has this size here
                state[key] = value.index_select(dim, number.argsort())
    loss.load_state_dict(state)
    torch.testing.assert_close(loss(embeddings.double(), number[labels]), expected)


class NoHost(TorchDispatchMode):
    """Refuses what would wait for a GPU: values or shapes that the host must know."""

    SYNCHRONISING = ("_local_scalar_dense", "nonzero", "unique", "masked_select", "is_nonzero")

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        indices = args[1] if name in ("index", "index_put", "index_put_") else ()
        by_mask = any(index is not None and index.dtype == torch.bool for index in indices)
        assert not by_mask, f"{name} by a mask"
        assert not any(word in name for word in self.SYNCHRONISING), name
        return func(*args, **(kwargs or {}))


def test_the_guard_sees_synchronisation():
    for wait in (lambda x: x.sum().item(), lambda x: x[x > 0], lambda x: x.unique()):
        with pytest.raises(AssertionError), NoHost():
            wait(torch.ones(3))


@pytest.mark.parametrize("name", NATIVE)
def test_native_losses_never_wait_for_the_host(name, data, ready):
    loss, (embeddings, labels) = ready(name), data
    embeddings.requires_grad_()
    with NoHost():
        loss(embeddings, labels).backward()


@pytest.mark.parametrize("name", NATIVE)
def test_native_losses_compile_to_one_graph(name, data, ready):
    loss = ready(name)
    torch._dynamo.reset()
    compiled = torch.compile(loss, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(*data), loss(*data))


@every_loss
def test_learns_to_ignore_what_does_not_tell_classes_apart(name):
    """Gaussian classes in 4 dimensions, beside 28 of louder noise; new samples are retrieved."""
    random = np.random.default_rng(0)
    classes, per_class, epochs, steps, batch = 8, 32, 15, 16, 32
    means = random.normal(size=(classes, 4)) * 2
    labels = np.arange(classes).repeat(per_class)

    def sample():
        signal = means[labels] + random.normal(size=(len(labels), 4)) * 0.5
        noise = random.normal(size=(len(labels), 28)) * 1.5
        return torch.tensor(np.hstack([signal, noise]), dtype=torch.float32)

    train, test, targets = sample(), sample(), torch.from_numpy(labels)

    def recall_at_1(embeddings):
        similarity = functional.normalize(embeddings) @ functional.normalize(embeddings).T
        return (targets[similarity.fill_diagonal_(-2).argmax(dim=1)] == targets).float().mean()

    torch.manual_seed(0)
    model = torch.nn.Linear(32, 8)
    loss = create_loss(name, classes, 8)
    before = recall_at_1(model(test).detach())
    optimizer = torch.optim.Adam([{"params": model.parameters()}, *loss.param_groups(3e-3)], 3e-3)
    for epoch in range(epochs):
        for parameter in loss.refresh(
            lambda: (functional.normalize(model(train).detach()), targets)
        ):
            optimizer.state.pop(parameter, None)
        rows = loss.batches(labels, steps, batch, 0, epoch)
        if rows is None:
            rows = random.integers(len(labels), size=(steps, batch))
        for row in torch.from_numpy(rows):
            optimizer.zero_grad()
            loss(model(train[row]), targets[row]).backward()
            optimizer.step()
    assert recall_at_1(model(test).detach()) > before + 0.2
