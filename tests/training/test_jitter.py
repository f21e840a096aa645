"""Colour jitter equals torchvision's ColorJitter, image by image."""

from itertools import permutations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare, kstest
from torchvision.transforms import ColorJitter
from torchvision.transforms import functional as reference

from dmlbench.conformance.execution import NoHost, NoReading
from dmlbench.study.numbers import SMALLEST
from dmlbench.study.settings import Augmentation, Jitter
from dmlbench.training import batches
from dmlbench.training.jitter import CHANGES, draw, jitter

ALL = Jitter(brightness=0.4, contrast=0.3, saturation=1.5, hue=0.2)


def torchvisions(image, factors, place):
    """One image, changed by torchvision in the order of its turns."""
    for turn in range(len(factors)):
        for kind, of_images in factors.items():
            factor = of_images[turn, place].item()
            if factor != (kind != "hue"):
                image = getattr(reference, f"adjust_{kind}")(image, factor)
    return image


def strengths_up_to(largest):
    return st.just(0.0) | st.floats(SMALLEST, largest)


@settings(deadline=None, max_examples=40)
@given(
    st.sampled_from([1, 3]),
    strengths_up_to(2),
    strengths_up_to(2),
    strengths_up_to(2),
    strengths_up_to(0.5),
    st.integers(0, 2**32),
)
def test_each_image_is_changed_as_by_torchvision(
    channels, brightness, contrast, saturation, hue, seed
):
    strengths = Jitter(brightness=brightness, contrast=contrast, saturation=saturation, hue=hue)
    random = np.random.default_rng(seed)
    images = torch.from_numpy(random.random((5, channels, 7, 6)))
    images[0] = 0.25  # gray, so without a hue
    images[1] = images[1].round()  # pure colours, two or three equally strong
    factors = {kind: torch.from_numpy(f).double() for kind, f in draw(strengths, 5, random).items()}
    changed = jitter(images, factors)
    for place, image in enumerate(images):
        # the hue of torchvision has only six digits, in float64 too
        assert torch.allclose(changed[place], torchvisions(image, factors, place), atol=3e-6)


@pytest.mark.parametrize("kind", CHANGES)
def test_strengths_have_the_distribution_of_torchvision_s(kind):
    drawn = draw(ALL, 4000, np.random.default_rng(0))[kind]
    neutral = float(kind != "hue")
    ours = drawn[(drawn != neutral).argmax(0), np.arange(4000)]
    reference_jitter = ColorJitter(**dict(ALL))
    bounds = {name: getattr(reference_jitter, name) for name in CHANGES}
    column = 1 + [*CHANGES].index(kind)
    torch.manual_seed(0)
    expected = [ColorJitter.get_params(*bounds.values())[column] for _ in range(4000)]
    assert kstest(ours, expected).pvalue > 1e-3


def test_every_image_has_its_own_order_and_all_orders_are_equally_likely():
    factors = draw(ALL, 4800, np.random.default_rng(0))
    changed = np.stack([of_images != (kind != "hue") for kind, of_images in factors.items()])
    assert (changed.sum(0) == 1).all()  # one change a turn
    assert (changed.sum(1) == 1).all()  # each change once
    orders = changed.argmax(0).T.tolist()
    counts = [orders.count([*order]) for order in permutations(range(4))]
    assert sum(counts) == 4800
    assert chisquare(counts).pvalue > 1e-3


def test_no_change_waits_for_the_device():
    factors = draw(ALL, 2, np.random.default_rng(0))
    images = torch.rand(2, 3, 8, 8)
    tensors = {kind: torch.from_numpy(values) for kind, values in factors.items()}
    with NoReading(), NoHost():
        jitter(images, tensors)


def test_a_change_without_strength_is_not_drawn():
    assert draw(Jitter(), 9, np.random.default_rng(0)) == {}
    assert set(draw(Jitter(hue=0.1, contrast=2), 9, np.random.default_rng(0))) == {
        "contrast",
        "hue",
    }


def test_jitter_changes_neither_the_crops_nor_the_flips():
    sizes = np.full((30, 2), 40)
    plain = batches.draw(sizes, Augmentation(), np.random.default_rng(3))
    boxes, drawn = batches.draw(sizes, Augmentation(jitter=ALL), np.random.default_rng(3))
    assert np.array_equal(boxes, plain[0])
    assert torch.equal(drawn["mirrored"], plain[1]["mirrored"])


def test_a_batch_is_first_mirrored_and_then_jittered():
    squares = torch.randint(0, 256, (6, 3, 8, 8), dtype=torch.uint8)
    sizes = np.full((6, 2), 8)
    _, drawn = batches.draw(sizes, Augmentation(jitter=ALL), np.random.default_rng(0))
    factors = {kind: values for kind, values in drawn.items() if kind != "mirrored"}
    mirrored = batches.floats(squares, drawn["mirrored"])
    assert torch.equal(batches.floats(squares, **drawn), jitter(mirrored, factors))
    assert not torch.equal(jitter(mirrored, factors), mirrored)
