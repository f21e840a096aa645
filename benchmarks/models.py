"""Checks of the training of four models on a GPU: gradients, memory, warnings, and same bits.

    python benchmarks/models.py steps bits --device cuda

`benchmarks/gpu.py` runs them. With `--device cpu`, small models stand in. The script needs what
`benchmarks/training.py` needs.
"""

from __future__ import annotations

import contextlib
import itertools
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
import torch
from bare import Settings, SyntheticStore, make_store, run_checks, settings
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.optimizer import register_optimizer_step_pre_hook

from dmlbench.backbones.folding import randomise_batch_norms
from dmlbench.backbones.model import EmbeddingModel
from dmlbench.training import determinism, embedding, inputs
from dmlbench.training import train as training
from dmlbench.training.time_limit import Stopped
from dmlbench.utils.cores import usable_cores


class Case(NamedTuple):
    """A backbone with its batch norms: frozen ones are folded, others learn."""

    backbone: Settings
    freeze_bn: bool

    def __str__(self) -> str:
        folded = ", frozen batch norm" if self.freeze_bn else ""
        return f"{self.backbone.type} at {self.backbone.image_size}{folded}"


class Size(NamedTuple):
    """How much is trained."""

    images_per_class: int
    batch: int
    steps: int
    """In an epoch."""
    epochs: int


