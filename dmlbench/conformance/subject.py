"""The loss that is checked: found by name or in a file, prepared as a training would have it."""

from __future__ import annotations

import contextlib
import importlib.util
import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import torch
from pydantic import BaseModel, ValidationError
from torch import Tensor, nn
from torch.nn import functional

from dmlbench import grid, source
from dmlbench.installed import UnusableLoss
from dmlbench.losses import create_loss, list_losses
from dmlbench.losses.base import Loss
from dmlbench.problems import describe, did_you_mean

C, D, N = 7, 12, 20  # classes, dimensions, images of a batch
EPOCHS = 3  # in the midst of a training, so many have begun
ZOO = source.PACKAGE / "losses"
SIGNATURE = (
    "def __init__(self, num_classes: int, embedding_dim: int, parents: Tensor | None = None, *, "
    "margin: float = 0.1)"
)


@dataclass(frozen=True)
class Subject:
    title: str
    make: Callable[[int, int, Tensor | None], Loss]
    """The loss for num_classes, embedding_dim and parents."""
    options: Mapping[str, Any]
    path: Path | None = None
    """Its file, if it is its only loss."""

    @property
    def in_zoo(self) -> bool:
        return self.path is not None and self.path.parent == ZOO

    @cached_property
    def kind(self) -> Literal["native", "wrapped", "own", "library"]:
        """Written in dmlbench/losses; or there, by wrapping one of pytorch-metric-learning; one's
        own; or `pml.Name`."""
        if self.title.startswith("pml."):
            return "library"
        if not self.in_zoo:
            return "own"
        bases = {base.__module__ for base in type(self.create()).__mro__}
        return "wrapped" if "dmlbench.losses._pml" in bases else "native"

    @cached_property
    def by_design(self) -> Mapping[str, str]:
        return type(self.create()).BY_DESIGN

    @cached_property
    def declared(self) -> source.Declarations:
        """What its file says, if it can be read; that is a check of its own."""
        with contextlib.suppress(TypeError):
            if self.path:
                return source.declarations_in(self.path)
        return source.Declarations({}, {})

    def create(self, num_classes: int = C, embedding_dim: int = D, seed: int = 0) -> Loss:
        """A new loss; with made super-classes if it asks for some."""
        torch.manual_seed(seed)
        try:
            return self.make(num_classes, embedding_dim, None)
        except ValueError:
            torch.manual_seed(seed)
            classes = torch.arange(num_classes)
            return self.make(num_classes, embedding_dim, torch.stack([classes // 2, classes // 4]))

    def prepared(self, epochs: int = EPOCHS) -> Loss:
        """A loss that has begun so many epochs."""
        loss = self.create()
        for _ in range(epochs):
            loss.refresh(training_set)
        return loss

    def stages(self) -> list[tuple[str, Loss]]:
        """The loss before its first epoch and, if epochs change it, in the midst of a training."""
        new, ready = self.create(), self.prepared()
        before, after = new.state_dict(), ready.state_dict()
        if all(same(before[key], after.get(key)) for key in before):
            return [("at any epoch", ready)]
        return [("before its first epoch", new), (f"after {EPOCHS} epochs", ready)]

    def batch_size(self, about: int) -> int:
        """The largest number up to `about` that the loss's own batches allow."""
        names = self.declared.constants.get("BATCH_DIVISORS", ())
        whole = math.prod(self.options[name] for name in names)
        return max(about // whole, 1) * whole


def same(one: Any, other: Any) -> bool:
    """Whether two entries of a state are equal, NaNs included."""
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return one.shape == other.shape and bool(
            ((one == other) | ((one != one) & (other != other))).all()
        )
    return bool(one == other)


def batch() -> tuple[Tensor, Tensor]:
    """Embeddings (N, D) of any length, float32, and labels: two or three images a class."""
    random = torch.Generator().manual_seed(0)
    labels = torch.arange(C).repeat(3)[:N]
    means = torch.randn(C, D, generator=random)
    return torch.randn(N, D, generator=random) * 3 + means[labels], labels


def training_set() -> tuple[Tensor, Tensor]:
    """What `embed` gives to `refresh`: unit embeddings of five images a class, and labels."""
    random = torch.Generator().manual_seed(1)
    labels = torch.arange(C).repeat_interleave(5)
    means = torch.randn(C, D, generator=random)
    embeddings = means[labels] + 0.5 * torch.randn(len(labels), D, generator=random)
    return functional.normalize(embeddings), labels


def value_of(loss: Loss, embeddings: Tensor, labels: Tensor) -> Tensor:
    """The loss, with the same draws each time where it draws."""
    torch.manual_seed(1)
    value: Tensor = loss(embeddings, labels)
    return value


def value_and_gradient(loss: Loss, embeddings: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The loss, and its gradient (N, D): 0 where the value does not depend on the embeddings."""
    embeddings = embeddings.detach().clone().requires_grad_()
    value = value_of(loss, embeddings, labels)
    (gradient,) = torch.autograd.grad(value, embeddings, materialize_grads=True)
    return value.detach(), gradient


def find(asked: str, given: Mapping[str, Any]) -> Subject:
    """The loss of a file, whose path ends in .py, or by the name that a study uses.

    Raises:
        UnusableLoss: there is none, or the options `given` do not fit; the message says why.
    """
    path = Path(asked).resolve()
    subject = _in_file(asked, path, given) if path.suffix == ".py" else _by_name(asked, given)
    try:
        subject.create()
    except Exception as error:  # whatever its constructor raises
        wrong = isinstance(error, TypeError) and subject.kind == "own"
        needed = f"\nIts constructor must be as here, options after the star: {SIGNATURE}"
        raise UnusableLoss(
            f"{asked}: it cannot be made with num_classes={C}, embedding_dim={D} and options "
            f"{dict(subject.options)}: {type(error).__name__}: {error}"
            f"{needed if wrong else ''}"
        ) from None
    return subject


def _by_name(name: str, given: Mapping[str, Any]) -> Subject:
    try:
        model = grid.options_model(name)
    except UnusableLoss as error:
        hint = str(error) or did_you_mean(name, list_losses())
        raise UnusableLoss(f"no loss '{name}'. {hint}") from None
    except TypeError as error:  # an option of its file
        raise UnusableLoss(str(error)) from None
    options = _checked(name, model, given)

    def make(num_classes: int, embedding_dim: int, parents: Tensor | None) -> Loss:
        return create_loss(name, num_classes, embedding_dim, parents, **options)

    return Subject(name, make, options, None if "." in name else ZOO / f"{name}.py")


def _in_file(asked: str, path: Path, given: Mapping[str, Any]) -> Subject:
    cls = _only_loss(asked, path)
    if path.parent == ZOO:
        return _by_name(path.stem, given)
    try:
        model = grid.model_of(path.stem, grid.bounded_options(source.declarations_in(path)))
    except TypeError as error:
        if given:
            raise UnusableLoss(str(error)) from None
        options: dict[str, Any] = {}  # its defaults; the check of the options will tell
    else:
        options = _checked(asked, model, given)
    return Subject(asked, lambda *sizes: cls(*sizes, **options), options, path)


def _only_loss(asked: str, path: Path) -> type[Loss]:
    if not path.is_file():
        raise UnusableLoss(f"there is no file {asked}.")
    try:
        module = _imported(path)
    except Exception as error:  # whatever the file raises
        hint = " A module of a package is checked by its import path: my_package.my_module.MyLoss."
        hint = hint if isinstance(error, ImportError) else ""
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise UnusableLoss(f"{asked} does not import: {reason}.{hint}") from None
    modules = [
        value
        for name, value in vars(module).items()
        if isinstance(value, type) and issubclass(value, nn.Module)
        if value.__module__ == module.__name__ and not name.startswith("_")
    ]
    losses = [cls for cls in modules if issubclass(cls, Loss)]
    if len(losses) == 1:
        return losses[0]
    hint = ""
    if losses:
        hint = " Check each by its import path: my_package.my_module.MyLoss."
    elif modules:
        hint = (
            f" {modules[0].__name__} is an nn.Module and no Loss: let it subclass "
            "dmlbench.losses.base.Loss, and call its forward `compute`."
        )
    raise UnusableLoss(
        f"{asked}: a file holds exactly one public subclass of dmlbench.losses.base.Loss; "
        f"found: {', '.join(cls.__name__ for cls in losses) or 'none'}.{hint}"
    )


def _imported(path: Path) -> ModuleType:
    if path.parent == ZOO:
        return importlib.import_module(f"dmlbench.losses.{path.stem}")
    spec = importlib.util.spec_from_file_location(f"checked_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _checked(name: str, model: type[BaseModel], given: Mapping[str, Any]) -> dict[str, Any]:
    try:
        return model.model_validate(given).model_dump(mode="json")
    except ValidationError as error:
        problems = " ".join(f"--option {problem}" for problem in describe(error, model))
        missing = [str(item["loc"][0]) for item in error.errors() if item["type"] == "missing"]
        hint = " Add " + " ".join(f"--option {option}=..." for option in missing) if missing else ""
        raise UnusableLoss(f"{name}: {problems}{hint}") from None
