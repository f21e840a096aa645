"""What a setting of the kernels costs or saves, on one batch that stays on the device.

    python benchmarks/resident.py kernels --device cuda     # deterministic, benchmark, compiled
    python benchmarks/resident.py two_runs --device cuda    # two small trainings on one card

`benchmarks/gpu.py` runs them. The script needs what `benchmarks/training.py` needs.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import torch
from bare import make_store, run_checks, settings
from training import CPU, CUDA, ours, resident_step
from turns import TURN, end, start, window

from dmlbench.training import train as training
from dmlbench.utils.gpus import find_gpus
from dmlbench.utils.mps import uses_mps

ROUNDS = {"cuda": 3, "cpu": 1}
WARM_UP, STEPS = {"cuda": 8, "cpu": 1}, {"cuda": 15, "cpu": 2}
"""Steps of each turn that are not measured, and that are. Choosing kernels takes the first ones."""
MAX_COST = 1.05
"""If deterministic kernels cost more than this factor, a study should have the choice."""
SMALL = {
    "cuda": settings("Backbone", type="resnet18", dim=128, image_size=64, resize=72),
    "cpu": settings("Backbone", type="test_resnet", dim=32, image_size=32, resize=36),
}
SMALL_STEPS = {"cuda": 100, "cpu": 5}


class Kernels(NamedTuple):
    """How torch chooses its kernels."""

    freeze_bn: bool
    deterministic: bool = True
    benchmark: bool = False
    """cudnn.benchmark: time all kernels for a size when it comes first, and take the fastest."""
    compiled: bool = False

    def __str__(self) -> str:
        norms = "frozen batch norm" if self.freeze_bn else "learnt batch norm"
        kernels = "deterministic" if self.deterministic else "not deterministic"
        more = ", cudnn.benchmark" * self.benchmark + ", compiled" * self.compiled
        return f"{norms}, {kernels}{more}"


CHOICES = [
    Kernels(freeze_bn, deterministic, benchmark)
    for freeze_bn in (True, False)
    for deterministic in (True, False)
    for benchmark in (False, True)
]
COMPILED = Kernels(freeze_bn=True, compiled=True)
"""It comes last: to compile takes a minute."""


class Prepared(NamedTuple):
    """A model with its batch, and the kernels that it is trained with."""

    kernels: Kernels
    recipe: SimpleNamespace
    step: Callable[[], None]
    device: torch.device

    def milliseconds(self) -> float:
        """Of a step, by the clock."""
        choose_kernels(self.kernels, self.recipe, self.device)
        for number in range(WARM_UP[self.device.type] + STEPS[self.device.type]):
            if number == WARM_UP[self.device.type]:
                began = clock(self.device)
            self.step()
        return 1e3 * (clock(self.device) - began) / STEPS[self.device.type]


def kernels(device: torch.device, folder: Path) -> str:
    """The time of a step with each choice of kernels. On a CPU, nothing differs but batch norms."""
    prepared = [prepare(choice, device) for choice in CHOICES]
    times: dict[Kernels, list[float]] = {choice: [] for choice in CHOICES}
    for _ in range(ROUNDS[device.type]):
        for each in prepared:
            times[each.kernels].append(each.milliseconds())
    medians = {choice: statistics.median(values) for choice, values in times.items()}
    default = Kernels(freeze_bn=True)
    print("| resident batch | ms a step | images/s | speed, of the default |")
    print("| --- | ---: | ---: | ---: |")

    def show(kernels: Kernels, milliseconds: float) -> float:
        speed = 1e3 * prepared[0].recipe.batch_size / milliseconds
        faster = medians[Kernels(kernels.freeze_bn)] / milliseconds
        print(f"| {kernels} | {milliseconds:.1f} | {speed:,.0f} | {faster:.3f} |", flush=True)
        return faster

    speeds = {choice: show(choice, milliseconds) for choice, milliseconds in medians.items()}
    if device.type == "cuda":
        compiled = prepare(COMPILED, device)
        compiled.milliseconds()  # it compiles
        show(COMPILED, compiled.milliseconds())
    print(f"learnt / frozen: {medians[Kernels(freeze_bn=False)] / medians[default]:.3f}")
    return verdict(speeds) if device.type == "cuda" else "only a GPU has the choice of kernels"


def verdict(speeds: dict[Kernels, float]) -> str:
    """Whether a study should have the choice, by the speeds of other kernels, of the default."""
    cost = max(speed for choice, speed in speeds.items() if not choice.deterministic)
    advice = "offer gpu_deterministic: false" if cost > MAX_COST else "no setting is needed"
    return f"other kernels are {cost:.3f} times as fast as deterministic ones: {advice}"


def prepare(kernels: Kernels, device: torch.device) -> Prepared:
    setting = SimpleNamespace(**deepcopy(CUDA if device.type == "cuda" else CPU))
    setting.recipe.freeze_bn = kernels.freeze_bn
    setting.recipe.gpu_compile = kernels.compiled
    choose_kernels(kernels, setting.recipe, device)
    return Prepared(kernels, setting.recipe, resident_step(setting, device), device)


def choose_kernels(kernels: Kernels, recipe: SimpleNamespace, device: torch.device) -> None:
    training.set_up(recipe, device)
    if not kernels.deterministic:
        torch.use_deterministic_algorithms(False)
    torch.backends.cudnn.benchmark = kernels.benchmark


def clock(device: torch.device) -> float:
    """Seconds of the clock, when the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def two_runs(device: torch.device, folder: Path) -> str:
    """Images per second of two small trainings on one device at once, beside those of one alone."""
    on_gpu = device.type == "cuda"
    if on_gpu and find_gpus().find_exclusive(2):
        return "skipped: the GPU takes one process at a time, by its compute mode"
    setting = SimpleNamespace(
        device=device.type,
        model=SMALL[device.type],
        recipe=settings("Recipe", epochs=10**6, batch_size=80, freeze_bn=True),
        folder=folder,
        window=SMALL_STEPS[device.type],
    )
    size, side = (160, 120), setting.model.resize
    make_store(folder, 320, size, 3, side, with_files=False, repeat=28, per_class=16)
    pipes = [start(ours, setting) for _ in range(2)]

    def images_per_second(running: list) -> float:
        for pipe in running:
            pipe.send(TURN)
        return sum(setting.window * setting.recipe.batch_size / window(p)[0] for p in running)

    try:
        rounds = [
            (images_per_second(pipes[:1]), images_per_second(pipes))
            for _ in range(ROUNDS[device.type])
        ]
    finally:
        end(pipes)
    alone, both = (statistics.median(values) for values in zip(*rounds, strict=True))
    mps = ("with MPS" if uses_mps() else "without MPS") if on_gpu else "on a CPU"
    print("| small trainings | images/s together |\n| --- | ---: |")
    print(f"| one, {setting.model.type} | {alone:,.0f} |\n| two at once, {mps} | {both:,.0f} |")
    return f"two at once, {mps}: {both / alone:.2f} times the images of one"


def main() -> None:
    run_checks([kernels, two_runs], __doc__.split("\n\n")[0])


if __name__ == "__main__":
    main()