def backbone(name: str, side: int, dim: int = 128) -> Settings:
    return settings("Backbone", type=name, dim=dim, image_size=side, resize=side * 8 // 7)


CASES = {
    "cuda": [
        Case(backbone("resnet50", 224), freeze_bn=True),
        Case(backbone("resnet50", 224), freeze_bn=False),
        Case(backbone("bn_inception", 224), freeze_bn=True),
        Case(backbone("vit_small_patch16_224", 224), freeze_bn=False),
    ],
    "cpu": [
        Case(backbone("test_resnet", 32, 16), freeze_bn=True),
        Case(backbone("test_resnet", 32, 16), freeze_bn=False),
        Case(backbone("bn_inception", 32, 16), freeze_bn=True),
        Case(backbone("test_vit", 32, 16), freeze_bn=False),
    ],
}
THREE_STEPS = {"cuda": Size(12, 112, 3, 1), "cpu": Size(4, 8, 3, 1)}
SAME_BITS = {"cuda": Size(56, 32, 14, 3), "cpu": Size(4, 8, 2, 2)}
LEAST_COSINE = {"float32": 0.999, "bfloat16": 0.98}
"""Of the embeddings of an image on two devices."""
LEAST_GRADIENT_COSINE = 0.95
"""Of the gradients of all parameters on two devices, in float32."""


def steps(device: torch.device, folder: Path) -> str:
    """Three steps of each model: gradients, memory, warnings, and the same numbers as on a CPU."""
    on_gpu = device.type == "cuda"
    print("| three steps | layers without a gradient | allocated | reserved | cosines to a CPU |")
    print("| --- | ---: | ---: | ---: | --- |")

    def check(case: Case, run: SimpleNamespace, store: SyntheticStore, state: Path) -> None:
        if on_gpu:
            torch.cuda.init()
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            layers, silent = layers_without_gradient(run, store, device, state)
        memory = ["", ""]
        if on_gpu:
            peaks = torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()
            memory = [f"{peak / 1e9:.2f} GB" for peak in peaks]
        cosines = compare_with_cpu(run, store, device)
        print(
            f"| {case} | {len(silent)} of {layers} | {' | '.join(memory)} | "
            f"{', '.join(f'{name} {value:.6f}' for name, value in cosines.items())} |",
            flush=True,
        )
        if determinism.refused:
            print(f"| | not deterministic: {', '.join(determinism.refused)} | | | |", flush=True)
        for message in dict.fromkeys(str(warning.message).partition("\n")[0] for warning in caught):
            print(f"| | warning: {message} | | | |", flush=True)
        assert not silent, f"no gradient: {', '.join(silent)}"
        least = LEAST_COSINE | {"gradient": LEAST_GRADIENT_COSINE}
        lower = [name for name, value in cosines.items() if not value >= least[name]]
        assert not lower, f"another result than on a CPU: {', '.join(lower)}"

    for_each_case(device, folder, THREE_STEPS[device.type], check)
    return "every convolution and linear layer of every model has a gradient"


def layers_without_gradient(
    run: SimpleNamespace, store: SyntheticStore, device: torch.device, state: Path
) -> tuple[int, list[str]]:
    """Train; count the convolutions and linear layers, and name those whose gradient is 0 or NaN.

    Only the first step counts: each layer gets its gradient from all layers after it.
    """
    layers: list[tuple[str, bool]] = []
    with randomised_batch_norms() as models:

        def look(optimizer: torch.optim.Optimizer, arguments: Any, options: Any) -> None:
            for name, module in models[0].named_modules() if not layers else ():
                if isinstance(module, (nn.Conv2d, nn.Linear)):
                    gradient = module.weight.grad
                    size = 0.0 if gradient is None else float(gradient.float().norm())
                    layers.append((name, 0 < size < float("inf")))

        hook = register_optimizer_step_pre_hook(look)
        try:
            history = train(run, store, device, state)[-1]
        finally:
            hook.remove()
    assert layers, "no step was made"
    assert np.isfinite(history[-1]["loss"])
    return len(layers), [name for name, has_gradient in layers if not has_gradient]


def compare_with_cpu(
    run: SimpleNamespace, store: SyntheticStore, device: torch.device
) -> dict[str, float]:
    """Least cosine of the first embeddings on both devices, by precision, and that of gradients."""
    rows = store.split("test").rows
    torch.manual_seed(0)
    with randomised_batch_norms():
        model = inputs.EmbeddingModel(run.model, run.recipe, store.channels).eval()
    cpu, cosines = torch.device("cpu"), {}
    if device.type == "cuda":  # the bits of the CPU do not matter, and it shall be fast
        torch.set_num_threads(usable_cores())
    expected = torch.from_numpy(embedding.embed(model, inputs.open_inputs(run, store), rows, cpu))
    expected_gradient = gradient(model, cpu)
    model.to(device)
    asked = run.recipe.gpu_precision
    for precision in LEAST_COSINE:
        run.recipe.gpu_precision = precision
        embeddings = torch.from_numpy(
            embedding.embed(model, inputs.open_inputs(run, store), rows, device)
        )
        cosines[precision] = functional.cosine_similarity(embeddings, expected).min().item()
    run.recipe.gpu_precision = asked
    similarity = functional.cosine_similarity(gradient(model, device), expected_gradient, dim=0)
    return {**cosines, "gradient": similarity.item()}


@determinism.repeatable
def gradient(model: EmbeddingModel, device: torch.device) -> Tensor:
    """The gradient of all parameters of `model`, which stays in evaluation mode, as one vector."""
    images = torch.rand(4, *model.image_shape, generator=torch.Generator().manual_seed(0))
    for parameter in model.parameters():
        parameter.grad = None
    embeddings = functional.normalize(model(images.to(device)))
    weights = torch.linspace(-1, 1, embeddings.numel(), device=device).view_as(embeddings)
    (embeddings * weights).sum().backward()
    gradients = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
    return torch.cat(gradients).cpu().double()


@contextlib.contextmanager
def randomised_batch_norms() -> Iterator[list[EmbeddingModel]]:
    """New models have random batch norms within this context; it yields the list of them.

    Frozen batch norms of a new model hide mistakes: most convolutions get no gradient.
    """
    models: list[EmbeddingModel] = []

    def create(backbone: Settings, recipe: Settings, channels: int) -> EmbeddingModel:
        model = EmbeddingModel(backbone, recipe, channels)
        randomise_batch_norms(model, torch.Generator().manual_seed(0))
        model.image_shape = (channels, backbone.image_size, backbone.image_size)
        models.append(model)
        return model

    with mock.patch.object(inputs, "EmbeddingModel", create):
        yield models


def bits(device: torch.device, folder: Path) -> str:
    """A seed gives the same bits again, also if a training stops within an epoch and after one."""
    size = SAME_BITS[device.type]
    print("| same bits | second training | resumed training |")
    print("| --- | --- | --- |")

    def check(case: Case, run: SimpleNamespace, store: SyntheticStore, state: Path) -> None:
        with randomised_batch_norms():
            first, second = (trained(run, store, device, state / name) for name in ("1", "2"))
            for count in (size.steps // 2, size.steps - size.steps // 2):
                with contextlib.suppress(Stopped):
                    train(run, store, device, state / "parts", stop_after(count))
                    raise AssertionError("it did not stop")
            resumed = trained(run, store, device, state / "parts")
        assert np.isfinite(first).all(), "the embeddings hold NaN or infinity"
        remarks = [describe_difference(first, other) for other in (second, resumed)]
        print(f"| {case} | {' | '.join(remarks)} |", flush=True)
        assert remarks == ["equal", "equal"], "other bits"

    for_each_case(device, folder, size, check)
    return "all models, bit for bit"


def train(
    run: SimpleNamespace,
    store: SyntheticStore,
    device: torch.device,
    state: Path,
    stop: Callable[[], str | None] = lambda: None,
) -> tuple[EmbeddingModel, nn.Module, list[dict[str, Any]]]:
    """The training itself. Its lines go where errors go, since a table is printed."""
    with contextlib.redirect_stdout(sys.stderr):
        return training.train(run, store, store.split("train"), device, state, stop)


def stop_after(steps: int) -> Callable[[], str | None]:
    calls = itertools.count()
    return lambda: "stop" if next(calls) == steps else None


def trained(
    run: SimpleNamespace, store: SyntheticStore, device: torch.device, state: Path
) -> np.ndarray:
    """The embeddings of the test split after a training."""
    model = train(run, store, device, state)[0]
    return embedding.embed_test(model, store, device, run)[0]


def describe_difference(first: np.ndarray, second: np.ndarray) -> str:
    same = np.array_equal(first, second)
    return "equal" if same else f"**differs by up to {abs(first - second).max():.3g}**"


def for_each_case(
    device: torch.device, folder: Path, size: Size, check: Callable[..., None]
) -> None:
    """Run `check` with each model, its run and its images; a model that fails stops no other.

    Raises:
        AssertionError: some models failed; it says which, and why.
    """
    failures = []
    for number, case in enumerate(CASES[device.type]):
        state = folder / str(number)
        state.mkdir()
        run, store = create_run(case, size, state)
        try:
            check(case, run, store, state)
        except Exception as error:
            traceback.print_exc()
            failures.append(f"{case}: {type(error).__name__}: {error}")
    assert not failures, "; ".join(failures)


def create_run(case: Case, size: Size, folder: Path) -> tuple[SimpleNamespace, SyntheticStore]:
    """A run of `case` that takes seconds, and its images in `folder`."""
    jitter = settings("Jitter", brightness=0.2, contrast=0.2, saturation=0.2, hue=0.05)
    recipe = settings(
        "Recipe",
        epochs=size.epochs,
        batch_size=size.batch,
        freeze_bn=case.freeze_bn,
        augmentation=settings("Augmentation", jitter=jitter),
    )
    images, side = size.steps * size.batch, case.backbone.resize
    file = (side * 5 // 4, side)
    make_store(folder, images, file, 3, side, with_files=False, per_class=size.images_per_class)
    run = SimpleNamespace(
        dataset="synthetic",
        seed=0,
        train_key="smoke",
        last_epoch=None,
        data=settings("Dataset"),
        model=case.backbone,
        recipe=recipe,
        loss_type="proxy_anchor",
        loss_options={},
    )
    return run, SyntheticStore(folder)


def main() -> None:
    run_checks([steps, bits], __doc__.split("\n\n")[0])


if __name__ == "__main__":
    main()
