"""The probe times the real training, without its first steps."""

import json
import time

import pytest
import torch

from dmlbench.planning import probe_training
from dmlbench.planning.throughput import Device, Throughput
from dmlbench.study.study import check_study


@pytest.fixture
def time_steps(monkeypatch):
    """The timer after steps of so many seconds, and its last answer."""

    def run(*steps):
        timer, now = probe_training.StepTimer(torch.device("cpu")), [0.0]
        monkeypatch.setattr(time, "monotonic", lambda: now[0])
        answers = [timer()]
        for seconds in steps:
            now[0] += seconds
            answers.append(timer())
        assert not any(answers[:-1])
        return timer, answers[-1]

    return run


def test_neither_the_first_steps_count_nor_one_that_saves_a_checkpoint(time_steps):
    timer, _ = time_steps(2.0, 0.9, 0.3, 0.2, 0.2, 0.9, 0.2)
    assert timer.warmup_steps == probe_training.MAX_WARMUP_STEPS
    assert timer.step_seconds == pytest.approx(0.2)


def test_it_stops_when_it_has_measured_for_long_enough(time_steps):
    steps = [0.5] * (probe_training.MAX_WARMUP_STEPS + int(probe_training.SECONDS / 0.5))
    assert time_steps(*steps)[1] is None
    assert time_steps(*steps, 0.5)[1] == "measured"


def test_the_second_step_of_a_slow_model_is_enough(time_steps):
    timer, answer = time_steps(50.0)
    assert (timer.warmup_steps, answer) == (None, None)
    timer, answer = time_steps(50.0, 40.0)
    assert (timer.step_seconds, answer) == (40.0, "measured")


@pytest.mark.parametrize(("head", "frozen"), [("linear", True), ("low_mid_high", False)])
def test_it_trains_and_embeds_with_the_real_code(tiny, monkeypatch, head, frozen):
    monkeypatch.setattr(probe_training, "SECONDS", 0.02)
    tiny["backbones"]["tiny"] |= {"head": head, "dim": 48, "image_size": 80}
    tiny["recipe"] |= {"optimizer": "sgd", "freeze_bn": frozen}
    run = check_study(tiny, "tiny").runs["letters/tiny/proxy_anchor/seed0"]
    spec = json.loads(Throughput(Device("a machine", 0)).training_spec(run))
    answer = probe_training.probe(spec, time.time() - 1)
    assert answer.keys() == {"train", "embed", "start", "parameters", "features"}
    assert answer["features"] == 96
    assert min(answer.values()) > 0
    assert answer["start"] > 1
