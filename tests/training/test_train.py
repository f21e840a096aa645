"""A training ends with the same bits, however often it is interrupted."""

import dataclasses
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import get_args

import numpy as np
import pytest
import torch
from torch import nn

from dmlbench.backbones.folding import FoldedConv
from dmlbench.datasets.store.part import Part
from dmlbench.losses import list_losses
from dmlbench.study.settings import Recipe
from dmlbench.study.study import check_study
from dmlbench.training import train as training
from dmlbench.training.checkpoint import Checkpoint
from dmlbench.training.embedding import embed
from dmlbench.training.inputs import open_inputs
from dmlbench.training.prefetch import prefetch
from dmlbench.training.time_limit import Stopped
from dmlbench.training.train import Diverged, create_optimizer, schedule, train

from .stops import never, stop_after

CPU = torch.device("cpu")


def run_of(settings, loss, **recipe):
    settings["plan"]["losses"] = [loss]
    settings["recipe"] |= recipe
    return check_study(settings, "tiny").runs[f"letters/tiny/{loss}/seed0"]


def tenth(glyphs):
    """The training images of the classes that `tiny` uses."""
    return glyphs.split("train", Part(0.1))


def embeddings_of(model, run, store):
    test = store.split("test", run.data.part)
    return embed(model.eval(), open_inputs(run, store), test.rows, CPU)


@pytest.mark.parametrize("loss", list_losses())
def test_an_interrupted_training_ends_with_the_same_bits(tiny, glyphs, tmp_path, loss):
    run = run_of(tiny, loss, epochs=3, warmup_steps=5, schedule="cosine", clip_norm=1.0)
    model, loss_module, history = train(run, glyphs, tenth(glyphs), CPU, tmp_path / "whole", never)
    expected = embeddings_of(model, run, glyphs)
    steps = history[0]["step"]

    # within an epoch, between two, right after a resume, and within the last epoch
    for stop in (3, steps - 3, 0, steps + 4):
        with pytest.raises(Stopped):
            train(run, glyphs, tenth(glyphs), CPU, tmp_path / "parts", stop_after(stop))
    resumed, resumed_loss, resumed_history = train(
        run, glyphs, tenth(glyphs), CPU, tmp_path / "parts", never
    )
    assert np.array_equal(embeddings_of(resumed, run, glyphs), expected)
    assert resumed_loss.artefact() == loss_module.artefact()
    assert [row["loss"] for row in resumed_history] == [row["loss"] for row in history]
    assert [row["step"] for row in resumed_history] == [steps, 2 * steps, 3 * steps]


def test_a_folded_network_ends_with_the_same_bits_and_all_its_convolutions_learn(
    tiny, glyphs, tmp_path, weights_file
):
    tiny["backbones"]["tiny"]["pretrained"] = str(weights_file)
    run = run_of(tiny, "proxy_anchor", warmup_steps=3, clip_norm=1.0)
    once, *_ = train(run, glyphs, tenth(glyphs), CPU, tmp_path / "once", never)
    for stop in (2, 5):  # in the warm-up, and after it
        with pytest.raises(Stopped):
            train(run, glyphs, tenth(glyphs), CPU, tmp_path / "parts", stop_after(stop))
    resumed, *_ = train(run, glyphs, tenth(glyphs), CPU, tmp_path / "parts", never)
    for model in (once, resumed):
        convolutions = [m for m in model.trunk.modules() if isinstance(m, FoldedConv)]
        assert len(convolutions) == 15
        assert all(convolution.weight.grad.any() for convolution in convolutions)
    for name, value in once.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value), name


def batches_of_threads(prepare, keys, device):
    """The batches as for a GPU, without the copies."""
    with ThreadPoolExecutor(3) as pool:
        yield from prefetch(lambda key: prepare(key, pool.map), keys)


def test_prefetched_batches_give_the_same_bits(tiny, glyphs, tmp_path, monkeypatch):
    run = run_of(tiny, "htl", epochs=2)  # it embeds the training set, and chooses its batches
    expected = embeddings_of(
        train(run, glyphs, tenth(glyphs), CPU, tmp_path / "one", never)[0], run, glyphs
    )
    monkeypatch.setattr(training, "device_batches", batches_of_threads)
    threads = set(threading.enumerate())
    for stop in (3, 9):
        with pytest.raises(Stopped):
            train(run, glyphs, tenth(glyphs), CPU, tmp_path / "many", stop_after(stop))
        assert set(threading.enumerate()) == threads
    model = train(run, glyphs, tenth(glyphs), CPU, tmp_path / "many", never)[0]
    assert np.array_equal(embeddings_of(model, run, glyphs), expected)
    assert set(threading.enumerate()) == threads


