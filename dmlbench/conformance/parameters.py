"""Checks of a loss's parameters and state: they learn, once each, and survive interruptions."""

from __future__ import annotations

import copy
import io
import json
import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dmlbench.conformance.check import LIBRARY, Broken, check
from dmlbench.conformance.subject import C, Subject, batch, same, training_set, value_of
from dmlbench.losses.base import Loss
from dmlbench.utils.text import count_of

PLAIN = (int, float, str, list, dict, tuple, set, np.ndarray, type(None))


@check(
    "moves",
    "gradients reach the embeddings and every parameter",
    why="What gets no gradient does not learn: proxies keep their random values, or the model "
    "stays untrained, and the run still ends with a score.",
    fix="The cause is a detach() or .data in the wrong place, a parameter that `compute` does not "
    "use, or a margin so small that an ordinary batch violates nothing.",
)
def moves(subject: Subject) -> str:
    loss, (embeddings, labels) = subject.prepared(), batch()
    embeddings.requires_grad_()
    value_of(loss, embeddings, labels).backward()
    share = 0.0 if embeddings.grad is None else embeddings.grad.any(dim=1).float().mean().item()
    did = "The gradients of an ordinary batch, random with classes that overlap, were computed."
    if share <= 0.5:
        raise Broken(did, f"{share:.0%} of its embeddings have a gradient that is not 0.")
    for name, parameter in loss.named_parameters():
        if parameter.grad is None or not parameter.grad.any():
            raise Broken(did, f"The parameter '{name}' has no gradient, or one that is all 0.")
    return f"{share:.0%} of the embeddings, {count_of(len([*loss.parameters()]), 'parameter')}"


@check(
    "param_groups",
    "param_groups(lr) holds every parameter once, at a rate in proportion to lr",
    why="The trainer's optimiser updates what is in these groups and nothing else: a parameter "
    "left out never learns, and torch refuses one that is in twice.",
    fix="return [{'params': list(self.parameters()), 'lr': lr * self.proxies_lr_factor}], or [] "
    "for a loss without parameters. Each nn.Parameter is in one group.",
)
def param_groups(subject: Subject) -> str:
    loss = subject.create()
    groups, slower = loss.param_groups(0.5), loss.param_groups(0.25)
    did = "param_groups(0.5) and param_groups(0.25) were called."
    grouped = [id(parameter) for group in groups for parameter in group["params"]]
    for name, parameter in loss.named_parameters():
        if (times := grouped.count(id(parameter))) != 1:
            raise Broken(did, f"The parameter '{name}' is in {times} groups.")
    if set(grouped) - {id(parameter) for parameter in loss.parameters()}:
        raise Broken(
            did, "A group holds a tensor that is no parameter of the loss: it is not saved."
        )
    for group, slow in zip(groups, slower, strict=True):
        if not (group["lr"] > 0 and np.isclose(group["lr"], 2 * slow["lr"])):
            raise Broken(did, f"The ratio of {group['lr']:g} and {slow['lr']:g} is not 2.")
    torch.optim.AdamW([{"params": [nn.Parameter(torch.zeros(1))]}, *groups])
    return f"{len(grouped)} in {count_of(len(groups), 'group')}"


@check(
    "refresh",
    "refresh keeps the parameter objects, and returns those that it overwrites",
    declarable=True,
    why="The optimiser keeps the parameter objects that it was created with: it goes on updating "
    "one that was replaced. And its moments of an overwritten parameter belong to the old values: "
    "the first steps pull it away from the new ones.",
    fix="Under no_grad, write into the parameter (self.proxies.copy_(new)) and return it: "
    "return (self.proxies,).",
)
def refresh(subject: Subject) -> str | None:
    loss = subject.create()
    for epoch in range(1, 4):
        before = dict(loss.named_parameters())
        values = {name: parameter.detach().clone() for name, parameter in before.items()}
        returned = {id(parameter) for parameter in loss.refresh(training_set)}
        did = f"refresh was called, as before epoch {epoch}."
        after = dict(loss.named_parameters())
        for name in before.keys() | after.keys():
            if before.get(name) is not after.get(name):
                raise Broken(did, f"The parameter '{name}' is another object.", excusable=False)
        if returned - {id(parameter) for parameter in after.values()}:
            saw = "It returned something that is no parameter of the loss."
            raise Broken(did, saw, excusable=False)
        for name, parameter in after.items():
            if not same(values[name], parameter.detach()) and id(parameter) not in returned:
                raise Broken(did, f"The parameter '{name}' has new values, and was not returned.")
    return None


@check(
    "device",
    "to(device) moves every tensor that it holds",
    warned=LIBRARY,
    why="The trainer moves the loss to the GPU once. A tensor that stays behind meets embeddings "
    "on the GPU, and the first step raises: on a cluster, after the time in the queue.",
    fix="Write self.register_buffer('name', tensor, persistent=...) in place of self.name = "
    "tensor, or create the tensor in `compute`, on embeddings.device.",
)
def device(subject: Subject) -> None:
    for stage, loss in subject.stages():
        for prefix, module in loss.named_modules():
            for name, value in vars(module).items():
                if isinstance(value, Tensor) and value.dim():  # one number may be on the CPU
                    attribute = ".".join(filter(None, ["self", prefix, name]))
                    raise Broken(
                        f"{stage.capitalize()}, its attributes were looked at.",
                        f"{attribute} is a plain tensor, neither a parameter nor a buffer.",
                    )


