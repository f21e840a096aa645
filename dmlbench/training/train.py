"""Train one run and embed its test split. The whole training is here, to be read top to bottom.

Every random draw is a function of (seed, epoch, step), and everything that is learnt is in the
checkpoint. So an interrupted training ends with the same bits as an uninterrupted one.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from dmlbench.backbones.independence import check_independence
from dmlbench.backbones.model import EmbeddingModel, TrainedModel
from dmlbench.losses import create_loss
from dmlbench.training import batches, chunks
from dmlbench.training.checkpoint import Checkpoint
from dmlbench.training.determinism import allow_other_kernels, refused, repeatable
from dmlbench.training.embedding import embed
from dmlbench.training.execution import autocast, compiles, set_up
from dmlbench.training.inputs import BatchKey, open_inputs
from dmlbench.training.prefetch import MapFunction, device_batches, host_batches
from dmlbench.training.progress import Progress
from dmlbench.training.time_limit import Stopped
from dmlbench.utils.errors import UserError

if TYPE_CHECKING:
    from dmlbench.datasets.store.reader import Split, Store
    from dmlbench.losses.base import Loss
    from dmlbench.study.run import Run
    from dmlbench.study.settings import Recipe

AfterEpoch = Callable[[TrainedModel, int, list[dict[str, Any]]], dict[str, float]]
"""See `train`."""


class Diverged(UserError):
    """The loss or the embeddings have become NaN or infinite.

    `history` has the epochs before that.
    """

    status = "diverged"

    def __init__(self, message: str, history: list[dict[str, Any]]) -> None:
        super().__init__(message)
        self.history = history


def train(
    run: Run,
    store: Store,
    split: Split,
    device: torch.device,
    state: Path,
    stop: Callable[[], str | None],
    after_epoch: AfterEpoch | None = None,
    key: str | None = None,
    is_enough: Callable[[list[dict[str, Any]]], bool] | None = None,
) -> tuple[TrainedModel, Loss, list[dict[str, Any]]]:
    """Train the model and the loss of `run` on the images `split` of `store`.

    Args:
        split: the training images, or those of a part of the training classes.
        state: the folder of the checkpoint. If it has one under `key`, the training continues it.
        stop: called once per step; returns the reason to stop, or None.
        after_epoch: called after each epoch as `after_epoch(model, epoch, history)`, with the
            number of the epoch from 1 and the rows of the epochs before. What it returns joins the
            row of the epoch. It may put the model in eval mode, and must not draw from torch's
            generators.
        key: of the checkpoint; None: the `train_key` of the run.
        is_enough: called before each epoch with the rows of the epochs before; the training ends
            there if it is true.

    Returns:
        The model, the loss, and the history with a row for each epoch.

    Raises:
        Stopped: `stop` gave a reason; the checkpoint holds all steps that were done.
        Diverged: the loss or the embeddings became NaN or infinite.
        ValueError: the batches do not fit the training set, or the model cannot be trained in
            chunks.
    """
    set_up(run.recipe, device)
    checkpoint = Checkpoint(state, key or run.train_key)
    return _train(run, store, split, device, checkpoint, stop, after_epoch, is_enough)


@repeatable
def _train(
    run: Run,
    store: Store,
    split: Split,
    device: torch.device,
    checkpoint: Checkpoint,
    stop: Callable[[], str | None],
    after_epoch: AfterEpoch | None,
    is_enough: Callable[[list[dict[str, Any]]], bool] | None,
) -> tuple[TrainedModel, Loss, list[dict[str, Any]]]:
    recipe = run.recipe
    epochs = run.last_epoch or recipe.epochs
    labels = torch.from_numpy(split.labels).to(device)
    steps = len(split.rows) // recipe.batch_size
    if not steps:
        raise ValueError(
            f"recipe.batch_size: {recipe.batch_size} is more than the {len(split.rows)} images "
            f"of {run.dataset}'s training classes"
        )

    # The seed decides the first weights of model and loss, and every draw: equal for all losses
    torch.manual_seed(run.seed)
    inputs = open_inputs(run, store)
    model = inputs.create_model().to(device)
    torch.manual_seed(run.seed)
    parents = None if split.parents is None else torch.from_numpy(split.parents)
    loss = create_loss(
        run.loss_type,
        num_classes=int(split.labels.max()) + 1,
        embedding_dim=run.model.dim,
        parents=parents,
        **run.loss_options,
    ).to(device)
    if recipe.chunk is not None and isinstance(model, EmbeddingModel):
        side = run.model.image_size
        image = torch.empty(store.channels, side, side, device=device)
        check_independence(model, recipe.chunk, image)
    # the model itself stays as it is: its names in the checkpoint, and how it embeds
    forward = torch.compile(model, dynamic=False) if compiles(recipe, device) else model
    optimizer = create_optimizer(recipe, model, loss.param_groups(recipe.lr))
    parameters = [p for group in optimizer.param_groups for p in group["params"]]

    history: list[dict[str, Any]] = []
    done, total = 0, epochs * steps  # steps
    refreshed = 0  # epochs that the loss has been refreshed for
    loss_sum = torch.zeros((), device=device, dtype=torch.float64)  # over the steps of this epoch
    seconds = 0.0  # in this epoch, over all attempts
    if saved := checkpoint.load():
        if saved["refused"]:
            allow_other_kernels(saved["refused"])
        model.load_state_dict(saved["model"])
        loss.load_state_dict(saved["loss"])
        optimizer.load_state_dict(saved["optimizer"])
        torch.set_rng_state(saved["rng"])
        if device.type == "cuda" and saved["cuda_rng"] is not None:
            torch.cuda.set_rng_state(saved["cuda_rng"])
        history, done, seconds = saved["history"], saved["step"], saved["seconds"]
        refreshed = saved["refreshed"]
        loss_sum.copy_(saved["loss_sum"])
    first = done  # first step of this attempt

    def save() -> None:
        if not math.isfinite(float(loss_sum)):
            raise Diverged(f"the loss is {float(loss_sum)} at step {done}", history)
        checkpoint.save(
            {
                "model": model.state_dict(),
                "loss": loss.state_dict(),
                "optimizer": optimizer.state_dict(),
                "rng": torch.get_rng_state(),
                "cuda_rng": torch.cuda.get_rng_state() if device.type == "cuda" else None,
                "history": history,
                "step": done,
                "refreshed": refreshed,
                "refused": sorted(refused),
                "seconds": seconds + time.monotonic() - began,
                "loss_sum": loss_sum.cpu(),
            }
        )

    def embed_training_set() -> tuple[Tensor, Tensor]:
        embeddings = embed(model, inputs, split.rows, device)
        if not np.isfinite(embeddings).all():
            raise Diverged(f"the embeddings hold NaN or infinity after step {done}", history)
        return functional.normalize(torch.from_numpy(embeddings).to(device)), labels

    def prepare_chunks(key: BatchKey, map_function: MapFunction) -> list[dict[str, Tensor]]:
        assert recipe.chunk is not None
        return chunks.split(inputs.training_batch(key, map_function), recipe.chunk)

    def embed_batch(batch: dict[str, Tensor], train_trunk: bool) -> Tensor:
        argument = inputs.to_model(**batch)
        with autocast(recipe, device):
            return forward(argument, train_trunk=train_trunk)

    def embed_chunk(chunk: dict[str, Tensor], train_trunk: bool) -> Tensor:
        # On the stream of the computation, so one chunk is on the device at a time
        on_device = {name: part.to(device, non_blocking=True) for name, part in chunk.items()}
        return embed_batch(on_device, train_trunk)

    progress = Progress(
        checkpoint.folder, device=str(device), total=total, step=done, batch=recipe.batch_size
    )
    for row in history:  # of earlier attempts
        progress.epoch(row, epochs)
    if first:
        print(f"resumed at step {first} of {total}", flush=True)
    for epoch in range(done // steps, epochs):
        if is_enough and is_enough(history):
            break
        began = time.monotonic()
        if refreshed <= epoch:
            model.eval()
            if not all(parameter.isfinite().all() for parameter in loss.parameters()):
                raise Diverged(
                    f"the parameters of the loss hold NaN or infinity after step {done}", history
                )
            for parameter in loss.refresh(embed_training_set):
                # Zero, not dropped: in fused SGD all parameters of a group have momentum, or none
                for value in optimizer.state.get(parameter, {}).values():
                    if isinstance(value, Tensor):
                        value.zero_()
            refreshed = epoch + 1
        model.train()
        rows = loss.batches(split.labels, steps, recipe.batch_size, run.seed, epoch)
        if rows is None:
            rows = batches.sample(
                split.labels,
                steps,
                recipe.batch_size,
                recipe.images_per_class,
                run.seed,
                epoch,
                recipe.sampler,
            )
        rows = rows[done % steps :]  # after a resume, the rest of the epoch
        targets = torch.from_numpy(split.labels[rows]).to(device)
        keys = [(epoch, step, split.rows[row]) for step, row in enumerate(rows, done % steps)]
        prepared: Iterator[Any] = (
            device_batches(inputs.training_batch, keys, device)
            if recipe.chunk is None
            else host_batches(prepare_chunks, keys, device)
        )
        for target, batch in zip(targets, prepared, strict=True):
            if reason := stop():
                if done > first:  # a save counts as progress, so there must be some
                    save()
                progress.close()
                raise Stopped(reason, f"{reason}: saved at step {done} of {total}")
            if checkpoint.should_save():
                save()
            for group in optimizer.param_groups:
                group["lr"] = group["initial_lr"] * schedule(recipe, done, steps)
            optimizer.zero_grad(set_to_none=True)
            train_trunk = done >= recipe.warmup_steps
            if recipe.chunk is None:
                value = loss(embed_batch(batch, train_trunk), target)
                value.backward()
            else:
                value = chunks.backward(embed_chunk, loss, batch, target, train_trunk)
            if recipe.clip_value is not None:
                torch.nn.utils.clip_grad_value_(parameters, recipe.clip_value)
            if recipe.clip_norm is not None:
                torch.nn.utils.clip_grad_norm_(parameters, recipe.clip_norm)
            optimizer.step()
            loss_sum += value.detach()
            done += 1
            progress.step(done, value.detach())

        mean = float(loss_sum) / steps
        if not math.isfinite(mean):
            raise Diverged(f"the loss is {mean} in epoch {epoch + 1}", history)
        seconds += time.monotonic() - began
        measured = after_epoch(model, epoch + 1, history) if after_epoch else {}
        history.append(
            {
                "epoch": epoch + 1,
                "step": done,
                "loss": mean,
                "lr": recipe.lr * schedule(recipe, done - 1, steps),
                "images_per_second": steps * recipe.batch_size / seconds,
                "seconds": seconds,
                **loss.statistics(),
                **measured,
            }
        )
        progress.epoch(history[-1], epochs)
        loss_sum.zero_()
        seconds = 0.0
    progress.close()
    return model, loss, history


def create_optimizer(
    recipe: Recipe, model: TrainedModel, loss_groups: list[dict[str, Any]]
) -> torch.optim.Optimizer:
    """The optimizer of the recipe, over the trunk, the head and the parameters of the loss."""
    trunk = [p for p in model.trunk.parameters() if p.requires_grad]
    head = list(model.head.parameters())
    groups = [
        *([{"params": trunk, "lr": recipe.lr}] if trunk else []),  # a frozen one is not there
        {"params": head, "lr": recipe.lr * recipe.head_lr_factor},
        *loss_groups,
    ]
    decay = recipe.weight_decay  # for the groups that do not set it
    optimizer: torch.optim.Optimizer
    if recipe.optimizer == "sgd":
        optimizer = torch.optim.SGD(
            groups, momentum=recipe.momentum, weight_decay=decay, fused=True
        )
    elif recipe.optimizer == "rmsprop":  # torch has no fused one
        optimizer = torch.optim.RMSprop(
            groups, eps=recipe.eps, momentum=recipe.momentum, weight_decay=decay
        )
    else:
        adam = torch.optim.AdamW if recipe.optimizer == "adamw" else torch.optim.Adam
        optimizer = adam(groups, eps=recipe.eps, weight_decay=decay, fused=True)
    for group in optimizer.param_groups:
        group["initial_lr"] = group["lr"]
    return optimizer


def schedule(recipe: Recipe, step: int, steps: int) -> float:
    """The factor of the learning rates at `step` (from 0), with `steps` per epoch."""
    if recipe.schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * step / (recipe.epochs * steps)))
    if recipe.schedule == "step":
        return recipe.step_factor ** sum(step // steps >= epoch for epoch in recipe.step_epochs)
    return 1.0