def test_a_seed_gives_the_same_bits_again_and_another_seed_others(tiny, glyphs, tmp_path):
    tiny["plan"]["seeds"] = [0, 1]
    runs = check_study(tiny, "tiny").runs
    once, again, other = (
        embeddings_of(
            train(runs[path], glyphs, tenth(glyphs), CPU, tmp_path / name, never)[0],
            runs[path],
            glyphs,
        )
        for name, path in {
            "once": "letters/tiny/proxy_anchor/seed0",
            "again": "letters/tiny/proxy_anchor/seed0",
            "other": "letters/tiny/proxy_anchor/seed1",
        }.items()
    )
    assert np.array_equal(once, again)
    assert not np.array_equal(once, other)


def test_all_losses_of_a_seed_start_from_the_same_weights(tiny, glyphs, tmp_path, monkeypatch):
    weights = []
    create = training.create_optimizer

    def spy(recipe, model, groups):
        weights.append({name: value.clone() for name, value in model.state_dict().items()})
        return create(recipe, model, groups)

    monkeypatch.setattr(training, "create_optimizer", spy)
    for loss in ("normalized_softmax", "triplet"):
        with pytest.raises(Stopped):
            train(
                run_of(tiny, loss),
                glyphs,
                tenth(glyphs),
                CPU,
                tmp_path / loss,
                stop_after(0),
            )
    for name, value in weights[0].items():
        assert torch.equal(value, weights[1][name]), name


def test_a_checkpoint_of_other_settings_is_removed(tiny, glyphs, tmp_path):
    with pytest.raises(Stopped):
        train(
            run_of(tiny, "proxy_anchor"),
            glyphs,
            tenth(glyphs),
            CPU,
            tmp_path,
            stop_after(5),
        )
    other = run_of(tiny, "proxy_anchor", lr=0.001)
    model, *_ = train(other, glyphs, tenth(glyphs), CPU, tmp_path, never)
    fresh, *_ = train(other, glyphs, tenth(glyphs), CPU, tmp_path / "fresh", never)
    assert torch.equal(model.head.weight, fresh.head.weight)


@pytest.mark.parametrize("content", [b"", b"torn", None])
def test_a_damaged_checkpoint_is_removed(tiny, glyphs, tmp_path, capsys, content):
    run = run_of(tiny, "proxy_anchor")
    with pytest.raises(Stopped):
        train(run, glyphs, tenth(glyphs), CPU, tmp_path, stop_after(5))
    file = tmp_path / "checkpoint.pt"
    file.write_bytes(file.read_bytes()[:-2000] if content is None else content)
    model, *_ = train(run, glyphs, tenth(glyphs), CPU, tmp_path, never)
    fresh, *_ = train(run, glyphs, tenth(glyphs), CPU, tmp_path / "fresh", never)
    assert torch.equal(model.head.weight, fresh.head.weight)
    assert "damaged" in capsys.readouterr().out


def test_a_checkpoint_of_the_cpu_has_no_random_state_of_a_gpu(tiny, glyphs, tmp_path):
    run = run_of(tiny, "proxy_anchor")
    with pytest.raises(Stopped):
        train(run, glyphs, tenth(glyphs), CPU, tmp_path, stop_after(3))
    assert Checkpoint(tmp_path, run.train_key).load()["cuda_rng"] is None


def test_an_attempt_without_a_step_saves_nothing(tiny, glyphs, tmp_path):
    """A save counts as progress, and a run that never comes to its first step must end."""
    with pytest.raises(Stopped):
        train(
            run_of(tiny, "proxy_anchor"),
            glyphs,
            tenth(glyphs),
            CPU,
            tmp_path,
            stop_after(0),
        )
    assert not (tmp_path / "checkpoint.pt").exists()


def test_a_loss_that_is_not_finite_ends_the_training_and_keeps_its_history(tiny, glyphs, tmp_path):
    tiny["losses"] = {"bad": {"type": "proxy_anchor", "proxies_lr_factor": 1e6}}
    tiny["recipe"]["weight_decay"] = 1
    run = run_of(tiny, "bad", epochs=3)
    with pytest.raises(Diverged, match="loss is") as caught:
        train(run, glyphs, tenth(glyphs), CPU, tmp_path, never)
    assert len(caught.value.history) < 3


