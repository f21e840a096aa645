"""How a loss is used: its `repr`, the batches that it refuses, and the warning without refresh."""

import copy
import pickle
import warnings

import pytest
import torch
from torch.nn import functional

from dmlbench.losses import create_loss, list_losses
from dmlbench.losses._usage import UnpreparedLoss
from dmlbench.losses.base import Loss
from dmlbench.utils.errors import InvalidArgument, UserError

C, D, N = 5, 8, 6
WRAPPED_BY_NAME = ["pml.ArcFaceLoss", "pml.ContrastiveLoss"]
PREPARED = {"htl": "`refresh` and `batches`", "hpl": "`refresh`"}
"""Losses of the package that a training loop has to prepare -> what the warning names."""


class Own(Loss):
    """A user's loss with one method of the preparation, and options that it hands on."""

    def __init__(self, num_classes, embedding_dim, parents=None, **options):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(num_classes, embedding_dim))

    def compute(self, embeddings, labels):
        return (embeddings - self.weight[labels]).square().sum()

    def refresh(self, embed):
        return ()


def batch():
    return torch.randn(N, D), torch.tensor([0, 0, 1, 1, 4, 4])


def refuse(loss, embeddings, labels):
    """The message of the refusal."""
    with pytest.raises(InvalidArgument) as caught:
        loss(embeddings, labels)
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, UserError)
    return str(caught.value)


def test_the_repr_is_the_call_that_creates_the_loss_with_its_options():
    assert repr(create_loss("softtriple", 98, 64, centers_per_class=3)) == (
        "SoftTriple(num_classes=98, embedding_dim=64, centers_per_class=3, la=20.0, gamma=0.1, "
        "tau=0.2, margin=0.01, centers_lr_factor=100.0)"
    )
    assert repr(create_loss("arcface", 98, 64)) == (
        "ArcFace(num_classes=98, embedding_dim=64, margin=0.5, scale=64.0, proxies_lr_factor=1.0)"
    )
    assert repr(create_loss("pml.CircleLoss", 98, 64, m=0.3)) == (
        "pml.CircleLoss(num_classes=98, embedding_dim=64, m=0.3, gamma=80, lr_factor=1.0)"
    )
    assert repr(Own(2, 3, torch.zeros(1, 2), a="b")) == (
        "Own(num_classes=2, embedding_dim=3, parents=Tensor(1, 2), a='b')"
    )


def test_the_repr_survives_copies_and_pickles():
    loss = create_loss("triplet", 3, 4, margin=0.5)
    expected = (
        "Triplet(num_classes=3, embedding_dim=4, margin=0.5, squared=True, mining='semihard', "
        "memory=None, memory_start=1000)"
    )
    for other in (copy.deepcopy(loss), pickle.loads(pickle.dumps(loss))):
        assert repr(other) == expected


@pytest.mark.parametrize("name", [*list_losses(), *WRAPPED_BY_NAME])
@pytest.mark.parametrize("wrong", [-1, C, -100, 2**40])
def test_every_loss_refuses_a_label_out_of_the_range_at_any_batch(name, wrong):
    loss, (embeddings, labels) = create_loss(name, C, D), batch()
    bad = labels.clone()
    bad[3] = wrong
    for _ in range(2):
        message = refuse(loss, embeddings, bad)
        assert f"labels hold {wrong}, and the loss was created with num_classes=5" in message
        assert "labels are from 0 to 4" in message
        assert loss(embeddings, labels).isfinite()


