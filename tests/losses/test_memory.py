"""The memory of earlier batches: a queue, and the losses of a batch against it, as plain loops."""

import copy
import math
from collections import deque

import pytest
import torch
from torch.nn import functional

from dmlbench.conformance.waits import NoHost, NoReading
from dmlbench.losses import create_loss
from dmlbench.losses._memory import CrossBatchMemory

DIM, CLASSES = 6, 4
LOSSES = {
    "contrastive": [{}, {"positive_margin": 0.3, "negative_margin": 1.3}],
    "multi_similarity": [{}, {"alpha": 5.0, "beta": 20.0, "la": 0.2, "epsilon": 0.3}],
    "triplet": [
        {"margin": 0.5},
        {"mining": "all", "squared": False},
        {"mining": "hard", "margin": 0.3},
    ],
    "rll": [
        {},
        {"form": "tpami", "anchor_weighting": "official", "gallery_grad": True, "blocks": 2},
    ],
}
CASES = [(name, options) for name, cases in LOSSES.items() for options in cases]


def pairs_of(labels, others, is_same_image):
    """(anchor, reference) -> whether it is a positive pair; an image and itself are no pair."""
    return {
        (i, j): label == other
        for i, label in enumerate(labels)
        for j, other in enumerate(others)
        if not is_same_image(i, j)
    }


def mean(values):
    return sum(values) / len(values) if values else 0.0


def unit(x):
    return functional.normalize(x, dim=-1)


def contrastive(x, y, pairs, positive_margin=0.0, negative_margin=1.0):
    x, y = unit(x), unit(y)
    terms = {True: [], False: []}
    for (i, j), positive in pairs.items():
        d = (x[i] - y[j]).norm()
        violation = d - positive_margin if positive else negative_margin - d
        if violation > 0:
            terms[positive].append(violation)
    return mean(terms[True]) + mean(terms[False])


def multi_similarity(x, y, pairs, alpha=2.0, beta=50.0, la=0.5, epsilon=0.1):
    x, y, total = unit(x), unit(y), 0.0
    for i in range(len(x)):
        cosine = {j: x[i] @ y[j] for a, j in pairs if a == i}
        positives = [s for j, s in cosine.items() if pairs[i, j]]
        negatives = [s for j, s in cosine.items() if not pairs[i, j]]
        if not positives or not negatives:
            continue
        pull = [(-alpha * (s - la)).exp() for s in positives if s - epsilon < max(negatives)]
        push = [(beta * (s - la)).exp() for s in negatives if s + epsilon > min(positives)]
        total += torch.log1p(x.new_tensor(0.0) + sum(pull)) / alpha
        total += torch.log1p(x.new_tensor(0.0) + sum(push)) / beta
    return total / len(x)


def triplet(x, y, pairs, margin=0.2, squared=True, mining="semihard"):
    x, y, terms = unit(x), unit(y), []
    for (i, p), positive in pairs.items():
        for n in range(len(y)):
            if not positive or pairs.get((i, n), True):
                continue
            d_ap, d_an = ((x[i] - y[j]).norm() ** (2 if squared else 1) for j in (p, n))
            kept = {"all": True, "semihard": d_an > d_ap, "hard": d_an <= d_ap}[mining]
            if kept and d_ap - d_an + margin > 0:
                terms.append(d_ap - d_an + margin)
    return mean(terms)


def rll(x, y, pairs, form="cvpr", blocks=1, anchor_weighting="uniform", **_):
    margin, temperature, alpha = 0.4, 10.0, 1.2
    share = (1.0, 1.0) if form == "cvpr" else (0.5, 0.5)
    total = 0.0
    for a, b in zip(x.chunk(blocks, dim=1), y.chunk(blocks, dim=1), strict=True):
        a, b = unit(a), unit(b)
        losses, weights = [], []
        for i in range(len(a)):
            pull, push = [], []
            for j in range(len(b)):
                if (i, j) not in pairs:
                    continue
                d = (a[i] - b[j]).norm()
                if pairs[i, j] and d > alpha - margin:
                    pull.append(d - (alpha - margin))
                if not pairs[i, j] and d < alpha:
                    push.append(alpha - d)
            raw = [math.exp(temperature * float(v)) for v in push]
            pulled = mean(pull)
            pushed = sum(w * v for w, v in zip(raw, push, strict=True)) / sum(raw) if raw else 0.0
            losses.append(share[0] * pulled + share[1] * pushed)
            weights.append(len(pull) + sum(raw))
        if anchor_weighting == "uniform":
            total += sum(losses) / len(losses)
        else:
            weighted = zip(weights, losses, strict=True)
            total += sum(w * v for w, v in weighted) / sum(weights)
    return total


REFERENCES = {f.__name__: f for f in (contrastive, multi_similarity, triplet, rll)}