def test_embeddings_that_are_not_finite_when_the_loss_is_refreshed_are_a_divergence(
    tiny, glyphs, tmp_path, monkeypatch
):
    run = run_of(tiny, "htl", epochs=2)
    monkeypatch.setattr(training, "embed", lambda *_: np.full((2, 2), np.nan, np.float32))
    with pytest.raises(Diverged, match="the embeddings hold NaN or infinity after step"):
        train(run, glyphs, tenth(glyphs), CPU, tmp_path, never)


@pytest.mark.parametrize("optimizer", get_args(Recipe.model_fields["optimizer"].annotation))
def test_parameters_that_a_loss_resets_start_without_momentum(tiny, glyphs, tmp_path, optimizer):
    """The coarse proxies of HPL share their group with the fine ones, which keep their momentum."""
    run = run_of(tiny, "hpl", epochs=3, optimizer=optimizer)
    _, _, history = train(run, glyphs, tenth(glyphs), CPU, tmp_path, never)
    assert len(history) == 3


def test_the_trunk_does_not_learn_during_the_warm_up(tiny, glyphs, tmp_path):
    def trunk_after(steps):
        run = run_of(tiny, "proxy_anchor", warmup_steps=4, freeze_bn=True, epochs=2)
        with pytest.raises(Stopped):
            train(
                run,
                glyphs,
                tenth(glyphs),
                CPU,
                tmp_path / str(steps),
                stop_after(steps),
            )
        state = Checkpoint(tmp_path / str(steps), run.train_key).load()
        return {n: v for n, v in state["model"].items() if n.startswith("trunk")}, state["model"]

    (start, first), (still, warm), (moved, _) = (trunk_after(steps) for steps in (1, 4, 5))
    assert all(torch.equal(start[name], still[name]) for name in start)
    assert not torch.equal(first["head.weight"], warm["head.weight"])
    assert not all(torch.equal(start[name], moved[name]) for name in start)


def test_a_batch_larger_than_the_training_set_is_an_error(tiny, glyphs, tmp_path):
    run = run_of(tiny, "proxy_anchor", batch_size=4000, images_per_class=None)
    with pytest.raises(ValueError, match=r"batch_size: 4000 is more than the \d+ images"):
        train(run, glyphs, tenth(glyphs), CPU, tmp_path, never)


@pytest.mark.parametrize(
    ("recipe", "expected"),
    [
        ({"schedule": "constant"}, [1, 1, 1, 1]),
        ({"schedule": "step", "step_epochs": (1, 3), "step_factor": 0.5}, [1, 0.5, 0.5, 0.25]),
        ({"schedule": "cosine"}, [1, 0.5 + 0.5**1.5, 0.5, 0.5 - 0.5**1.5]),
    ],
)
def test_the_schedule_at_the_start_of_each_of_four_epochs(recipe, expected):
    full_recipe = Recipe(epochs=4, **recipe)
    assert [schedule(full_recipe, 10 * epoch, 10) for epoch in range(4)] == pytest.approx(expected)


def test_head_and_loss_have_their_own_learning_rates():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.trunk, self.head = nn.Linear(2, 2), nn.Linear(2, 2)

    centers, proxies = nn.Parameter(torch.zeros(3)), nn.Parameter(torch.zeros(3))
    groups = [
        {"params": [centers], "lr": 7.0},
        {"params": [proxies], "lr": 5.0, "weight_decay": 0.0},
    ]
    recipe = Recipe(lr=0.1, head_lr_factor=10, weight_decay=0.3)
    param_groups = create_optimizer(recipe, Model(), groups).param_groups
    assert [(group["lr"], group["weight_decay"]) for group in param_groups] == [
        (0.1, 0.3),
        (1.0, 0.3),
        (7.0, 0.3),
        (5.0, 0.0),
    ]


