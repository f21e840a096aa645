import importlib.util
from pathlib import Path

import pytest
import torch

from dmlbench.losses import create_loss


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture
def at():
    """Unit vectors (n, 2), float64, at angles in degrees."""

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
    """A loss as it is in the midst of a training: past its warm-up, prepared for the epoch."""

    def build(name, num_classes=7, embedding_dim=12, seed=0, **options):
        torch.manual_seed(seed)
        if name in ("htl", "hpl"):
            options = {"warmup_epochs": 0, **options}
        loss = create_loss(name, num_classes, embedding_dim, **options)
        means = torch.randn(num_classes, embedding_dim)
        labels = torch.arange(num_classes).repeat_interleave(5)
        embeddings = means[labels] + 0.5 * torch.randn(len(labels), embedding_dim)
        loss.refresh(lambda: (torch.nn.functional.normalize(embeddings), labels))
        return loss

    return build


def module_beside(name):
    """A module of this folder, by its file: the folder of the tests is not on the path."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def references():
    """The losses written as loops."""
    return module_beside("references")


@pytest.fixture(scope="session")
def mutate():
    """What puts bugs into losses, and runs their tests."""
    return module_beside("mutate")
