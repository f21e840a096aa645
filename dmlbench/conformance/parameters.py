"""A loss's own parameters and state: they learn, once each, and survive an interruption."""

from __future__ import annotations

import copy
import io
import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dmlbench.conformance.check import Broken, check
from dmlbench.conformance.subject import C, Subject, batch, same, training_set, value_of
from dmlbench.losses.base import Loss

PLAIN = (int, float, str, list, dict, tuple, set, np.ndarray, type(None))


@check(
    "moves",
    "gradients reach the embeddings and every parameter",
    why="What gets no gradient does not learn: proxies stay where chance put them, or the model "
    "stays untrained, and the run still ends with a score.",
    fix="A detach() or .data too many, a parameter that `compute` does not use, a margin so small "
    "that an ordinary batch violates nothing.",
)
def moves(subject: Subject) -> str:
    loss, (embeddings, labels) = subject.prepared(), batch()
    embeddings.requires_grad_()
    value_of(loss, embeddings, labels).backward()
    moved = 0.0 if embeddings.grad is None else embeddings.grad.any(dim=1).float().mean().item()
    did = "The gradients of an ordinary batch, random with classes that overlap, were taken."
    if moved <= 0.5:
        raise Broken(did, f"{moved:.0%} of its embeddings have a gradient that is not 0.")
    for name, parameter in loss.named_parameters():
        if parameter.grad is None or not parameter.grad.any():
            raise Broken(did, f"The parameter '{name}' has none, or 0 throughout.")
    return f"{moved:.0%} of the embeddings, {len(list(loss.parameters()))} parameters"


@check(
    "param_groups",
    "param_groups(lr) holds every parameter once, at a rate in proportion to lr",
    why="The trainer's optimiser updates what is in these groups and nothing else: a parameter "
    "left out never learns, and one that is in twice is refused by torch.",
    fix="return [{'params': list(self.parameters()), 'lr': lr * self.proxies_lr_factor}], or [] "
    "of a loss without parameters; each nn.Parameter in one group.",
)
def param_groups(subject: Subject) -> str:
    loss = subject.create()
    groups, slower = loss.param_groups(0.5), loss.param_groups(0.25)
    did = "param_groups(0.5) and param_groups(0.25) were called."
    found = [id(p) for group in groups for p in group["params"]]
    for name, parameter in loss.named_parameters():
        if (times := found.count(id(parameter))) != 1:
            raise Broken(did, f"The parameter '{name}' is in {times} groups.")
    if set(found) - {id(p) for p in loss.parameters()}:
        raise Broken(did, "A group holds what is no parameter of the loss: it would not be saved.")
    for group, its in zip(groups, slower, strict=True):
        if not (group["lr"] > 0 and np.isclose(group["lr"], 2 * its["lr"])):
            raise Broken(did, f"The rates {group['lr']:g} and {its['lr']:g} are not as 2 to 1.")
    torch.optim.AdamW([{"params": [nn.Parameter(torch.zeros(1))]}, *groups])
    return f"{len(found)} in {len(groups)} groups"


@check(
    "refresh",
    "refresh keeps its parameters, and names those that it sets anew",
    may_be_meant=True,
    why="The optimiser holds the parameter objects that it was made with: it goes on updating a "
    "replaced one. And its moments of a parameter that was set anew are another one's: the "
    "first steps pull it away from where it was put.",
    fix="Under no_grad, write into the parameter (self.proxies.copy_(new)) and return it: "
    "return (self.proxies,).",
)
def refresh(subject: Subject) -> str | None:
    loss = subject.create()
    for epoch in range(1, 4):
        before = dict(loss.named_parameters())
        values = {name: p.detach().clone() for name, p in before.items()}
        returned = {id(p) for p in loss.refresh(training_set)}
        did = f"refresh was called, as before epoch {epoch}."
        after = dict(loss.named_parameters())
        for name in before.keys() | after.keys():
            if before.get(name) is not after.get(name):
                raise Broken(did, f"The parameter '{name}' is another object.", excusable=False)
        if returned - {id(p) for p in after.values()}:
            raise Broken(did, "It returned what is no parameter of the loss.", excusable=False)
        for name, parameter in after.items():
            if not same(values[name], parameter.detach()) and id(parameter) not in returned:
                raise Broken(did, f"The parameter '{name}' has new values, and was not returned.")
    return None


@check(
    "device",
    "to(device) moves every tensor that it holds",
    warned=frozenset({"library"}),
    why="The trainer moves the loss to the GPU once. A tensor that stays behind meets the "
    "embeddings there, and the first step raises - on a cluster, after the queue.",
    fix="self.register_buffer('name', tensor, persistent=...) in place of self.name = tensor; or "
    "make it in `compute`, on embeddings.device.",
)
def device(subject: Subject) -> None:
    for stage, loss in subject.stages():
        for prefix, module in loss.named_modules():
            for name, value in vars(module).items():
                if isinstance(value, Tensor) and value.dim():  # numbers meet a GPU's tensors
                    held = ".".join(filter(None, ["self", prefix, name]))
                    raise Broken(
                        f"{stage.capitalize()}, its attributes were looked at.",
                        f"{held} is a plain tensor, neither a parameter nor a buffer.",
                    )