def batches_of(sizes, seed=0):
    random = torch.Generator().manual_seed(seed)
    means = torch.randn(CLASSES, DIM, generator=random, dtype=torch.float64)
    for size in sizes:
        labels = torch.randint(CLASSES, (size,), generator=random)
        noise = torch.randn(size, DIM, generator=random, dtype=torch.float64)
        lengths = 0.5 + torch.rand(size, 1, generator=random, dtype=torch.float64)
        yield lengths * (means[labels] + noise), labels


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(("name", "options"), CASES)
def test_value_and_gradient_are_those_of_the_batch_and_of_the_batch_against_the_queue(
    name, options, seed
):
    size, start = 20, 1
    loss = create_loss(name, CLASSES, DIM, memory=size, memory_start=start, **options).double()
    reference, queue = REFERENCES[name], deque(maxlen=size)
    for step, (x, labels) in enumerate(batches_of([8, 9, 8, 9, 7, 12], seed), start=1):
        x, y = x.requires_grad_(), x.detach().clone().requires_grad_()
        value = loss(x, labels)
        value.backward()
        # RLL with its gradient to the gallery too; else a query learns alone
        within = y if name != "rll" or options.get("gallery_grad") else y.detach()
        labels = labels.tolist()
        pairs = pairs_of(labels, labels, lambda i, j: i == j)
        expected = reference(y, within, pairs, **options)
        if step > start:
            queue.extend((step, i, y[i].detach().clone(), label) for i, label in enumerate(labels))
            steps, images, stored, others = zip(*queue, strict=True)
            pairs = pairs_of(
                labels,
                others,
                lambda i, j: (steps[j], images[j]) == (step, i),  # noqa: B023
            )
            expected = expected + reference(y, torch.stack(stored), pairs, **options)
        assert value.item() == pytest.approx(expected.item(), abs=1e-9)
        expected.backward()
        assert (x.grad - y.grad).abs().max() < 1e-9
    assert loss.statistics() == {"memory": 20}
    assert len(queue) == 20


@pytest.mark.parametrize("name", LOSSES)
def test_without_a_memory_a_loss_has_no_state_and_its_old_value(name):
    plain, unstarted = (
        create_loss(name, CLASSES, DIM, **options) for options in ({}, {"memory": 50})
    )
    assert not plain.state_dict()
    assert plain.statistics() == {}
    for x, labels in batches_of([8, 8]):
        assert torch.equal(plain(x, labels), unstarted(x, labels))
    assert unstarted.statistics() == {"memory": 0}


def test_the_newest_embeddings_take_the_places_of_the_oldest():
    memory, queue = CrossBatchMemory(7, 0, DIM), deque(maxlen=7)
    for x, labels in batches_of([3, 5, 2, 7, 1, 6]):
        references = memory(x.float().requires_grad_(), labels)
        queue.extend(zip(x.float().tolist(), labels.tolist(), strict=True))
        held = {(*embedding, label) for embedding, label in queue}
        rows = zip(references.embeddings.tolist(), memory.labels.tolist(), strict=False)
        assert {(*embedding, label) for embedding, label in rows} == held
        assert not references.embeddings.requires_grad
        assert references.positive.shape == (len(labels), len(queue))


def test_in_evaluation_mode_nothing_enters_and_the_loss_is_that_of_the_batch():
    loss = create_loss("contrastive", CLASSES, DIM, memory=30, memory_start=0)
    (x, labels), (other, others) = batches_of([8, 8])
    loss(x, labels)
    before = copy.deepcopy(loss.state_dict())
    value = loss.eval()(other, others)
    assert torch.equal(value, create_loss("contrastive", CLASSES, DIM)(other, others))
    for name, state in loss.state_dict().items():
        same = torch.equal if isinstance(state, torch.Tensor) else dict.__eq__
        assert same(state, before[name])


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_goes_on_from_its_saved_state_with_the_same_bits(name, tmp_path):
    once, first, second = (
        create_loss(name, CLASSES, DIM, memory=20, memory_start=1) for _ in range(3)
    )
    batches = [*batches_of([8, 8, 8, 8, 8])]
    values = [once(*batch) for batch in batches]
    for batch in batches[:3]:
        first(*batch)
    torch.save(first.state_dict(), tmp_path / "loss.pt")
    second.load_state_dict(torch.load(tmp_path / "loss.pt"))
    assert [second(*batch) for batch in batches[3:]] == values[3:]


def test_a_memory_of_a_native_loss_does_not_wait_for_a_gpu():
    loss = create_loss("rll", CLASSES, DIM, memory=20, memory_start=0)
    for x, labels in batches_of([8, 8, 8, 8]):
        x = x.float().requires_grad_()
        if loss.memory.entered:  # the first batch is examined
            with NoReading(), NoHost():
                loss(x, labels).backward()
        else:
            loss(x, labels)


def test_a_memory_that_does_not_hold_a_batch_and_a_start_without_memory_are_refused():
    loss = create_loss("contrastive", CLASSES, DIM, memory=7, memory_start=0)
    ((x, labels),) = batches_of([8])
    with pytest.raises(
        ValueError, match=r"memory: 7 embeddings do not hold a batch of 8\. Take me"
    ):
        loss(x, labels)
    for name in LOSSES:
        with pytest.raises(ValueError, match="memory_start: 5 is not used without memory"):
            create_loss(name, CLASSES, DIM, memory_start=5)
    with pytest.raises(ValueError, match="memory is not used with mining: distance_weighted"):
        create_loss("triplet", CLASSES, DIM, memory=50, mining="distance_weighted")
