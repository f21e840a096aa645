"""In the middle of an epoch, no step waits for the device.

Whole steps of the real training are watched on the CPU, forward and backward. What a CPU cannot
show, copies to and from a GPU, is watched on fake tensors of a GPU that is not there. torch has no
backward pass for these.
"""

import contextlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from dmlbench.backbones.model import EmbeddingModel
from dmlbench.conformance.waits import NoHost, NoReading
from dmlbench.datasets.store.part import Part
from dmlbench.losses import create_loss, list_losses
from dmlbench.study.backbone_settings import Backbone
from dmlbench.study.settings import Augmentation, Jitter, Recipe
from dmlbench.study.study import check_study
from dmlbench.training import batches, progress
from dmlbench.training import train as training
from dmlbench.training.checkpoint import Checkpoint
from dmlbench.training.prefetch import prefetch
from dmlbench.training.train import create_optimizer, train
from dmlbench.utils.modules import imported_modules

CPU, GPU = torch.device("cpu"), torch.device("cuda")
WRAPPED = "dmlbench.losses._pml"
NATIVE = [
    loss for loss in list_losses() if WRAPPED not in imported_modules(f"dmlbench.losses.{loss}")
]
JITTER = {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1}
RECIPES = {
    "adamw": {"optimizer": "adamw", "schedule": "cosine", "eps": 1e-6, "head_lr_factor": 10.0},
    "adam": {"optimizer": "adam", "schedule": "step", "step_epochs": (1,), "clip_norm": 1.0},
    "sgd": {"optimizer": "sgd", "clip_value": 1.0, "clip_norm": 1.0, "weight_decay": 0.0},
    "no momentum": {"optimizer": "sgd", "momentum": 0.0},
    "rmsprop": {"optimizer": "rmsprop", "momentum": 0.9},
    "jitter": {"augmentation": {"jitter": JITTER}},
    "no flip": {"augmentation": {"flip": False}, "images_per_class": None},
    "frozen": {"freeze_bn": True, "warmup_steps": 4},
    "chunks": {"freeze_bn": True, "warmup_steps": 4, "chunk": 20, "clip_norm": 1.0},
    "max": {"pooling": "max"},
    "avgmax": {"pooling": "avgmax"},
}


class Enough(Exception):
    """The steps that are watched are done."""


def batches_of_threads(prepare, keys, device):
    """The batches as for a GPU, without the copies."""
    with ThreadPoolExecutor(3) as pool:
        yield from prefetch(lambda key: prepare(key, pool.map), keys)


@pytest.fixture
def waits_of_steps(tiny, glyphs, tmp_path, monkeypatch):
    """Why the steps 3 to 5 of a training wait: they neither report progress nor save."""
    for name in ("device_batches", "host_batches"):
        monkeypatch.setattr(training, name, batches_of_threads)
    monkeypatch.setattr(progress, "INTERVAL", float("inf"))
    monkeypatch.setattr(Checkpoint, "should_save", lambda self: False)

    def watch(loss, **recipe):
        tiny["losses"] = {"hpl": {"warmup_epochs": 0}, "htl": {"warmup_epochs": 0}}
        tiny["plan"]["losses"] = [loss]
        tiny["recipe"] |= recipe
        run = check_study(tiny, "tiny").runs[f"letters/tiny/{loss}/seed0"]
        reasons, calls = [], iter(range(10**6))

        def stop():
            step = next(calls)
            if step == 2:
                reasons.clear()
            if step == 5:
                raise Enough

        with pytest.raises(Enough), NoReading(reasons.append), NoHost(reasons.append):
            train(run, glyphs, glyphs.split("train", Part(0.1)), CPU, tmp_path, stop)
        return reasons

    return watch


@pytest.mark.parametrize("loss", NATIVE)
def test_no_step_of_a_loss_waits(waits_of_steps, loss):
    assert waits_of_steps(loss) == []


