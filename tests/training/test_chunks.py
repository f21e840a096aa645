"""A batch in chunks has the gradient of the whole batch, and takes the memory of one chunk."""

import weakref
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from dmlbench.backbones.model import EmbeddingModel
from dmlbench.datasets.store.part import Part
from dmlbench.losses import create_loss
from dmlbench.study.backbone_settings import Backbone
from dmlbench.study.settings import Augmentation, Jitter, Recipe
from dmlbench.study.study import check_study
from dmlbench.training import batches, chunks
from dmlbench.training import train as training
from dmlbench.training.checkpoint import Checkpoint
from dmlbench.training.embedding import embed
from dmlbench.training.inputs import open_inputs
from dmlbench.training.time_limit import Stopped
from dmlbench.training.train import train

from .stops import never, stop_after

CPU = torch.device("cpu")
LOSSES = ["contrastive", "multi_similarity", "recall_at_k", "rll", "proxy_anchor", "softtriple"]
TOLERANCE = {torch.float32: 5e-6, torch.float64: 1e-12}


@pytest.fixture
def step(weights_file):
    """A model with frozen batch norm, 22 images, their labels, and a function that embeds."""

    def make(dtype=torch.float32, images=22):
        backbone = Backbone(type="test_resnet", dim=16, image_size=32, pretrained=str(weights_file))
        torch.manual_seed(0)
        model = EmbeddingModel(backbone, Recipe(freeze_bn=True), channels=3).to(dtype)
        squares = torch.randint(0, 256, (images, 3, 32, 32), dtype=torch.uint8)
        labels = torch.arange(images) // 4

        def embed_images(chunk, train_trunk):
            return model(batches.floats(**chunk).to(dtype), train_trunk=train_trunk)

        return SimpleNamespace(
            model=model, batch={"squares": squares}, labels=labels, embed=embed_images
        )

    return make


def gradients(model, loss):
    """The gradients of the model and the loss, which are taken from them."""
    named = [*model.named_parameters("model"), *loss.named_parameters("loss")]
    found = {name: p.grad for name, p in named if p.grad is not None}
    model.zero_grad()
    loss.zero_grad()
    return found


@pytest.mark.parametrize("train_trunk", [True, False])
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("name", LOSSES)
def test_chunks_have_the_value_and_the_gradients_of_the_whole_batch(step, name, dtype, train_trunk):
    step = step(dtype)
    loss = create_loss(name, num_classes=6, embedding_dim=16).to(dtype)
    whole = loss(step.embed(step.batch, train_trunk), step.labels)
    whole.backward()
    expected = gradients(step.model, loss)
    parts = chunks.split(step.batch, 8)
    assert [len(part["squares"]) for part in parts] == [8, 8, 6]
    value = chunks.backward(step.embed, loss, parts, step.labels, train_trunk)
    found = gradients(step.model, loss)
    assert not value.requires_grad
    assert value.item() == pytest.approx(whole.item(), rel=TOLERANCE[dtype])
    assert found.keys() == expected.keys()
    assert any(key.startswith("model.trunk") for key in found) is train_trunk
    for key, gradient in expected.items():
        error = (found[key] - gradient).abs().max()
        assert error <= TOLERANCE[dtype] * gradient.abs().max().clamp(min=1), key


def test_a_loss_that_does_not_depend_on_its_embeddings_gives_them_no_gradient(step):
    step, weight = step(), nn.Parameter(torch.tensor(2.0))
    chunks.backward(
        step.embed, lambda *_: weight**2, chunks.split(step.batch, 8), step.labels, True
    )
    assert weight.grad == 4
    assert not any(p.grad.any() for p in step.model.parameters() if p.grad is not None)


