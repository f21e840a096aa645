"""Probes run only when they are asked for, once for each device and its settings."""

import json
import time

import pytest

from dmlbench.planning import throughput
from dmlbench.planning.throughput import (
    SCORING,
    TRAINING,
    Device,
    Probe,
    ScoringSpeed,
    Throughput,
    find_device,
    measure_throughput,
)
from dmlbench.study.study import check_study
from dmlbench.utils import discovery
from dmlbench.utils.errors import BrokenInstallation
from dmlbench.utils.gpus import Gpu, Gpus

PATH = "letters/tiny/proxy_anchor/seed0"
CPU, GPUS = Device("cpu (this one)", 0), Device("NVIDIA H200", 2)
MODES = {"GPU-a": "Prohibited", "GPU-b": "Default", "GPU-c": "Exclusive_Process"}
TRAINING_ANSWER = {"train": 10.0, "embed": 30.0, "start": 4.0, "parameters": 7, "features": 8}
SCORING_ANSWER = {"start": 1.0, "score": 1.0, "validate": 0.5, "images": 2000}


@pytest.fixture(autouse=True)
def _no_gpu(monkeypatch):
    monkeypatch.setattr(throughput, "find_device", lambda: CPU)


def test_the_device_of_a_machine_is_its_gpus_or_else_its_cpu(monkeypatch):
    gpus = tuple(Gpu(uuid, "NVIDIA H200", mode) for uuid, mode in MODES.items())
    monkeypatch.setattr(throughput, "find_gpus", lambda: Gpus(gpus, gpus))
    assert find_device() == Device("NVIDIA H200", 2)
    monkeypatch.setattr(throughput, "find_gpus", lambda: Gpus(gpus, ()))
    device = find_device()
    assert (device.name.startswith("cpu ("), device.gpus) == (True, 0)


@pytest.fixture
def run(tiny):
    return check_study(tiny, "tiny").runs[PATH]


@pytest.fixture
def remember_in(tmp_path, monkeypatch, run):
    """Remember answers in a new folder, now that `run` was checked with those of other tests."""
    monkeypatch.setenv("DMLBENCH_CACHE", str(tmp_path))


@pytest.fixture
def measured(monkeypatch):
    """The modules of the probes that were measured. Their answers are invented."""
    modules = []

    def measure(probe):
        modules.append(probe.module)
        return TRAINING_ANSWER if probe.module == TRAINING else SCORING_ANSWER

    monkeypatch.setattr(Probe, "measure", measure)
    return modules


@pytest.fixture
def answer_with(monkeypatch, tmp_path):
    """Let every probe run this code in its process."""

    def replace(code):
        (tmp_path / "stand_in.py").write_text(code)
        monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
        ask = discovery.ask
        monkeypatch.setattr(
            discovery,
            "ask",
            lambda name, facts, module, *arguments: ask(name, facts, "stand_in", *arguments),
        )

    return replace


@pytest.mark.usefixtures("remember_in")
def test_an_answer_is_remembered_for_its_device_and_settings(tiny, run, answer_with):
    answer_with(f"print({json.dumps(TRAINING_ANSWER)!r})")
    speeds = Throughput(CPU)
    assert speeds.model_speed(run) is None
    speeds.training_probe(run).measure()
    assert speeds.model_speed(run) is None  # this object has looked it up already
    assert Throughput(CPU).model_speed(run) == (10.0, 30.0, 4.0, 7, 8)
    assert Throughput(Device("another", 0)).model_speed(run) is None
    tiny["backbones"]["tiny"]["image_size"] = 64
    other = check_study(tiny, "tiny").runs[PATH]
    assert Throughput(CPU).model_speed(other) is None


def test_each_model_and_each_kind_of_scoring_is_measured_once(tiny, measured, capsys):
    tiny["datasets"]["others"] = {"type": "omniglot"}
    tiny["plan"] |= {"datasets": ["letters", "others"], "seeds": [0, 1]}
    tiny["backbones"]["wide"] = tiny["backbones"]["tiny"] | {"dim": 32}
    tiny["plan"]["backbones"] = ["tiny", "wide"]
    measure_throughput(check_study(tiny, "tiny").runs.values())
    assert sorted(measured) == [SCORING, SCORING, TRAINING, TRAINING]
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 4
    assert lines[-1] == (
        "probe 4 of 4, test_resnet at 32: trains on 10 images/s, embeds 30 images/s"
    )


@pytest.mark.usefixtures("measured")
def test_on_a_machine_with_gpus_scoring_is_measured_on_a_cpu_and_on_a_gpu(
    tiny, monkeypatch, capsys
):
    monkeypatch.setattr(throughput, "find_device", lambda: GPUS)
    measure_throughput(check_study(tiny, "tiny").runs.values())
    lines = [line.partition(", ")[2] for line in capsys.readouterr().err.splitlines()]
    assert [line.partition(":")[0] for line in lines] == [
        "scoring 16-d",
        "scoring 16-d on a GPU",
        "test_resnet at 32",
    ]


@pytest.mark.parametrize(
    ("device", "images", "on_gpu"),
    [(GPUS, 19_999, False), (GPUS, 20_000, True), (CPU, 10**6, False)],
)
def test_many_images_are_scored_at_the_speed_of_the_gpu(run, monkeypatch, device, images, on_gpu):
    asked = []
    monkeypatch.setattr(discovery, "remembered", lambda _, facts: asked.append(facts))
    Throughput(device).scoring_time(run, images)
    ((name, *_, spec),) = asked
    assert json.loads(spec)["gpu"] == on_gpu == (name == GPUS.name)


@pytest.mark.usefixtures("remember_in")
def test_a_probe_that_fails_is_named_with_its_last_line(run, answer_with):
    answer_with("raise MemoryError('no room')")
    with pytest.raises(BrokenInstallation) as caught:
        measure_throughput([run])
    assert str(caught.value) == "test_resnet at 32 was not measured: MemoryError: no room"


def test_the_time_of_scoring_grows_with_the_square_of_the_images():
    speed = ScoringSpeed(start=2.0, score=1.0, validate=0.5, images=2000)
    assert speed.scoring(6000) == 2 + 9
    assert speed.validation(6000) == 9 / 2


@pytest.mark.usefixtures("remember_in")
def test_the_probe_of_scoring_runs_in_a_process_of_its_own(run):
    began = time.time()
    answer = Throughput(CPU).scoring_probe(run, on_gpu=False).measure()
    took = time.time() - began
    assert 0 < answer["start"] < took
    assert 0 < answer["score"] < took
    assert Throughput(CPU).scoring_time(run, 2000) == answer["start"] + answer["score"]
    assert Throughput(CPU).validation_time(run, 2000) == answer["validate"]
