"""Checks of how a loss runs: it never waits for the host, it is one graph, and it learns."""

from __future__ import annotations

import time

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from dmlbench.conformance.check import Broken, check, describe_error
from dmlbench.conformance.subject import N, Subject, batch
from dmlbench.conformance.waits import NoHost, NoReading, NoRoundTrip, Waits

FOREIGN = frozenset({"wrapped", "library"})
OWN = frozenset({"own"})
SECONDS, MIN_EPOCHS, MAX_EPOCHS, RATE = 30, 15, 80, 1e-2
ON_DEVICE = (
    "Stay in torch, on the device of the embeddings: pairs of labels by dmlbench.losses.base."
    "pair_masks(labels), rows of classes by tensor[labels], new tensors by "
    "torch.arange(n, device=embeddings.device)."
)
LEARNT = 0.7  # Recall@1: losses that ignored the labels reached 0.4 at most, others 0.78 or more


@check(
    "host",
    "forward and backward never wait for the GPU",
    skipped=FOREIGN,
    warned=OWN,
    declarable=True,
    why="A GPU works behind Python, which only queues the work. Each value that Python asks for "
    "empties the queue, at each step, and the loss takes longer than the network's backward.",
    fix="The cause is .item(), bool(tensor), tensor[mask], nonzero, unique, tolist, a tensor made "
    "from numbers of Python, or the backward pass of gather, topk, sort or max(dim). Keep shapes "
    "fixed: masks with torch.where or multiplication, counts with .sum().clamp(min=1), no `if` on "
    "a tensor, tensor[rows, columns] instead of gather, amax instead of max(dim).",
)
def host(subject: Subject) -> None:
    for stage, loss in subject.stages():
        embeddings, labels = batch()
        loss(embeddings, labels)  # `forward` reads the labels of the first batch, to check them
        embeddings.requires_grad_()
        did = f"{stage.capitalize()}, forward and backward ran while such calls were watched."
        try:
            with NoRoundTrip(N):
                loss(embeddings, labels).backward()
        except Waits as error:
            saw = describe_error(error).removeprefix("Waits: ")
            raise Broken(did, saw, fails=True, fix=ON_DEVICE) from None
        try:
            with NoReading(), NoHost():
                loss(embeddings, labels).backward()
        except Waits as error:
            raise Broken(did, describe_error(error).removeprefix("Waits: ")) from None


@check(
    "compile",
    "torch.compile makes it one graph, of the same value",
    skipped=FOREIGN,
    warned=OWN,
    why="Each break of the graph is a return to Python. Only one whole graph can be captured as a "
    "CUDA graph; without that, small kernels wait for their launches.",
    fix="The causes are those of `host`, and calls that torch cannot trace: numpy, scipy, print.",
)
def compiles(subject: Subject) -> None:
    loss, (embeddings, labels) = subject.prepared(), batch()
    did = "It was compiled by torch.compile(loss, backend='eager', fullgraph=True)."
    torch._dynamo.reset()
    compiled = torch.compile(loss, backend="eager", fullgraph=True)
    try:
        value = compiled(embeddings, labels)
    except Exception as error:  # the compiler may raise anything
        lines = [line.strip() for line in str(error).strip().splitlines()]
        places = [line for line in lines if line.startswith("File ")]
        saw = f"{type(error).__name__}: {' '.join([*lines[:1], *places[-1:]])}"
        raise Broken(did, saw) from None
    expected = loss(embeddings, labels)
    if not torch.isclose(value, expected, rtol=1e-5):
        raise Broken(did, f"The value is {value:.7g}, but {expected:.7g} uncompiled.")


@check(
    "learns",
    f"a toy problem is learnt within {SECONDS} s of CPU time",
    why="A loss that teaches nothing can pass all other checks: with the wrong sign, with "
    "positives and negatives exchanged, with a scale that drowns the gradient, without the labels.",
    fix="Look at the sign first, then at the masks of positives and negatives, then at the size of "
    "the gradient relative to the value.",
)
def learns(subject: Subject) -> str:
    """Train a linear model on Gaussian classes (4 dimensions, 28 of noise), score new samples."""
    random = np.random.default_rng(0)
    classes, per_class, steps, size = 8, 32, 16, subject.batch_size(32)
    means = random.normal(size=(classes, 4)) * 2
    labels = np.arange(classes).repeat(per_class)

    def sample() -> Tensor:
        signal = means[labels] + random.normal(size=(len(labels), 4)) * 0.5
        noise = random.normal(size=(len(labels), 28)) * 1.5
        return torch.tensor(np.hstack([signal, noise]), dtype=torch.float32)

    train, test, targets = sample(), sample(), torch.from_numpy(labels)

    def recall_at_1(embeddings: Tensor) -> float:
        unit = functional.normalize(embeddings)
        nearest = (unit @ unit.T).fill_diagonal_(-2).argmax(dim=1)
        return (targets[nearest] == targets).float().mean().item()

    loss = subject.create(classes, 12)
    torch.manual_seed(0)
    model = torch.nn.Linear(32, 12)

    def embed() -> tuple[Tensor, Tensor]:
        return functional.normalize(model(train).detach()), targets

    before = after = recall_at_1(model(test).detach())
    steps_done, deadline = 0, time.process_time() + SECONDS
    optimizer = torch.optim.Adam([{"params": model.parameters()}, *loss.param_groups(RATE)], RATE)
    for epoch in range(MAX_EPOCHS):
        for parameter in loss.refresh(embed):
            optimizer.state.pop(parameter, None)
        rows = loss.batches(labels, steps, size, 0, epoch)
        if rows is None:
            rows = random.integers(len(labels), size=(steps, size))
        for row in torch.from_numpy(rows):
            optimizer.zero_grad()
            loss(model(train[row]), targets[row]).backward()
            optimizer.step()
            steps_done += 1
            if time.process_time() > deadline:
                break
        after = recall_at_1(model(test).detach())
        learnt = after > LEARNT and epoch + 1 >= MIN_EPOCHS
        if learnt or time.process_time() > deadline:
            break
    if not after > LEARNT:
        raise Broken(
            f"A linear model was trained for {steps_done} steps (Adam, batches of {size}) "
            f"to find {classes} Gaussian classes in 4 of 32 dimensions.",
            f"Recall@1 of new samples went from {before:.0%} to {after:.0%}; it should reach "
            f"{LEARNT:.0%}.",
        )
    return f"Recall@1 {before:.0%} -> {after:.0%} in {steps_done} steps"
