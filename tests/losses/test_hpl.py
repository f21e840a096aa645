import json

import numpy as np
import pytest
import torch
from torch.nn import functional

from dmlbench.losses import create_loss
from dmlbench.losses._grouping import spherical_kmeans
from dmlbench.utils.declarations import read_declarations
from dmlbench.utils.fingerprint import code_digests

BASES = ["proxy_anchor", "proxynca_pp", "normalized_softmax", "softtriple"]
SOFTMAXES = ["proxynca_pp", "normalized_softmax"]


def hpl(proxies, *parents, **options):
    """HPL after its warm-up on the fine proxies `proxies`.

    `parents` are the groups of each class, a list per coarse level; without, k-means finds them.
    """
    options = {"warmup_epochs": 0, "centers_per_class": 3, **options}
    if parents:
        options |= {"hierarchy": "given", "parents": torch.tensor(parents)}
        options = {"levels": 1 + len(parents), **options}
    return set_proxies(proxies, create_loss("hpl", *shape(proxies), **options))


def base(proxies, name="proxy_anchor"):
    options = {"centers_per_class": 3} if name == "softtriple" else {}
    return set_proxies(proxies, create_loss(name, *shape(proxies), **options))


def shape(proxies):
    return len(proxies), proxies.shape[-1]


def parameter_of(loss):
    """The loss's fine proxies, or its centres."""
    return loss.centers if hasattr(loss, "centers") else loss.proxies


def set_proxies(proxies, loss):
    with torch.no_grad():
        parameter_of(loss.double()).copy_(proxies)
    loss.refresh(pytest.fail)
    return loss


def fan(*centres, width=6.0, count=3):
    """Proxies (n, 2): `count` angles about every centre, which is an angle in degrees."""
    offsets = torch.linspace(-width, width, count, dtype=torch.float64)
    radians = torch.deg2rad((torch.tensor(centres, dtype=torch.float64)[:, None] + offsets).ravel())
    return torch.stack([radians.cos(), radians.sin()], dim=1)


@pytest.fixture
def random():
    """Embeddings, labels, proxies."""
    x = torch.randn(9, 5, dtype=torch.float64)
    return x, torch.arange(9) % 4, torch.randn(4, 5, dtype=torch.float64)


def proxies_of(name, proxies):
    """`proxies` as the base `name` holds them: SoftTriple has three random centres about each."""
    if name != "softtriple":
        return proxies
    return proxies[:, None] + torch.randn(len(proxies), 3, proxies.shape[1]).double() / 3


@pytest.fixture
def five(at):
    """Embeddings, labels, proxies of the oracle value."""
    return at(10, 100, 190), torch.tensor([0, 1, 3]), at(0, 90, 180, 200)