@pytest.mark.parametrize("kind", ["adamw", "adam", "sgd", "rmsprop"])
def test_the_optimizer_follows_the_definitions_with_the_settings_of_the_recipe(kind):
    """It takes two steps with one weight. Only adamw has no L2 term in the gradient."""
    lr, decay, eps, momentum = 0.1, 0.3, 0.05, 0.8
    own = {"momentum": momentum} if kind in ("sgd", "rmsprop") else {}
    own |= {"eps": eps} if kind != "sgd" else {}
    recipe = Recipe(optimizer=kind, lr=lr, weight_decay=decay, **own)
    model = nn.Module()
    model.trunk, model.head = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
    model.double()
    weight = model.trunk.weight
    optimizer = create_optimizer(recipe, model, [])
    assert kind == "rmsprop" or all(group["fused"] for group in optimizer.param_groups)
    expected, first, second, velocity, mean = weight.item(), 0.0, 0.0, 0.0, 0.0
    for step, gradient in enumerate([0.5, -2.0], start=1):
        weight.grad = torch.full_like(weight, gradient)
        optimizer.step()
        whole = gradient if kind == "adamw" else gradient + decay * expected
        first, second = 0.9 * first + 0.1 * whole, 0.999 * second + 0.001 * whole**2
        mean = 0.99 * mean + 0.01 * whole**2  # of rmsprop; no bias is corrected
        scaled = whole / (mean**0.5 + eps) if kind == "rmsprop" else whole
        velocity = momentum * velocity + scaled
        move = (first / (1 - 0.9**step)) / ((second / (1 - 0.999**step)) ** 0.5 + eps)
        shrunk = expected * (1 - lr * decay) if kind == "adamw" else expected
        expected = shrunk - lr * (velocity if kind in ("sgd", "rmsprop") else move)
        assert weight.item() == pytest.approx(expected, rel=1e-6)


def test_clip_value_limits_each_entry_of_the_gradients(tiny, glyphs, tmp_path):
    """In plain SGD the first step moves a weight by lr x its gradient."""

    def first_step(name, **recipe):
        run = run_of(
            tiny,
            "proxy_anchor",
            **{"optimizer": "sgd", "momentum": 0.0, "weight_decay": 0.0, "lr": 1.0, **recipe},
        )
        weights = []
        for steps in (1, 2):
            with pytest.raises(Stopped):
                train(
                    run,
                    glyphs,
                    tenth(glyphs),
                    CPU,
                    tmp_path / name / str(steps),
                    stop_after(steps),
                )
            state = Checkpoint(tmp_path / name / str(steps), run.train_key).load()
            weights.append(state["model"]["head.weight"])
        return weights

    free, clipped = first_step("free"), first_step("clipped", clip_value=0.01)
    assert (free[1] - free[0]).abs().max() > 0.02
    moved = (clipped[1] - clipped[0]).abs()
    assert moved.max() == pytest.approx(0.01, rel=1e-3)
    assert moved.min() < 0.01


def test_a_training_ends_after_its_last_epoch_with_the_schedule_of_all_epochs(
    tiny, glyphs, tmp_path
):
    run = run_of(tiny, "normalized_softmax", epochs=3, schedule="cosine")
    split = tenth(glyphs)
    whole, part = (
        train(each, glyphs, split, CPU, tmp_path / name, never)[2]
        for name, each in (("whole", run), ("part", dataclasses.replace(run, last_epoch=2)))
    )
    assert len(part) == 2
    for row, same in zip(part, whole, strict=False):
        assert [row[name] for name in ("step", "loss", "lr")] == [
            same[name] for name in ("step", "loss", "lr")
        ]


def test_what_is_measured_after_an_epoch_joins_its_row_also_after_a_resume(tiny, glyphs, tmp_path):
    run = run_of(tiny, "normalized_softmax", epochs=3)
    split, calls = tenth(glyphs), []

    def after_epoch(model, epoch, history):
        assert [row["measured"] for row in history] == [10.0 * e for e in range(1, epoch)]
        model.eval()
        calls.append(epoch)
        return {"measured": 10.0 * epoch}

    steps = len(split.rows) // run.recipe.batch_size
    with pytest.raises(Stopped):
        train(run, glyphs, split, CPU, tmp_path, stop_after(steps + 1), after_epoch)
    *_, history = train(run, glyphs, split, CPU, tmp_path, never, after_epoch)
    assert [row["measured"] for row in history] == [10.0, 20.0, 30.0]
    assert calls == [1, 2, 3]


def test_a_checkpoint_under_another_key_is_not_continued(tiny, glyphs, tmp_path, capfd):
    run, split = run_of(tiny, "normalized_softmax", epochs=1), tenth(glyphs)
    with pytest.raises(Stopped):
        train(run, glyphs, split, CPU, tmp_path, stop_after(2), key="a")
    with pytest.raises(Stopped):
        train(run, glyphs, split, CPU, tmp_path, stop_after(1), key="a")
    assert "resumed at step 2" in capfd.readouterr().out
    train(run, glyphs, split, CPU, tmp_path, never, key="b")
    assert "resumed" not in capfd.readouterr().out
