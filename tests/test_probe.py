"""A probe times the real training, from its second step on."""

import json
import time

import pytest
import torch

from dmlbench import probe, study
from dmlbench.speeds import Device, Speeds

CPU = torch.device("cpu")


def clock(monkeypatch, *steps):
    """A clock that was asked at the beginning of each of `steps`, which took so many seconds."""
    made, now = probe._Clock(CPU), [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    made()
    for seconds in steps:
        now[0] += seconds
        made()
    return made


def test_first_steps_do_not_count_nor_does_one_that_saves(monkeypatch):
    timed = clock(monkeypatch, 2.0, 0.9, 0.3, 0.2, 0.2, 0.9, 0.2)
    assert timed.warm == probe.WARM_STEPS
    assert timed.step == pytest.approx(0.2)


def test_it_ends_after_a_while(monkeypatch):
    steps = [0.5] * (probe.WARM_STEPS + int(probe.SECONDS / 0.5))
    clock(monkeypatch, *steps)
    with pytest.raises(probe._Enough):
        clock(monkeypatch, *steps, 0.5)


def test_of_a_slow_model_two_steps_are_enough_and_the_second_counts(monkeypatch):
    with pytest.raises(probe._Enough):
        clock(monkeypatch, 50.0, 40.0)
    assert clock(monkeypatch, 50.0).warm is None


@pytest.mark.parametrize(("head", "frozen"), [("linear", True), ("low_mid_high", False)])
def test_it_trains_and_embeds_with_the_real_code(tiny, monkeypatch, head, frozen):
    monkeypatch.setattr(probe, "SECONDS", 0.02)
    tiny["backbones"]["tiny"] |= {"head": head, "dim": 48, "image_size": 80}
    tiny["recipe"] |= {"optimizer": "sgd", "freeze_bn": frozen}
    run = study.check(tiny, "tiny").runs["letters/tiny/proxy_anchor/seed0"]
    spec = json.loads(Speeds(Device("it", 0)).model(run))
    answer = probe.probe(spec, time.time() - 1)
    assert answer.keys() == {"train", "embed", "start", "parameters"}
    assert min(answer.values()) > 0
    assert answer["start"] > 1