def test_a_split_batch_has_the_images_and_the_draws_of_the_whole_one():
    changes = Jitter(brightness=0.4, contrast=0.3, saturation=0.2, hue=0.1)
    augmentation, random = Augmentation(jitter=changes), np.random.default_rng(0)
    drawn = batches.draw(np.full((11, 2), 40), augmentation, random)[1]
    squares = torch.randint(0, 256, (11, 3, 32, 32), dtype=torch.uint8)
    batch = {"squares": squares, **drawn}
    parts = chunks.split(batch, 4)
    assert all(tensor.is_contiguous() for part in parts for tensor in part.values())
    images = torch.cat([batches.floats(**part) for part in parts])
    assert torch.equal(images, batches.floats(**batch))


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of all tensors that operators have made and that are still there."""

    def __init__(self):
        super().__init__()
        self.live = self.peak = 0
        self.known = weakref.WeakSet()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        given = {t.untyped_storage() for t in tree_leaves((args, kwargs)) if torch.is_tensor(t)}
        for tensor in tree_leaves(result):
            if torch.is_tensor(tensor):
                storage = tensor.untyped_storage()
                if storage not in self.known and storage not in given:
                    self.known.add(storage)
                    size = storage.nbytes()
                    self.live += size
                    weakref.finalize(storage, self.release, size)
        self.peak = max(self.peak, self.live)
        return result

    def release(self, size):
        self.live -= size


def peak_bytes(step, size):
    """The most bytes that a step in chunks of `size` has; None: of the whole batch.

    The parameters and their gradients are there before, and are not counted.
    """
    loss = create_loss("normalized_softmax", num_classes=120, embedding_dim=16)
    for parameter in step.model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    with LiveBytes() as memory:
        if size is None:
            loss(step.embed(step.batch, True), step.labels).backward()
        else:
            chunks.backward(step.embed, loss, chunks.split(step.batch, size), step.labels, True)
    return memory.peak


def test_a_batch_in_chunks_takes_the_memory_of_one_chunk_and_the_embeddings(step):
    of_chunk, of_batch = peak_bytes(step(images=16), None), peak_bytes(step(images=480), 16)
    embeddings = 4 * 480 * 16  # bytes: with their gradient, and once more in parts
    assert of_batch < 1.15 * of_chunk + 3 * embeddings
    assert peak_bytes(step(images=480), None) > 15 * of_batch


def run_of(settings, loss, weights_file=None, **recipe):
    settings["plan"]["losses"] = [loss]
    settings["recipe"] |= recipe
    if weights_file:
        settings["backbones"]["tiny"]["pretrained"] = str(weights_file)
    return check_study(settings, "tiny").runs[f"letters/tiny/{loss}/seed0"]


def embeddings_of(model, run, store):
    test = store.split("test", run.data.part)
    return embed(model.eval(), open_inputs(run, store), test.rows, CPU)


@pytest.mark.parametrize("loss", ["proxy_anchor", "rll"])
def test_a_training_in_chunks_equals_one_of_whole_batches(
    tiny, glyphs, tmp_path, weights_file, loss
):
    jitter = {"augmentation": {"jitter": {"contrast": 0.4}}}
    recipe = {"epochs": 2, "warmup_steps": 3, "clip_norm": 1.0, "clip_value": 0.5, **jitter}
    recipe["lr"] = 1e-4
    split = glyphs.split("train", Part(0.1))
    (model, _, whole), (chunked, _, history) = (
        train(
            run_of(tiny, loss, weights_file, **recipe, chunk=chunk),
            glyphs,
            split,
            CPU,
            tmp_path / str(chunk),
            never,
        )
        for chunk in (None, 20)
    )
    losses = [[row["loss"] for row in rows] for rows in (whole, history)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    run = run_of(tiny, loss, weights_file)
    expected, found = (embeddings_of(m, run, glyphs) for m in (model, chunked))
    assert np.abs(found - expected).max() < 0.01 * np.abs(expected).max()


@pytest.mark.parametrize("loss", ["proxy_anchor", "remembering"])
def test_an_interrupted_training_in_chunks_ends_with_the_same_bits(
    tiny, glyphs, tmp_path, weights_file, loss
):
    tiny["losses"] = {"remembering": {"type": "contrastive", "memory": 200, "memory_start": 4}}
    recipe = {"epochs": 2, "warmup_steps": 4, "clip_norm": 1.0, "schedule": "cosine"}
    run = run_of(tiny, loss, weights_file, **recipe, chunk=20)
    split = glyphs.split("train", Part(0.1))
    once, *_ = train(run, glyphs, split, CPU, tmp_path / "once", never)
    for stop in (2, 6, 9):
        with pytest.raises(Stopped):
            train(run, glyphs, split, CPU, tmp_path / "parts", stop_after(stop))
    resumed, _, history = train(run, glyphs, split, CPU, tmp_path / "parts", never)
    if loss == "remembering":
        assert [row["memory"] for row in history] == [200, 200]
    for name, value in once.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value), name


def test_a_training_in_chunks_has_one_chunk_as_floats_at_a_time(
    tiny, glyphs, tmp_path, weights_file, monkeypatch
):
    sizes, floats = [], batches.floats

    def spy(**batch):
        sizes.append(len(batch["squares"]))
        return floats(**batch)

    monkeypatch.setattr(batches, "floats", spy)
    run = run_of(tiny, "proxy_anchor", weights_file, chunk=20)
    with pytest.raises(Stopped):
        train(run, glyphs, glyphs.split("train", Part(0.1)), CPU, tmp_path, stop_after(2))
    assert sizes == [20, 20, 8] * 2 * 2  # two passes in each of two steps


def test_chunks_with_batch_norm_that_learns_are_refused_before_the_first_step(
    tiny, glyphs, tmp_path
):
    run = run_of(tiny, "proxy_anchor", chunk=20)
    message = (
        r"recipe\.chunk: 20 needs a model that embeds each image by itself, and trunk\.conv1\.1 "
        r"\(BatchNorm2d\) computes with the statistics of its batch\. Set freeze_bn: true"
    )
    with pytest.raises(ValueError, match=message):
        train(run, glyphs, glyphs.split("train", Part(0.1)), CPU, tmp_path, never)
    assert Checkpoint(tmp_path, run.train_key).load() is None


def test_the_check_of_the_model_moves_no_number(tiny, glyphs, tmp_path, weights_file, monkeypatch):
    run = run_of(tiny, "proxy_anchor", weights_file, chunk=20)
    split = glyphs.split("train", Part(0.1))
    checked, *_ = train(run, glyphs, split, CPU, tmp_path / "checked", never)
    monkeypatch.setattr(training, "check_independence", lambda *_: None)
    unchecked, *_ = train(run, glyphs, split, CPU, tmp_path / "unchecked", never)
    for name, value in checked.state_dict().items():
        assert torch.equal(unchecked.state_dict()[name], value), name
