import numpy as np
import pytest
import torch
from torch.nn import functional

from dmlbench.losses import create_loss
from dmlbench.losses.hpl import spherical_kmeans

BASES = ["proxy_anchor", "normalized_softmax"]


def hpl(proxies, parents=None, **options):
    """HPL past its warm-up on given fine proxies; `parents` is the group of each class."""
    options = {"warmup_epochs": 0, **options}
    if parents is not None:
        options |= {"hierarchy": "given", "parents": torch.tensor([parents])}
    loss = create_loss("hpl", *proxies.shape, **options).double()
    with torch.no_grad():
        loss.proxies.copy_(proxies)
    loss.refresh(pytest.fail)
    return loss


def base(proxies, name="proxy_anchor"):
    loss = create_loss(name, *proxies.shape).double()
    with torch.no_grad():
        loss.proxies.copy_(proxies)
    return loss


def fan(*centres, width=6.0, each=3):
    """Proxies (n, 2) at `each` angles about every centre."""
    offsets = torch.linspace(-width, width, each, dtype=torch.float64)
    radians = torch.deg2rad((torch.tensor(centres, dtype=torch.float64)[:, None] + offsets).ravel())
    return torch.stack([radians.cos(), radians.sin()], dim=1)


@pytest.fixture
def random():
    """Embeddings, labels, proxies."""
    x = torch.randn(9, 5, dtype=torch.float64)
    return x, torch.arange(9) % 4, torch.randn(4, 5, dtype=torch.float64)


@pytest.fixture
def five(at):
    """Oracle P-5: embeddings, labels, proxies."""
    return at(10, 100, 190), torch.tensor([0, 1, 3]), at(0, 90, 180, 200)