@pytest.mark.parametrize("name", BASES)
@pytest.mark.parametrize(
    "off", [{"omega": 0.0}, {"omega": 0.0, "levels": 3}, {"levels": 1}, {"warmup_epochs": 1}]
)
def test_without_a_coarse_level_it_is_the_base_loss_bit_for_bit(name, off, random):
    x, labels, proxies = random
    proxies = proxies_of(name, proxies)
    loss, plain = hpl(proxies, base=name, **off), base(proxies, name)
    results = []
    for module in (loss, plain):
        y = x.clone().requires_grad_()
        value = module(y, labels)
        results.append((value, *torch.autograd.grad(value, (y, parameter_of(module)))))
    for a, b in zip(*results, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("name", BASES)
@pytest.mark.parametrize("coarse", ["learned", "centroid"])
def test_one_class_per_group_repeats_the_base_loss(name, coarse, random):
    x, labels, proxies = random
    if name == "softtriple":  # all centres of a class are at one place, so their mean is too
        proxies = proxies[:, None].expand(4, 3, 5)
    loss = hpl(proxies, [2, 0, 3, 1], base=name, coarse=coarse, omega=0.3, tau=0.0)
    plain = base(proxies, name)
    plain.tau = 0.0
    torch.testing.assert_close(loss(x, labels), 1.3 * plain(x, labels))


@pytest.mark.parametrize("coarse", ["learned", "centroid"])
@pytest.mark.parametrize("name", SOFTMAXES)
def test_one_group_adds_nothing_to_a_softmax(name, coarse, random):
    x, labels, proxies = random
    loss = hpl(proxies, [0] * 4, base=name, coarse=coarse, omega=1.0)
    y = x.clone().requires_grad_()
    extra = loss(y, labels) - base(proxies, name)(y, labels)
    assert extra.item() == 0
    assert torch.autograd.grad(extra, y)[0].abs().max() < 1e-14


@pytest.mark.parametrize("coarse", ["learned", "centroid"])
def test_one_group_adds_a_pull_to_proxy_anchor(coarse, random):
    x, labels, proxies = random
    loss = hpl(proxies, [0] * 4, coarse=coarse, omega=1.0)
    extra = loss(x, labels) - base(proxies)(x, labels)
    centre = functional.normalize(functional.normalize(proxies).mean(dim=0), dim=0)
    cosine = functional.normalize(x) @ centre
    torch.testing.assert_close(extra, torch.log(1 + torch.exp(-32 * (cosine - 0.1)).sum()))


def test_value_of_one_embedding(at):
    """The positive part is 3.1068e-13, the negative one log(1 + e^3.2) / 2."""
    loss = hpl(at(0, 90), omega=0.0)
    assert loss(at(0), torch.tensor([0])).item() == pytest.approx(1.6199766666, abs=1e-9)


@pytest.mark.parametrize(("omega", "value"), [(1.0, 12.5329204530), (0.1, 11.0749413351)])
@pytest.mark.parametrize("coarse", ["learned", "centroid"])
def test_oracle_value(five, omega, value, coarse):
    x, labels, proxies = five
    assert base(proxies)(x, labels).item() == pytest.approx(10.9129436553, abs=1e-9)
    loss = hpl(proxies, [0, 0, 1, 1], omega=omega, coarse=coarse)
    assert loss(x, labels).item() == pytest.approx(value, abs=1e-9)


def test_centroids_are_normalised_means(five):
    loss = hpl(7 * five[2], [0, 0, 1, 1])
    coarse = loss.coarse[0].proxies.detach()
    assert torch.rad2deg(torch.atan2(*coarse.T.flip(0))).tolist() == pytest.approx([45, -170])


@pytest.mark.parametrize("coarse", ["learned", "centroid"])
def test_each_coarser_level_has_omega_ratio_times_the_weight_of_the_level_below(five, at, coarse):
    x, labels, proxies = five
    loss = hpl(proxies, [0, 1, 2, 2], [0, 0, 1, 1], omega=0.3, omega_ratio=0.5, coarse=coarse)
    middle, top = at(0, 90, 190), at(45, -170)  # means: of 180 and 200; of 0 and 90, ...
    parts = [
        base(proxies)(x, labels),
        base(middle)(x, torch.tensor([0, 1, 2])),
        base(top)(x, torch.tensor([0, 0, 1])),
    ]
    assert parts[2].item() == pytest.approx(1.6199767977, abs=1e-9)
    torch.testing.assert_close(loss(x, labels), parts[0] + 0.3 * parts[1] + 0.15 * parts[2])


def test_a_class_is_grouped_by_the_normalised_mean_of_its_centres(at):
    centers = torch.stack([at(0, 60), at(100, 140), at(-60, 0)]) * torch.tensor([[[1.0], [9.0]]])
    loss = hpl(centers, [0, 0, 1], base="softtriple", centers_per_class=2)
    coarse = loss.coarse[0].proxies.detach()
    # The means are 30 of 0 and 60, and 120 of 100 and 140; the lengths of centres do not count
    assert torch.rad2deg(torch.atan2(*coarse.T.flip(0))).tolist() == pytest.approx([75, -30])


@pytest.mark.parametrize("coarse", ["learned", "centroid"])
def test_the_numbers_of_groups_do_not_matter(random, coarse):
    x, labels, proxies = random
    loss = hpl(proxies, [0, 1, 2, 1], coarse=coarse)
    renumbered = hpl(proxies, [2, 0, 1, 0], coarse=coarse)
    torch.testing.assert_close(loss(x, labels), renumbered(x, labels))


def test_groups_follow_from_the_directions_of_proxies_alone():
    proxies = torch.randn(30, 4, dtype=torch.float64)
    first = hpl(proxies, coarse_proxies=5, levels=3)
    torch.manual_seed(99)
    np.random.seed(99)  # noqa: NPY002
    longer = proxies * 10 ** torch.randn(30, 1).double()
    second = hpl(longer, coarse_proxies=5, levels=3)
    assert first.artefact() == second.artefact()
    state = torch.get_rng_state()
    second.refresh(pytest.fail)
    assert torch.equal(state, torch.get_rng_state())


def test_kmeans_finds_the_groups():
    (parent,) = hpl(fan(0, 90, 200), coarse_proxies=3).artefact()["parents"]
    assert [len(set(parent[i : i + 3])) for i in (0, 3, 6)] == [1, 1, 1]
    assert set(parent) == {0, 1, 2}


@pytest.mark.parametrize("coarse", ["learned", "centroid"])
@pytest.mark.parametrize("name", BASES)
def test_kmeans_of_a_level_groups_the_groups_of_the_level_below(name, coarse):
    """Fans at three and at two near angles. A fan is a group; near fans are a larger group."""
    proxies = proxies_of(name, fan(0, 25, 50, 180, 205))
    options = {"coarse_proxies": 5, "levels": 3, "base": name, "coarse": coarse}
    fine, top = hpl(proxies * 1.0, **options).artefact()["parents"]
    if name != "softtriple":  # its centres are too scattered
        assert [len(set(fine[i : i + 3])) for i in range(0, 15, 3)] == [1] * 5
        assert [len(set(top[:9])), len(set(top[9:])), len(set(top))] == [1, 1, 2]
    assert len(set(zip(fine, top, strict=True))) == len(set(fine)) == 5


@pytest.mark.parametrize("groups", [1, 2, 4, 7])
@pytest.mark.parametrize("distinct", [1, 2, 7])
def test_no_group_is_empty(groups, distinct):
    points = functional.normalize(torch.randn(distinct, 3)).repeat(7, 1)[:7].numpy()
    group = spherical_kmeans(points, groups)
    assert set(group) == set(range(groups))


@pytest.mark.parametrize("name", BASES)
def test_centroids_pass_their_gradient_to_the_fine_proxies(name, random):
    x, labels, proxies = random
    proxies = proxies_of(name, proxies)
    loss = hpl(proxies, [0, 1, 1, 2], [0, 0, 0, 1], base=name, coarse="centroid", omega=1.0)
    plain = base(proxies, name)
    (parameter,) = dict(plain.named_parameters())

    def coarse_part(fine):
        value = torch.func.functional_call(loss, {"proxies": fine}, (x, labels))
        return value - torch.func.functional_call(plain, {parameter: fine}, (x, labels))

    fine = proxies.clone().requires_grad_()
    assert torch.autograd.grad(coarse_part(fine), fine)[0].abs().max() > 1e-6
    assert torch.autograd.gradcheck(coarse_part, fine)


def test_learned_proxies_start_at_the_centroids_and_are_returned_once():
    loss = create_loss("hpl", 9, 2, coarse_proxies=3, warmup_epochs=2, levels=3).double()
    with torch.no_grad():
        loss.proxies.copy_(fan(0, 90, 200))
    assert [len(loss.refresh(pytest.fail)) for _ in range(5)] == [0, 0, 2, 0, 0]
    below = loss.proxies.detach()
    for level in loss.coarse:
        centroids = level.centroids(below, level.parent)
        torch.testing.assert_close(level.proxies.detach(), centroids)
        below = centroids


@torch.no_grad()
def move(proxies):
    """Turn all proxies a little, so that k-means starts from others, and move class 0 opposite."""
    turn = torch.deg2rad(torch.tensor(8.0, dtype=torch.float64))
    rotation = torch.stack([turn.cos(), -turn.sin(), turn.sin(), turn.cos()]).view(2, 2)
    proxies.copy_(proxies @ rotation.T)
    proxies[0] = -proxies[0]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("levels", [2, 3])
def test_a_group_keeps_its_coarse_proxy_when_classes_are_grouped_again(seed, levels):
    proxies = fan(0, 70, 140, 210, 280)
    order = torch.randperm(15, generator=torch.Generator().manual_seed(seed))
    loss = hpl(proxies[order], coarse_proxies=5, levels=levels)
    before = loss.artefact()["parents"]
    learned = [level.proxies.detach().clone() for level in loss.coarse]
    move(loss.proxies)
    assert loss.refresh(pytest.fail) == ()
    assert all(map(torch.equal, [level.proxies for level in loss.coarse], learned))
    after = loss.artefact()["parents"]
    assert [group[1:] for group in after] == [group[1:] for group in before]
    assert after[0][0] != before[0][0]


@pytest.mark.parametrize("seed", range(5))
def test_the_moments_of_the_optimiser_stay_with_their_group(seed):
    """Adam has moments of the coarse proxy of one group alone, when classes are grouped again."""
    order = torch.randperm(15, generator=torch.Generator().manual_seed(seed))
    loss = hpl(fan(0, 70, 140, 210, 280)[order], coarse_proxies=5)
    optimizer = torch.optim.Adam(loss.param_groups(1e-6))
    coarse = loss.coarse[0].proxies
    (coarse[1].sum() + 0 * loss.proxies.sum()).backward()
    optimizer.step()

    def members():
        (group,) = loss.artefact()["parents"]
        learned = optimizer.state[coarse]["exp_avg"].any(dim=1)
        return [c for c in range(1, 15) if learned[group[c]]]

    before = members()
    move(loss.proxies)
    assert loss.refresh(pytest.fail) == ()
    assert members() == before


def test_classes_are_grouped_after_warm_up_and_then_at_each_interval():
    loss = create_loss("hpl", 9, 2, coarse_proxies=3, warmup_epochs=1, recluster_every=2)
    changed = []
    for _ in range(6):
        with torch.no_grad():
            loss.proxies.copy_(fan(0, 90, 200)[torch.randperm(9)])
        before = loss.coarse[0].parent.clone()
        loss.refresh(pytest.fail)
        changed.append(not torch.equal(before, loss.coarse[0].parent))
    assert changed == [False, True, False, True, False, True]


def test_the_artefact_holds_the_groups_after_the_first_grouping():
    loss = create_loss("hpl", 6, 4, torch.tensor([[0, 0, 1, 1, 2, 2], [0] * 4 + [1] * 2]), levels=3)
    assert loss.artefact() == {}
    loss.refresh(pytest.fail)
    assert loss.artefact() == {}
    loss.refresh(pytest.fail)
    parents = json.loads(json.dumps(loss.artefact()))["parents"]
    assert [len(groups) for groups in parents] == [6, 6]


def test_given_groups_may_have_any_numbers():
    super_classes = torch.tensor([[5, 40, 5, 12, 40, 5], [7, 3, 7, 3, 3, 7]])
    for levels, expected in (
        (2, [[0, 2, 0, 1, 2, 0]]),
        (3, [[0, 2, 0, 1, 2, 0], [1, 0, 1, 0, 0, 1]]),
    ):
        loss = create_loss("hpl", 6, 4, super_classes, hierarchy="given", levels=levels)
        for _ in range(3):
            loss.refresh(pytest.fail)
            parents = loss.artefact().get("parents", expected)
            assert parents == expected
        assert [level.groups for level in loss.coarse] == [3, 2][: levels - 1]


def test_the_classes_of_online_products_have_twelve_parents():
    """The training split of SOP has 11,318 classes of 12 kinds."""
    kinds = torch.arange(11318).remainder(12)[torch.randperm(11318)]
    loss = create_loss("hpl", 11318, 2, kinds[None], hierarchy="given", warmup_epochs=0)
    loss.refresh(pytest.fail)
    assert loss.coarse[0].groups == 12
    assert loss.artefact()["parents"] == [kinds.tolist()]
    assert loss.coarse[0].proxies.norm(dim=1).tolist() == pytest.approx([1] * 12)


@pytest.mark.parametrize(("classes", "groups"), [(1, 1), (2, 2), (8, 2), (98, 10), (11318, 1132)])
def test_the_default_number_of_groups_is_a_tenth_of_the_classes(classes, groups):
    assert [level.groups for level in create_loss("hpl", classes, 2).coarse] == [groups]


def test_each_further_level_has_a_tenth_of_the_groups_below():
    def sizes(classes, **options):
        return [level.groups for level in create_loss("hpl", classes, 2, **options).coarse]

    assert sizes(11318, levels=5) == [1132, 113, 11, 2]
    assert sizes(98, levels=4) == [10, 2, 2]
    assert sizes(98, levels=3, coarse_proxies=50) == [50, 5]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, r"'given' with levels 2 needs .* 1 level\(s\) of super-classes, and this has 0"),
        ({"parents": [[0, 0, 1, 1]], "levels": 3}, r"levels 3 needs .* 2 level.* this has 1"),
        (
            {"parents": [[0, 0, 1, 1], [0, 1, 1, 1]], "levels": 3},
            "level_2 divides super-classes of level_1: no tree",
        ),
        ({"hierarchy": "kmeans", "coarse_proxies": 5}, "coarse_proxies 5 is more than 4 classes"),
    ],
)
def test_inconsistent_options_are_refused(options, message):
    parents = torch.tensor(options["parents"]) if "parents" in options else None
    with pytest.raises(ValueError, match=message):
        create_loss("hpl", 4, 2, **{"hierarchy": "given", **options, "parents": parents})


def test_the_options_of_a_base_have_its_own_defaults():
    declared = {
        name: read_declarations(f"dmlbench.losses.{name}").options for name in (*BASES, "hpl")
    }
    for name in BASES:
        for option in declared[name].keys() & declared["hpl"].keys() - {"proxies_lr_factor"}:
            expected, default = declared[name][option][1], declared["hpl"][option][1]
            assert default == expected or (option == "temperature" and default is None)


def test_the_code_of_a_run_includes_the_grouping_and_the_bases():
    names = {name.removeprefix("dmlbench.losses.") for name in code_digests("dmlbench.losses.hpl")}
    assert {"hpl", "_grouping", "base", *BASES} <= names


@pytest.mark.parametrize("name", BASES)
@pytest.mark.parametrize(("coarse", "count"), [("learned", 3), ("centroid", 1)])
def test_all_proxies_learn_100_times_faster_than_the_backbone(name, coarse, count):
    loss = create_loss("hpl", 20, 4, base=name, coarse=coarse, levels=3)
    (group,) = loss.param_groups(1e-4)
    assert len(group["params"]) == count
    assert group["lr"] == pytest.approx(1e-2)
