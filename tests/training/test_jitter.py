"""Colour jitter equals torchvision's ColorJitter, image by image."""

from itertools import permutations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare, kstest
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torchvision.transforms import ColorJitter
from torchvision.transforms import functional as reference

from dmlbench.conformance.waits import NoHost, NoReading
from dmlbench.study.numbers import SMALLEST
from dmlbench.study.settings import Augmentation, Jitter
from dmlbench.training import batches
from dmlbench.training.jitter import draw, jitter

KINDS = [*Jitter.model_fields]  # in torchvision's order
ALL = Jitter(brightness=0.4, contrast=0.3, saturation=1.5, hue=0.2)


def tensors(factors):
    return {kind: torch.from_numpy(values) for kind, values in factors.items()}


def changes_of(factors, place):
    """The changes of one image, in their order: their kinds and factors."""
    blends = {kind: values for kind, values in factors.items() if kind != "hue"}
    steps = max((len(values) for values in blends.values()), default=0)
    hue = [("hue", float(factors["hue"][place]))] if "hue" in factors else []
    before, after = (
        [
            (kind, float(values[step, place]))
            for step in part
            for kind, values in blends.items()
            if values[step, place] != 1
        ]
        for part in (range(steps // 2), range(steps // 2, steps))
    )
    return [*before, *hue, *after]


def torchvisions(image, factors, place):
    """One image, changed by torchvision in the order of its changes."""
    for kind, factor in changes_of(factors, place):
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
    drawn = tensors(draw(strengths, 5, random))
    factors = {kind: values.double() for kind, values in drawn.items()}
    changed = jitter(images, factors)
    for place, image in enumerate(images):
        # the hue of torchvision has only six digits, in float64 too
        assert torch.allclose(changed[place], torchvisions(image, factors, place), atol=3e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_strengths_have_the_distribution_of_torchvision_s(kind):
    factors = draw(ALL, 4000, np.random.default_rng(0))
    ours = [dict(changes_of(factors, place))[kind] for place in range(4000)]
    reference_jitter = ColorJitter(**dict(ALL))
    bounds = {name: getattr(reference_jitter, name) for name in KINDS}
    column = 1 + KINDS.index(kind)
    torch.manual_seed(0)
    expected = [ColorJitter.get_params(*bounds.values())[column] for _ in range(4000)]
    assert kstest(ours, expected).pvalue > 1e-3


def test_every_image_has_its_own_order_and_all_orders_are_equally_likely():
    factors = draw(ALL, 4800, np.random.default_rng(0))
    orders = [
        tuple(kind for kind, _ in changes_of(factors, place))  # each change once
        for place in range(4800)
    ]
    counts = [orders.count(order) for order in permutations(KINDS)]
    assert sum(counts) == 4800
    assert chisquare(counts).pvalue > 1e-3


def test_an_image_has_at_most_one_change_in_a_step():
    factors = draw(ALL, 50, np.random.default_rng(0))
    hue = factors.pop("hue")
    changed = np.stack([values != 1 for values in factors.values()])
    assert changed.shape == (3, 6, 50)  # kinds, steps, images
    assert changed.sum(0).max() == 1
    assert hue.shape == (50,)


class Kernels(TorchDispatchMode):
    """Counts the kernels, and the bytes that they read and write."""

    VIEWS = ("expand", "slice", "select", "split", "unsqueeze", "view", "unbind", "empty_like")

    def __init__(self):
        super().__init__()
        self.kernels = self.bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if func.overloadpacket.__name__ not in self.VIEWS:
            self.kernels += 1
            read = [value for value in tree_leaves(args) if isinstance(value, torch.Tensor)]
            self.bytes += sum(value.nbytes for value in [*read, *tree_leaves(result)])
        return result


def test_the_hue_of_a_batch_is_changed_once_so_few_bytes_move():
    """Four passes over the hue took 196 kernels and 250 times the bytes of the batch."""
    images = torch.rand(24, 3, 16, 16)
    factors = tensors(draw(ALL, 24, np.random.default_rng(0)))
    with Kernels() as counted:
        jitter(images, factors)
    assert counted.kernels < 100
    assert counted.bytes < 110 * images.nbytes


@pytest.mark.parametrize("channels", [1, 3])
def test_an_image_is_changed_as_it_is_alone(channels):
    images = torch.rand(8, channels, 5, 5)
    factors = tensors(draw(ALL, 8, np.random.default_rng(0)))
    changed = jitter(images, factors)
    for place in range(8):
        own = {kind: values[..., place : place + 1] for kind, values in factors.items()}
        assert torch.equal(jitter(images[place : place + 1], own)[0], changed[place])


def test_no_change_waits_for_the_device():
    images = torch.rand(2, 3, 8, 8)
    factors = tensors(draw(ALL, 2, np.random.default_rng(0)))
    with NoReading(), NoHost():
        jitter(images, factors)


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
