import itertools

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from dmlbench.leaderboard.style import COLOURS, CONTROL_GRAY, colour, marker
from dmlbench.losses import list_losses

TO_CONES = [
    [0.4122214708, 0.5363325363, 0.0514459929],
    [0.2119034982, 0.6806995451, 0.1073969566],
    [0.0883024619, 0.2817188376, 0.6299787005],
]
TO_LAB = [
    [0.2104542553, 0.7936177850, -0.0040720468],
    [1.9779984951, -2.4285922050, 0.4505937099],
    [0.0259040371, 0.7827717662, -0.8086757660],
]
# Machado et al. 2009, Table 1: how linear RGB looks to people without one kind of cones
WITHOUT_CONES = {
    "red": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "green": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
}
FREQUENT = 10  # of style.COLOURS
LIGHTEST = 0.8  # lighter colours are hard to see on white paper


def oklab(code, view=None):
    """Lightness, green-red and blue-yellow in Ottosson's OKLab; `view` changes linear RGB first.

    Equal distances in it look equal; 0.02 is just visible.
    """
    rgb = np.array(to_rgb(code))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    if view is not None:
        linear = np.clip(np.array(view) @ linear, 0, 1)
    return np.array(TO_LAB) @ np.cbrt(np.array(TO_CONES) @ linear)


def test_distances_are_measured_in_oklab():
    np.testing.assert_allclose(oklab("#ffffff"), [1, 0, 0], atol=1e-6)
    np.testing.assert_allclose(oklab("#ff0000"), [0.62796, 0.22486, 0.12585], atol=1e-4)


def test_the_colours_of_our_losses_can_be_told_apart():
    """A new loss fails this? Give it a colour in style.COLOURS."""
    codes = {colour(loss) for loss in (*COLOURS, *list_losses())} | {CONTROL_GRAY}
    assert len(codes) > len(COLOURS)
    for first, second in itertools.combinations(sorted(codes), 2):
        assert np.linalg.norm(oklab(first) - oklab(second)) > 0.09, (first, second)
    assert max(oklab(code)[0] for code in codes) < LIGHTEST


@pytest.mark.parametrize("missing", WITHOUT_CONES)
def test_the_frequent_losses_can_be_told_apart_without_red_or_green_cones(missing):
    view = WITHOUT_CONES[missing]
    np.testing.assert_allclose(oklab("#ffffff", view), [1, 0, 0], atol=1e-5)
    for first, second in itertools.combinations([*COLOURS][:FREQUENT], 2):
        distance = np.linalg.norm(oklab(colour(first), view) - oklab(colour(second), view))
        limit = 0.02 if {first, second} == {"proxy_anchor", "proxynca_pp"} else 0.045
        assert distance > limit, (first, second)
        assert marker(first) != marker(second)


def test_losses_with_similar_colours_have_different_markers():
    for first, second in itertools.combinations(COLOURS, 2):
        if np.linalg.norm(oklab(colour(first)) - oklab(colour(second))) < 0.12:
            assert marker(first) != marker(second), (first, second)


def test_a_loss_looks_the_same_in_every_study():
    assert colour("htl") == COLOURS["htl"]
    assert (colour("pml.CircleLoss"), marker("pml.CircleLoss")) == ("#9d343c", "s")
    assert colour("control_random") == CONTROL_GRAY


@pytest.mark.parametrize("loss", ["softtriple", "triplet"])
def test_variants_of_a_loss_have_different_colours(loss):
    variants = [loss, f"{loss}_k1", f"{loss}_k20", f"{loss}_distance_weighted"]
    assert len({colour(variant) for variant in variants}) == 4