@check(
    "state",
    "a restored loss has the same values and batches, and prepares its next epoch alike",
    why="Jobs are killed, and go on from a checkpoint that holds state_dict() and nothing else of "
    "the loss. What is not in it starts anew: the table then depends on who was interrupted.",
    fix="register_buffer('name', tensor) for what is learnt or counted, numbers too "
    "(torch.tensor(0)), or get_extra_state and set_extra_state; created in __init__ at its final "
    "shape, changed in place (copy_, +=).",
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
        other = subject.create(seed=1)
        did = f"A loss that had begun {epochs} epochs was saved, and loaded into a new one"
        try:
            other.load_state_dict(torch.load(saved, weights_only=True))
        except Exception as error:  # of torch's unpickler or the loss
            reason = " ".join(str(error).split())
            raise Broken(f"{did}.", f"It does not load: {reason[:300]}") from None
        lost = _lost(loss, other)
        values = [value_of(one, embeddings, labels) for one in (loss, other)]
        if not same(*values):
            raise Broken(f"{did}.", f"The values are {values[0]:.7g} and {values[1]:.7g}.{lost}")
        rows = [_batches(subject, one, epochs) for one in (loss, other)]
        if not np.array_equal(*rows):
            raise Broken(f"{did}.", f"Its batches of the next epoch are others.{lost}")
        for one in (loss, other):
            torch.manual_seed(4)
            one.refresh(training_set)
        for key, entry in loss.state_dict().items():
            if not same(entry, other.state_dict()[key]):
                saw = f"'{key}' is different in the two.{lost}"
                raise Broken(f"{did}; then both were refreshed.", saw)
    return None


def _lost(loss: Loss, other: Loss) -> str:
    """Attributes that the restored loss has otherwise: what state_dict has not kept."""
    names = []
    for name, value in vars(loss).items():
        if name.startswith("_") or not isinstance(value, (*PLAIN, Tensor)):
            continue
        its = vars(other).get(name)
        equal = same(value, its) if isinstance(value, Tensor) else np.array_equal(value, its)  # type: ignore[arg-type]
        if not equal:
            names.append(f"self.{name}")
    return f" Not kept, it seems: {', '.join(names)}." if names else ""


def _batches(subject: Subject, loss: Loss, epoch: int) -> Any:
    labels = np.arange(C).repeat(4)
    return loss.batches(labels, 2, subject.batch_size(16), 0, epoch)


@check(
    "statistics",
    "statistics() gives numbers by name, and changes nothing",
    why="They become columns of history.parquet at the end of each epoch; what is no number there "
    "ends the run, after an epoch of work.",
    fix="Return {'name': float}: .item() of tensors, and a number also before the first epoch.",
)
def statistics(subject: Subject) -> str:
    found: dict[str, float] = {}
    for stage, loss in subject.stages():
        before = {key: copy.deepcopy(entry) for key, entry in loss.state_dict().items()}
        found = loss.statistics()
        did = f"{stage.capitalize()}, statistics() was called."
        for name, value in found.items():
            if not isinstance(value, int | float) or not math.isfinite(value):
                raise Broken(did, f"'{name}' is {value!r}, of type {type(value).__name__}.")
        for key, entry in loss.state_dict().items():
            if not same(entry, before[key]):
                raise Broken(did, f"'{key}' of its state is different since.")
    return ", ".join(found) or "none"


@check(
    "batches",
    "batches() gives rows of the training set, by seed and epoch alone",
    why="A resumed epoch skips the batches that it has had: only if they are drawn alike again "
    "does it go on with the rest. And torch's generator belongs to the model's dropout.",
    fix="random = numpy.random.default_rng([seed, epoch]); return int64 rows (steps, batch_size), "
    "numbers of images in 0 ... len(labels) - 1.",
)
def batches(subject: Subject) -> str | None:
    labels, steps, size = np.arange(C).repeat(4), 3, subject.batch_size(16)
    for stage, loss in subject.stages():
        did = f"{stage.capitalize()}, batches(labels, {steps}, {size}, seed, epoch) was called"

        def drawn(seed: int, epoch: int, loss: Loss = loss) -> Any:
            return loss.batches(labels, steps, size, seed, epoch)

        generator = torch.get_rng_state()
        rows = drawn(0, 1)
        if rows is None:
            return "the recipe's sampler"
        if np.shape(rows) != (steps, size) or np.asarray(rows).dtype.kind != "i":
            got = f"{np.asarray(rows).dtype} of shape {np.shape(rows)}"
            raise Broken(f"{did}.", f"It gave {got}, not whole numbers of shape {(steps, size)}.")
        if rows.min() < 0 or rows.max() >= len(labels):
            raise Broken(f"{did}.", f"Rows {rows.min()} to {rows.max()} of {len(labels)} images.")
        if not np.array_equal(rows, drawn(0, 1)):
            raise Broken(f"{did} twice with the same seed and epoch.", "It gave other batches.")
        if np.array_equal(rows, drawn(0, 2)) or np.array_equal(rows, drawn(1, 1)):
            raise Broken(f"{did} with another seed and another epoch.", "It gave the same batches.")
        if not torch.equal(generator, torch.get_rng_state()):
            raise Broken(f"{did}.", "It drew from torch's global generator.")
    return None