@pytest.mark.parametrize("recipe", RECIPES)
def test_no_step_of_a_recipe_waits(waits_of_steps, recipe):
    assert waits_of_steps("proxy_anchor", **RECIPES[recipe]) == []


def test_no_step_in_bfloat16_waits(waits_of_steps, monkeypatch):
    lower = torch.autocast("cpu", torch.bfloat16)
    monkeypatch.setattr(training, "autocast", lambda recipe, device: lower)
    assert waits_of_steps("proxy_anchor") == []


class ReadsBackward(torch.autograd.Function):
    @staticmethod
    def forward(context, tensor):
        return tensor.clone()

    @staticmethod
    def backward(context, gradient):
        return gradient / gradient.sum().item()


def mean_of_largest(embeddings):
    return embeddings.topk(2).values.mean()


DEFECTS = {
    "forward": lambda embeddings: embeddings.mean() * float(embeddings.detach().mean()),
    "backward": lambda embeddings: ReadsBackward.apply(embeddings.mean()),
    "scattered": mean_of_largest,
}


@pytest.mark.parametrize("defect", DEFECTS)
def test_a_step_that_waits_is_seen(waits_of_steps, monkeypatch, defect):
    loss = create_loss("proxy_anchor", 20, 16)
    monkeypatch.setattr(type(loss), "compute", lambda self, x, labels: DEFECTS[defect](x))
    assert len(waits_of_steps("proxy_anchor")) >= 3  # at least one in each step


def test_clipping_that_checks_the_norm_is_seen(waits_of_steps, monkeypatch):
    clip = nn.utils.clip_grad_norm_

    def strict(parameters, limit):
        return clip(parameters, limit, error_if_nonfinite=True)

    monkeypatch.setattr(nn.utils, "clip_grad_norm_", strict)
    assert len(waits_of_steps("proxy_anchor", clip_norm=1.0)) >= 3


def onto_gpu(module):
    """The module with fake tensors of a GPU in place of its parameters and buffers."""
    for part in module.modules():
        for tensors in (part._parameters, part._buffers):
            for name, value in tensors.items():
                if value is not None:
                    moved = torch.empty_strided(
                        value.shape, value.stride(), dtype=value.dtype, device=GPU
                    )
                    learnt = isinstance(value, nn.Parameter)
                    tensors[name] = nn.Parameter(moved, value.requires_grad) if learnt else moved
    return module


def loss_on_gpu(name):
    loss = onto_gpu(create_loss(name, num_classes=20, embedding_dim=16))
    loss._usage._range = torch.empty(20, dtype=torch.uint8, device=GPU)  # the first batch is over
    loss._usage.missing.clear()
    return loss


@pytest.mark.parametrize("name", NATIVE)
def test_a_loss_copies_nothing_to_or_from_a_gpu(name):
    with FakeTensorMode(), contextlib.ExitStack() as watch:
        loss = loss_on_gpu(name)
        embeddings = torch.empty(8, 16, device=GPU, requires_grad=True)
        labels = torch.empty(8, dtype=torch.int64, device=GPU)
        watch.enter_context(NoReading())
        watch.enter_context(NoHost())
        assert loss(embeddings, labels).device.type == "cuda"


def test_a_loss_that_copies_from_the_host_is_seen(monkeypatch):
    reasons = []
    with FakeTensorMode():
        loss = loss_on_gpu("proxy_anchor")
        compute = type(loss).compute

        def copies(self, embeddings, labels):
            classes = torch.arange(20).to(labels.device)
            return compute(self, embeddings, labels) + 0 * classes.sum()

        monkeypatch.setattr(type(loss), "compute", copies)
        embeddings = torch.empty(8, 16, device=GPU)
        labels = torch.empty(8, dtype=torch.int64, device=GPU)
        with NoHost(reasons.append):
            loss(embeddings, labels)
    assert reasons == ["a copy from cpu to cuda: the host waits until it is done"]