@pytest.mark.parametrize("name", BASES)
@pytest.mark.parametrize("off", ["omega", "warm-up"])
def test_P1_without_the_coarse_level_it_is_the_base_loss_bit_for_bit(name, off, random):
    x, labels, proxies = random
    options = {"omega": 0.0} if off == "omega" else {"warmup_epochs": 1}
    loss, plain = hpl(proxies, base=name, **options), base(proxies, name)
    results = []
    for one in (loss, plain):
        y = x.clone().requires_grad_()
        value = one(y, labels)
        results.append((value, *torch.autograd.grad(value, (y, one.proxies))))
    for a, b in zip(*results, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("name", BASES)
@pytest.mark.parametrize("coarse", ["learned", "centroid"])
def test_P2_each_class_its_own_group_repeats_the_base_loss(name, coarse, random):
    x, labels, proxies = random
    loss = hpl(proxies, [2, 0, 3, 1], base=name, coarse=coarse, omega=0.3)
    torch.testing.assert_close(loss(x, labels), 1.3 * base(proxies, name)(x, labels))


@pytest.mark.parametrize("coarse", ["learned", "centroid"])
def test_P3_one_group_adds_nothing_to_softmax_and_a_pull_to_proxy_anchor(coarse, random):
    x, labels, proxies = random
    loss = hpl(proxies, [0] * 4, base="normalized_softmax", coarse=coarse, omega=1.0)
    y = x.clone().requires_grad_()
    extra = loss(y, labels) - base(proxies, "normalized_softmax")(y, labels)
    assert extra.item() == 0
    assert torch.autograd.grad(extra, y)[0].abs().max() < 1e-15

    loss = hpl(proxies, [0] * 4, coarse=coarse, omega=1.0)
    extra = loss(x, labels) - base(proxies)(x, labels)
    centre = functional.normalize(functional.normalize(proxies).mean(dim=0), dim=0)
    cosine = functional.normalize(x) @ centre
    torch.testing.assert_close(extra, torch.log(1 + torch.exp(-32 * (cosine - 0.1)).sum()))


@pytest.mark.parametrize(("omega", "value"), [(1.0, 12.5329204530), (0.1, 11.0749413351)])
@pytest.mark.parametrize("coarse", ["learned", "centroid"])
def test_P5_oracle_value(five, omega, value, coarse):
    x, labels, proxies = five
    assert base(proxies)(x, labels).item() == pytest.approx(10.9129436553, abs=1e-9)
    loss = hpl(proxies, [0, 0, 1, 1], omega=omega, coarse=coarse)
    assert loss(x, labels).item() == pytest.approx(value, abs=1e-9)


def test_P5_centroids_are_normalised_means(five):
    loss = hpl(7 * five[2], [0, 0, 1, 1])
    angles = torch.rad2deg(torch.atan2(*loss.centroids(loss.parent).T.flip(0)))
    assert angles.tolist() == pytest.approx([45, -170])


@pytest.mark.parametrize("coarse", ["learned", "centroid"])
def test_P6_numbering_of_groups_does_not_matter(random, coarse):
    x, labels, proxies = random
    one = hpl(proxies, [0, 1, 2, 1], coarse=coarse)
    other = hpl(proxies, [2, 0, 1, 0], coarse=coarse)
    torch.testing.assert_close(one(x, labels), other(x, labels))


def test_P6_groups_are_a_function_of_the_proxies_alone():
    proxies = torch.randn(30, 4, dtype=torch.float64)
    first = hpl(proxies, coarse_proxies=5)
    torch.manual_seed(99)
    np.random.seed(99)  # noqa: NPY002
    second = hpl(proxies * 10 ** torch.randn(30, 1).double(), coarse_proxies=5)  # of any length
    assert torch.equal(first.parent, second.parent)
    state = torch.get_rng_state()
    second.refresh(pytest.fail)
    assert torch.equal(state, torch.get_rng_state())


def test_P6_kmeans_finds_the_groups():
    loss = hpl(fan(0, 90, 200), coarse_proxies=3)
    assert loss.parent.unflatten(0, (3, 3)).eq(loss.parent[::3, None]).all()
    assert loss.parent.unique().tolist() == [0, 1, 2]


@pytest.mark.parametrize("groups", [1, 2, 4, 7])
@pytest.mark.parametrize("distinct", [1, 2, 7])
def test_P6_no_group_is_empty(groups, distinct):
    points = functional.normalize(torch.randn(distinct, 3)).repeat(7, 1)[:7].numpy()
    group = spherical_kmeans(points, groups)
    assert set(group) == set(range(groups))


def test_P6_refilling_an_empty_group_leaves_no_other_empty(monkeypatch):
    """k-means may end with empty groups, however it tries: here groups 1 and 2 are."""
    faiss = pytest.importorskip("faiss")

    class Stuck:
        def __init__(self, *args, **options):
            self.index = self

        def train(self, points):
            pass

        def search(self, points, k):
            return np.float32([[0.9], [0.2], [0.5], [0.1]]), np.int64([[0], [0], [0], [3]])

    monkeypatch.setattr(faiss, "Kmeans", Stuck)
    assert spherical_kmeans(np.zeros((4, 2), np.float32), 4).tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("name", BASES)
def test_P7_centroids_pass_their_gradient_to_the_fine_proxies(name, random):
    x, labels, proxies = random
    loss = hpl(proxies, [0, 1, 1, 0], base=name, coarse="centroid", omega=1.0)

    def coarse_part(fine):
        value = torch.func.functional_call(loss, {"proxies": fine}, (x, labels))
        plain = base(proxies, name)
        return value - torch.func.functional_call(plain, {"proxies": fine}, (x, labels))

    fine = proxies.clone().requires_grad_()
    assert torch.autograd.grad(coarse_part(fine), fine)[0].abs().max() > 1e-6
    assert torch.autograd.gradcheck(coarse_part, fine)


def test_P7_learned_proxies_start_at_the_centroids_and_are_reported_once():
    proxies = fan(0, 90, 200)
    loss = create_loss("hpl", 9, 2, coarse_proxies=3, warmup_epochs=2).double()
    with torch.no_grad():
        loss.proxies.copy_(proxies)
    assert [len(loss.refresh(pytest.fail)) for _ in range(5)] == [0, 0, 1, 0, 0]
    torch.testing.assert_close(loss.coarse_proxies.detach(), loss.centroids(loss.parent).detach())


@pytest.mark.parametrize("seed", range(5))
def test_P7_a_group_keeps_its_coarse_proxy_when_classes_are_grouped_anew(seed):
    proxies = fan(0, 70, 140, 210, 280)
    order = torch.randperm(15, generator=torch.Generator().manual_seed(seed))
    loss = hpl(proxies[order], coarse_proxies=5)
    before = loss.parent.clone()
    learned = loss.coarse_proxies.detach().clone()
    with torch.no_grad():
        # turned a little, and class 0 goes over to the group opposite; k-means starts elsewhere
        turn = torch.deg2rad(torch.tensor(8.0, dtype=torch.float64))
        rotation = torch.stack([turn.cos(), -turn.sin(), turn.sin(), turn.cos()]).view(2, 2)
        loss.proxies.copy_(loss.proxies @ rotation.T)
        loss.proxies[0] = -loss.proxies[0]
    assert loss.refresh(pytest.fail) == ()
    assert torch.equal(loss.coarse_proxies, learned)
    assert torch.equal(loss.parent[1:], before[1:])
    assert loss.parent[0] != before[0]


def test_grouping_is_due_after_warm_up_and_every_interval():
    loss = create_loss("hpl", 9, 2, coarse_proxies=3, warmup_epochs=1, recluster_every=2)
    changed = []
    for _ in range(6):
        with torch.no_grad():
            loss.proxies.copy_(fan(0, 90, 200)[torch.randperm(9)])
        before = loss.parent.clone()
        loss.refresh(pytest.fail)
        changed.append(not torch.equal(before, loss.parent))
    assert changed == [False, True, False, True, False, True]


def test_P8_given_groups_cover_all_classes_whatever_their_numbers():
    super_classes = torch.tensor([[5, 40, 5, 12, 40, 5], [0, 0, 0, 1, 1, 1]])
    loss = create_loss("hpl", 6, 4, super_classes, hierarchy="given")
    assert loss.groups == 3
    assert loss.parent.tolist() == [0, 2, 0, 1, 2, 0]
    for _ in range(3):
        loss.refresh(pytest.fail)
    assert loss.parent.tolist() == [0, 2, 0, 1, 2, 0]


@pytest.mark.parametrize(("classes", "groups"), [(1, 1), (2, 2), (8, 2), (98, 10), (11318, 1132)])
def test_a_tenth_of_the_classes_are_groups_by_default(classes, groups):
    assert create_loss("hpl", classes, 2).groups == groups


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="'given' needs a data set with super-classes"):
        create_loss("hpl", 4, 2, hierarchy="given")
    with pytest.raises(ValueError, match="coarse_proxies 5 is more than 4 classes"):
        create_loss("hpl", 4, 2, coarse_proxies=5)


@pytest.mark.parametrize(("coarse", "count"), [("learned", 2), ("centroid", 1)])
def test_all_proxies_learn_100_times_faster(coarse, count):
    (group,) = create_loss("hpl", 20, 4, coarse=coarse).param_groups(1e-4)
    assert len(group["params"]) == count
    assert group["lr"] == pytest.approx(1e-2)