@check(
    "state",
    "a restored loss has the same values and batches, and prepares its next epoch alike",
    why="A killed job continues from a checkpoint, which holds the loss's state_dict() and nothing "
    "else of it. Anything that is not in it starts again, so an interruption changes the scores.",
    fix="Use register_buffer('name', tensor) for what is learnt or counted, also for numbers "
    "(torch.tensor(0)); or get_extra_state and set_extra_state. Create buffers in __init__ at "
    "their final shape, and change them in place (copy_, +=).",
)
def state(subject: Subject) -> str | None:
    embeddings, labels = batch()
    embeddings.requires_grad_()
    for epochs in range(4):
        loss = subject.prepared(epochs)
        optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1)), *loss.parameters()], 0.1)
        value_of(loss, embeddings, labels).backward()
        optimizer.step()
        saved = io.BytesIO()
        torch.save(loss.state_dict(), saved)
        saved.seek(0)
        restored = subject.create(seed=1)
        did = f"A loss that had begun {epochs} epochs was saved, and loaded into a new one"
        try:
            restored.load_state_dict(torch.load(saved, weights_only=True))
        except Exception as error:  # torch's unpickler or the loss may raise anything
            reason = " ".join(str(error).split())
            raise Broken(f"{did}.", f"It does not load: {reason[:300]}") from None
        lost = _describe_lost(loss, restored)
        values = [value_of(module, embeddings, labels) for module in (loss, restored)]
        if not same(*values):
            raise Broken(f"{did}.", f"The values are {values[0]:.7g} and {values[1]:.7g}.{lost}")
        rows = [_draw_batches(subject, module, epochs) for module in (loss, restored)]
        if not np.array_equal(*rows):
            raise Broken(f"{did}.", f"Its batches of the next epoch differ.{lost}")
        for module in (loss, restored):
            torch.manual_seed(4)
            module.refresh(training_set)
        for key, entry in loss.state_dict().items():
            if not same(entry, restored.state_dict()[key]):
                saw = f"'{key}' is different in the two.{lost}"
                raise Broken(f"{did}; then both were refreshed.", saw)
    return None


def _describe_lost(loss: Loss, restored: Loss) -> str:
    """The attributes that differ in the restored loss, since state_dict() did not keep them."""
    names = []
    for name, value in vars(loss).items():
        if name.startswith("_") or not isinstance(value, (*PLAIN, Tensor)):
            continue
        kept: Any = vars(restored).get(name)
        equal = same(value, kept) if isinstance(value, Tensor) else np.array_equal(value, kept)  # type: ignore[arg-type]
        if not equal:
            names.append(f"self.{name}")
    return f" Not kept, it seems: {', '.join(names)}." if names else ""


def _draw_batches(subject: Subject, loss: Loss, epoch: int) -> Any:
    labels = np.arange(C).repeat(4)
    return loss.batches(labels, 2, subject.batch_size(16), 0, epoch)


@check(
    "statistics",
    "statistics() gives numbers by name, artefact() JSON, and both change nothing",
    why="The numbers become columns of history.parquet at the end of each epoch; the artefact "
    "becomes a file after the last step. If they cannot be written, the run ends there, after all "
    "its work.",
    fix="Return {'name': float}: .item() of a tensor, and a number also before the first epoch. In "
    "an artefact, use .tolist() of tensors.",
)
def statistics(subject: Subject) -> str:
    numbers: dict[str, float] = {}
    for stage, loss in subject.stages():
        before = {key: copy.deepcopy(entry) for key, entry in loss.state_dict().items()}
        numbers = loss.statistics()
        did = f"{stage.capitalize()}, statistics() was called."
        for name, value in numbers.items():
            if not isinstance(value, int | float) or not math.isfinite(value):
                raise Broken(did, f"'{name}' is {value!r}, of type {type(value).__name__}.")
        try:
            json.dumps(loss.artefact())
        except (TypeError, ValueError) as error:
            raise Broken(f"{stage.capitalize()}, artefact() was called.", f"{error}.") from error
        for key, entry in loss.state_dict().items():
            if not same(entry, before[key]):
                raise Broken(did, f"'{key}' of its state is different afterwards.")
    return ", ".join(numbers) or "none"


@check(
    "batches",
    "batches() gives rows of the training set, by seed and epoch alone",
    why="A resumed epoch draws its batches again and skips those that are done: they have to be "
    "the same ones. And torch's generator belongs to the model's dropout.",
    fix="Draw by random = numpy.random.default_rng([seed, epoch]). Return int64 rows (steps, "
    "batch_size), numbers of images in 0 ... len(labels) - 1.",
)
def batches(subject: Subject) -> str | None:
    labels, steps, size = np.arange(C).repeat(4), 3, subject.batch_size(16)
    for stage, loss in subject.stages():
        did = f"{stage.capitalize()}, batches(labels, {steps}, {size}, seed, epoch) was called"

        def draw(seed: int, epoch: int, loss: Loss = loss) -> Any:
            return loss.batches(labels, steps, size, seed, epoch)

        generator = torch.get_rng_state()
        rows = draw(0, 1)
        if rows is None:
            return "the recipe's sampler"
        if np.shape(rows) != (steps, size) or np.asarray(rows).dtype.kind != "i":
            result = f"{np.asarray(rows).dtype} of shape {np.shape(rows)}"
            saw = f"It gave {result}, not whole numbers of shape {(steps, size)}."
            raise Broken(f"{did}.", saw)
        if rows.min() < 0 or rows.max() >= len(labels):
            raise Broken(f"{did}.", f"Rows {rows.min()} to {rows.max()} of {len(labels)} images.")
        if not np.array_equal(rows, draw(0, 1)):
            raise Broken(f"{did} twice with the same seed and epoch.", "It gave other batches.")
        if np.array_equal(rows, draw(0, 2)) or np.array_equal(rows, draw(1, 1)):
            raise Broken(f"{did} with another seed and another epoch.", "It gave the same batches.")
        if not torch.equal(generator, torch.get_rng_state()):
            raise Broken(f"{did}.", "It drew from torch's global generator.")
    return None
