import importlib.util
import warnings
from itertools import product
from pathlib import Path

import pytest
import torch
from torch.nn import functional

from dmlbench.losses import create_loss
from dmlbench.losses._usage import UnpreparedLoss


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _unprepared():
    """Most tests call a loss on one batch, without a training loop."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnpreparedLoss)
        yield


@pytest.fixture
def at():
    """Build unit vectors (n, 2), float64, at angles in degrees."""

    def build(*degrees):
        radians = torch.deg2rad(torch.tensor(degrees, dtype=torch.float64))
        return torch.stack([radians.cos(), radians.sin()], dim=1)

    return build


@pytest.fixture
def batch(at):
    """The batch of the published oracle values: two classes of two, and labels."""
    return at(0, 60, 90, 180), torch.tensor([0, 0, 1, 1])


@pytest.fixture
def ready():
    """Create a loss in the midst of a training: after its warm-up, prepared for the epoch."""

    def build(name, num_classes=7, embedding_dim=12, seed=0, **options):
        torch.manual_seed(seed)
        if name in ("htl", "hpl"):
            options = {"warmup_epochs": 0, **options}
        loss = create_loss(name, num_classes, embedding_dim, **options)
        means = torch.randn(num_classes, embedding_dim)
        labels = torch.arange(num_classes).repeat_interleave(5)
        embeddings = means[labels] + 0.5 * torch.randn(len(labels), embedding_dim)
        loss.refresh(lambda: (functional.normalize(embeddings), labels))
        return loss

    return build


# Fixtures of the tests of HTL. They are functions, of session scope for hypothesis.


@pytest.fixture(scope="session")
def create_htl():
    """Create HTL in float64 that builds its first tree before the first epoch."""

    def create(num_classes, dim=4, **options):
        return create_loss("htl", num_classes, dim, **{"warmup_epochs": 0, **options}).double()

    return create


@pytest.fixture(scope="session")
def build_htl(create_htl):
    """Create HTL with the tree of a training set."""

    def build(embeddings, labels, **options):
        loss = create_htl(int(labels.max()) + 1, embeddings.shape[1], **options)
        loss.refresh(lambda: (functional.normalize(embeddings), labels))
        return loss

    return build


@pytest.fixture(scope="session")
def draw_classes():
    """Draw unit vectors about random means, and their labels."""

    def draw(seed, classes=6, images=4, dim=3, spread=0.4):
        random = torch.Generator().manual_seed(seed)
        labels = torch.arange(classes).repeat_interleave(images)
        means = torch.randn(classes, dim, generator=random, dtype=torch.float64)
        noise = torch.randn(len(labels), dim, generator=random, dtype=torch.float64)
        return functional.normalize(means[labels] + spread * noise), labels

    return draw


@pytest.fixture(scope="session")
def brute_force_distances():
    """Mean squared distances between classes, and within each, from all pairs of images."""

    def compute(embeddings, labels):
        classes = int(labels.max()) + 1
        squared = torch.cdist(embeddings, embeddings) ** 2
        distances = torch.zeros(classes, classes, dtype=torch.float64)
        for p, q in product(range(classes), repeat=2):
            block = squared[labels == p][:, labels == q]
            n = len(block)
            distances[p, q] = block.sum() / max(n * n - n, 1) if p == q else block.mean()
        return distances

    return compute


@pytest.fixture(scope="session")
def uniting_levels():
    """The level that unites each pair of classes, from HTL's nodes."""
    return lambda nodes: (nodes[:, :, None] != nodes[:, None, :]).sum(axis=0)


def load_module(name):
    """Load a module of this folder, which is not on the path."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def references():
    """The losses written as loops."""
    return load_module("references")


@pytest.fixture(scope="session")
def mutate():
    """The program that puts bugs into losses and runs their tests."""
    return load_module("mutate")