@pytest.mark.parametrize(
    ("embeddings", "labels", "message"),
    [
        (torch.zeros(6, 7), batch()[1], "embeddings have dimension 7, .* embedding_dim=8"),
        (torch.zeros(8), batch()[1], r"embeddings are float32 \(8,\), not .* \(N, D\)"),
        (torch.zeros(6, D, dtype=torch.int32), batch()[1], r"embeddings are int32 \(6, 8\)"),
        ([[0.0] * D], batch()[1], "embeddings are of type list, not torch.Tensor"),
        (torch.zeros(6, D), [0] * 6, "labels are of type list, not torch.Tensor"),
        (torch.zeros(6, D), torch.zeros(5, dtype=torch.int64), r"\(5,\), and 6 embeddings need"),
        (torch.zeros(6, D), torch.zeros(6, 1, dtype=torch.int64), r"labels have shape \(6, 1\)"),
        (torch.zeros(6, D), torch.zeros(6), r"labels are float32, not int64. `labels.long\(\)`"),
        (torch.zeros(6, D), torch.zeros(6, dtype=torch.int32), "labels are int32, not int64"),
        (torch.zeros(6, D), torch.zeros(6, dtype=torch.bool), "labels are bool, not int64"),
        (torch.zeros(0, D), torch.zeros(0, dtype=torch.int64), "the batch is empty"),
        (
            torch.zeros(6, D, device="meta"),
            batch()[1],
            "embeddings are on meta, labels on cpu",
        ),
    ],
)
@pytest.mark.parametrize("seen", [False, True], ids=["first batch", "later batch"])
@pytest.mark.parametrize("name", ["proxy_anchor", "triplet"])
def test_a_batch_of_another_form_is_refused(name, seen, embeddings, labels, message):
    loss = create_loss(name, C, D)
    if seen:
        loss(*batch())
    with pytest.raises(InvalidArgument, match=message):
        loss(embeddings, labels)


def test_a_loss_whose_constructor_names_its_sizes_otherwise_is_used_without_their_checks():
    class Other(Own):
        def __init__(self, classes, dim):
            super().__init__(classes, dim)

    loss = Other(C, D)
    assert loss(*batch()).isfinite()
    with pytest.raises(InvalidArgument, match="labels are float32"):
        loss(batch()[0], batch()[1].float())


def test_the_check_of_a_batch_reads_nothing_after_the_first_one():
    from torch.utils._python_dispatch import TorchDispatchMode

    class Reads(TorchDispatchMode):
        names = ()

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            self.names += (func.overloadpacket.__name__,)
            return func(*args, **(kwargs or {}))

    loss = create_loss("proxy_anchor", C, D)
    reads = []
    for _ in range(2):
        with Reads() as mode:
            loss._usage.check(*batch())
        reads.append(mode.names.count("_local_scalar_dense"))
    assert reads == [2, 0]


@pytest.mark.parametrize("name", PREPARED)
def test_a_loop_without_the_preparation_of_the_loss_is_warned_once(name):
    loss = create_loss(name, C, D)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UnpreparedLoss)
        for _ in range(2):
            loss(*batch())
    (warning,) = caught
    assert f"{type(loss).__name__} is used without its {PREPARED[name]}, " in str(warning.message)
    assert ("loss.batches" in str(warning.message)) == (name == "htl")
    assert warning.filename == __file__


def prepare(loss):
    labels = torch.arange(4).repeat_interleave(5)
    loss.refresh(lambda: (functional.normalize(torch.randn(len(labels), D)), labels))
    loss.batches(labels.numpy(), 1, 16, 0, 0)


@pytest.mark.parametrize("name", [*list_losses(), *WRAPPED_BY_NAME, Own])
def test_no_loss_warns_in_a_loop_that_prepares_it(name):
    loss = create_loss(name, 4, D) if isinstance(name, str) else name(4, D)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UnpreparedLoss)
        prepare(loss)
        loss(torch.randn(4, D), torch.tensor([0, 0, 3, 3]))


def test_a_loss_that_needs_no_preparation_does_not_warn():
    with warnings.catch_warnings():
        warnings.simplefilter("error", UnpreparedLoss)
        for name in set(list_losses()) - PREPARED.keys():
            create_loss(name, C, D)(*batch())


def test_a_loss_that_goes_on_from_a_checkpoint_in_the_middle_of_an_epoch_does_not_warn():
    loss, resumed = create_loss("hpl", C, D), create_loss("hpl", C, D)
    prepare(loss)
    resumed.load_state_dict(loss.state_dict())
    with warnings.catch_warnings():
        warnings.simplefilter("error", UnpreparedLoss)
        resumed(*batch())


def test_the_preparation_of_a_user_s_loss_is_noted_also_if_a_base_class_has_it():
    class Derived(Own):
        def refresh(self, embed):
            return super().refresh(embed)

    class Mixin:
        def refresh(self, embed):
            return ()

    class Mixed(Mixin, Own): ...

    for cls in (Own, Derived, Mixed):
        with pytest.warns(UnpreparedLoss, match=f"{cls.__name__} is used without its `refresh`"):
            cls(C, D)(*batch())
        prepared = cls(C, D)
        prepared.refresh(None)
        with warnings.catch_warnings():
            warnings.simplefilter("error", UnpreparedLoss)
            prepared(*batch())