RECIPES_ON_GPU = {
    "adamw": ({}, {"optimizer": "adamw", "clip_norm": 1.0, "freeze_bn": True}),
    "adam": ({}, {"optimizer": "adam", "clip_value": 1.0, "pooling": "avgmax"}),
    "sgd": ({"head": "low_mid_high", "dim": 48, "image_size": 96}, {"optimizer": "sgd"}),
    "BGR": ({}, {"clip_value": 1.0, "clip_norm": 1.0}),
}


@pytest.mark.parametrize("name", RECIPES_ON_GPU)
def test_a_step_copies_nothing_to_or_from_a_gpu(name, monkeypatch):
    """All of a step but the loss and the backward pass."""
    # The kernel itself, which works in place, is the only one that has no fake
    monkeypatch.setattr(torch, "_fused_sgd_", lambda *tensors, **settings: None)
    options, settings = RECIPES_ON_GPU[name]
    recipe = Recipe(augmentation=Augmentation(jitter=Jitter(**JITTER)), **settings)
    backbone = Backbone(**{"type": "test_resnet", "dim": 16, "image_size": 32} | options)
    model = EmbeddingModel(backbone, recipe, channels=3)
    if name == "BGR":
        model.channel_order = "BGR"
    random, sizes = np.random.default_rng(0), np.full((8, 2), 120)
    drawn = batches.draw(sizes, recipe.augmentation, random)[1]
    side = backbone.image_size
    with FakeTensorMode():
        optimizer = create_optimizer(recipe, onto_gpu(model), [])
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        batch = {
            key: torch.empty(value.shape, dtype=value.dtype, device=GPU)
            for key, value in drawn.items()
        }
        batch["squares"] = torch.empty(8, 3, side, side, dtype=torch.uint8, device=GPU)
        reasons = []
        for _ in range(2):  # the first step makes the state of the optimiser
            reasons.clear()
            with NoReading(reasons.append), NoHost(reasons.append):
                embeddings = model(batches.floats(**batch))
                for parameter in parameters:
                    parameter.grad = torch.empty_like(parameter)
                if recipe.clip_value is not None:
                    nn.utils.clip_grad_value_(parameters, recipe.clip_value)
                if recipe.clip_norm is not None:
                    nn.utils.clip_grad_norm_(parameters, recipe.clip_norm)
                optimizer.step()
    assert embeddings.device.type == "cuda"
    assert reasons == []


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("loss", NATIVE)
def test_no_step_of_a_loss_waits_for_a_gpu(tiny, glyphs, tmp_path, monkeypatch, loss):
    watch_gpu(tiny, glyphs, tmp_path, monkeypatch, loss)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("recipe", RECIPES)
def test_no_step_of_a_recipe_waits_for_a_gpu(tiny, glyphs, tmp_path, monkeypatch, recipe):
    watch_gpu(tiny, glyphs, tmp_path, monkeypatch, "proxy_anchor", **RECIPES[recipe])


def watch_gpu(tiny, glyphs, tmp_path, monkeypatch, loss, **recipe):
    """CUDA itself reports the waits of the steps 3 to 5."""
    monkeypatch.setattr(progress, "INTERVAL", float("inf"))
    monkeypatch.setattr(Checkpoint, "should_save", lambda self: False)
    tiny["plan"]["losses"] = [loss]
    tiny["recipe"] |= recipe
    run = check_study(tiny, "tiny").runs[f"letters/tiny/{loss}/seed0"]
    calls = iter(range(10**6))

    def stop():
        step = next(calls)
        torch.cuda.set_sync_debug_mode("error" if 2 <= step < 5 else "default")
        if step == 5:
            raise Enough

    try:
        with pytest.raises(Enough):
            train(run, glyphs, glyphs.split("train", Part(0.1)), GPU, tmp_path, stop)
    finally:
        torch.cuda.set_sync_debug_mode("default")
