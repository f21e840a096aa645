"""The loss that is checked: found by name or in a file, and prepared as in a training."""

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

from dmlbench.losses import create_loss, list_losses
from dmlbench.losses._trial import explain
from dmlbench.losses.base import Loss
from dmlbench.study.error_messages import describe_errors
from dmlbench.study.loss_options import bounded_options, create_options_model, options_model
from dmlbench.utils.declarations import Declarations, read_declarations_of
from dmlbench.utils.errors import UnusableLoss
from dmlbench.utils.modules import PACKAGE, public_classes
from dmlbench.utils.text import did_you_mean

C, D, N = 7, 12, 20  # classes, dimensions, images of a batch
EPOCHS = 3  # epochs that a loss has begun if a check needs it in the middle of a training
LOSSES = PACKAGE / "losses"


@dataclass(frozen=True)
class Subject:
    """A loss with its options, as the checks take it."""

    title: str
    """Its name, as a study has it; or its file, as it was given."""
    make: Callable[[int, int, Tensor | None], Loss]
    """Creates the loss for num_classes, embedding_dim and parents."""
    options: Mapping[str, Any]
    path: Path | None = None
    """Its file; None if the file may hold other losses too."""

    @property
    def in_package(self) -> bool:
        """Whether its file is one of dmlbench/losses."""
        return self.path is not None and self.path.parent == LOSSES

    @cached_property
    def kind(self) -> Literal["native", "wrapped", "own", "library"]:
        """`native`: written in dmlbench/losses; `wrapped`: there, but by pytorch-metric-learning;
        `own`: the user's; `library`: `pml.Name`."""
        if self.title.startswith("pml."):
            return "library"
        if not self.in_package:
            return "own"
        bases = {base.__module__ for base in type(self.create()).__mro__}
        return "wrapped" if "dmlbench.losses._pml" in bases else "native"

    @cached_property
    def by_design(self) -> Mapping[str, str]:
        """What its class declares in BY_DESIGN: name of a check -> reason."""
        return type(self.create()).BY_DESIGN

    @cached_property
    def declared(self) -> Declarations:
        """The declarations of its file; empty if they cannot be read, which a check reports."""
        with contextlib.suppress(TypeError):
            if self.path:
                return read_declarations_of(self.path)
        return Declarations({}, {})

    def create(self, num_classes: int = C, embedding_dim: int = D, seed: int = 0) -> Loss:
        """A new loss; with super-classes if it raises without them."""
        torch.manual_seed(seed)
        try:
            return self.make(num_classes, embedding_dim, None)
        except ValueError:
            torch.manual_seed(seed)
            classes = torch.arange(num_classes)
            return self.make(num_classes, embedding_dim, torch.stack([classes // 2, classes // 4]))

    def prepared(self, epochs: int = EPOCHS) -> Loss:
        """A loss that has begun `epochs` epochs."""
        loss = self.create()
        for _ in range(epochs):
            loss.refresh(training_set)
        return loss

    def stages(self) -> list[tuple[str, Loss]]:
        """The loss before its first epoch and, if epochs change it, in the middle of a training."""
        new, ready = self.create(), self.prepared()
        before, after = new.state_dict(), ready.state_dict()
        if all(same(before[key], after.get(key)) for key in before):
            return [("at any epoch", ready)]
        return [("before its first epoch", new), (f"after {EPOCHS} epochs", ready)]

    def batch_size(self, about: int) -> int:
        """A batch size that the loss's `batches` can fill: the largest one up to `about`."""
        return self._multiple("BATCH_DIVISORS", about)

    def dimension(self, about: int) -> int:
        """A dimension of embeddings that the loss can take: the largest one up to `about`."""
        return self._multiple("DIM_DIVISORS", about)

    def _multiple(self, divisors: str, about: int) -> int:
        divisor = math.prod(
            self.options[name] for name in self.declared.constants.get(divisors, ())
        )
        return max(about // divisor, 1) * divisor


def same(a: Any, b: Any) -> bool:
    """Whether two entries of a state are equal. NaN equals NaN."""
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return a.shape == b.shape and bool(((a == b) | ((a != a) & (b != b))).all())
    return bool(a == b)


def batch(seed: int = 0) -> tuple[Tensor, Tensor]:
    """Embeddings (N, D) of any length, float32, and labels (N,): two or three images per class."""
    random = torch.Generator().manual_seed(seed)
    labels = torch.arange(C).repeat(3)[:N]
    means = torch.randn(C, D, generator=random)
    return torch.randn(N, D, generator=random) * 3 + means[labels], labels


def draw(
    classes: int, per_class: int, dim: int = D, noise: float = 1.5, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Embeddings (classes x per_class, dim) of classes that overlap, float64, and their labels.

    `noise` is the deviation of an image from the mean of its class; that of the means is 1.
    """
    random = torch.Generator().manual_seed(seed)
    labels = torch.arange(classes).repeat(per_class)
    means = torch.randn(classes, dim, generator=random, dtype=torch.float64)
    deviations = torch.randn(len(labels), dim, generator=random, dtype=torch.float64)
    return means[labels] + noise * deviations, labels


def training_set() -> tuple[Tensor, Tensor]:
    """An `embed` for `refresh`: unit embeddings of five images per class, and labels."""
    random = torch.Generator().manual_seed(1)
    labels = torch.arange(C).repeat_interleave(5)
    means = torch.randn(C, D, generator=random)
    embeddings = means[labels] + 0.5 * torch.randn(len(labels), D, generator=random)
    return functional.normalize(embeddings), labels


def value_of(loss: Loss, embeddings: Tensor, labels: Tensor, seed: int = 1) -> Tensor:
    """The value of the loss. A loss that draws random numbers draws the same by the same seed.

    It gets copies, so that a loss which overwrites its inputs fails the check of that alone.
    """
    # torch.manual_seed takes 0.3 ms, for the GPUs
    seed_draws = torch.manual_seed if embeddings.is_cuda else torch.default_generator.manual_seed
    seed_draws(seed)
    value: Tensor = loss(embeddings.clone(), labels.clone())
    return value


def value_and_gradient(loss: Loss, embeddings: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The value, and its gradient (N, D): 0 if the value does not depend on the embeddings."""
    embeddings = embeddings.detach().clone().requires_grad_()
    value = value_of(loss, embeddings, labels)
    (gradient,) = torch.autograd.grad(value, embeddings, materialize_grads=True)
    return value.detach(), gradient


def find_loss(loss: str, given: Mapping[str, Any]) -> Subject:
    """The loss in a file, whose path ends in .py, or by the name that a study uses.

    Raises:
        UnusableLoss: there is none, or the options `given` do not fit; the message says why.
    """
    path = Path(loss).resolve()
    subject = _in_file(loss, path, given) if path.suffix == ".py" else _by_name(loss, given)
    try:
        subject.create()
    except (Exception, SystemExit) as error:  # its constructor may raise anything
        sizes = {"num_classes": C, "embedding_dim": D}
        problem = explain(error, sizes, subject.options, is_own=subject.kind == "own")
        raise UnusableLoss(f"{loss}: {problem}") from None
    return subject


def _by_name(name: str, given: Mapping[str, Any]) -> Subject:
    try:
        model = options_model(name)
    except UnusableLoss as error:
        hint = str(error) or did_you_mean(name, list_losses())
        raise UnusableLoss(f"no loss '{name}'. {hint}") from None
    except TypeError as error:  # a wrong declaration in its file
        raise UnusableLoss(str(error)) from None
    options = _check_options(name, model, given)

    def make(num_classes: int, embedding_dim: int, parents: Tensor | None) -> Loss:
        return create_loss(name, num_classes, embedding_dim, parents, **options)

    return Subject(name, make, options, None if "." in name else LOSSES / f"{name}.py")


def _in_file(title: str, path: Path, given: Mapping[str, Any]) -> Subject:
    cls = _only_loss(title, path)
    if path.parent == LOSSES:
        return _by_name(path.stem, given)
    try:
        model = create_options_model(path.stem, bounded_options(read_declarations_of(path)))
    except TypeError as error:
        if given:
            raise UnusableLoss(str(error)) from None
        options: dict[str, Any] = {}  # its defaults; the check of options reports the mistake
    else:
        options = _check_options(title, model, given)
    return Subject(title, lambda *sizes: cls(*sizes, **options), options, path)


def _only_loss(title: str, path: Path) -> type[Loss]:
    if not path.is_file():
        raise UnusableLoss(f"there is no file {title}.")
    try:
        module = _import_file(path)
    except Exception as error:  # the file may raise anything
        hint = " A module of a package is checked by its import path: my_package.my_module.MyLoss."
        hint = hint if isinstance(error, ImportError) else ""
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise UnusableLoss(f"{title} does not import: {reason}.{hint}") from None
    modules = [cls for cls in public_classes(module) if issubclass(cls, nn.Module)]
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
        f"{title}: a file holds exactly one public subclass of dmlbench.losses.base.Loss; "
        f"found: {', '.join(cls.__name__ for cls in losses) or 'none'}.{hint}"
    )


def _import_file(path: Path) -> ModuleType:
    if path.parent == LOSSES:
        return importlib.import_module(f"dmlbench.losses.{path.stem}")
    spec = importlib.util.spec_from_file_location(f"checked_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _check_options(name: str, model: type[BaseModel], given: Mapping[str, Any]) -> dict[str, Any]:
    """All options of the loss: those `given`, and defaults."""
    try:
        return model.model_validate(given).model_dump(mode="json")
    except ValidationError as error:
        problems = " ".join(f"--option {problem}" for problem in describe_errors(error, model))
        missing = [str(item["loc"][0]) for item in error.errors() if item["type"] == "missing"]
        hint = " Add " + " ".join(f"--option {option}=..." for option in missing) if missing else ""
        raise UnusableLoss(f"{name}: {problems}{hint}") from None
