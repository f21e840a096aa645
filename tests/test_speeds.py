"""Speeds are those of this device and of these settings, as runs had them or as a probe has."""

import json
import time

import pytest

from dmlbench import installed, speeds, study
from dmlbench.speeds import Device, Probe, Speeds, embeds_between_epochs, read, scoring_seconds

ONE, TWO = "letters/tiny/proxy_anchor/seed0", "letters/tiny/normalized_softmax/seed0"
CPU = Device("cpu (this one)", 0)


@pytest.fixture
def made(tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(speeds, "device", lambda: CPU)
    monkeypatch.setattr(installed, "remembered", lambda *_: None)
    return study.check(tiny, "tiny")


@pytest.fixture
def finish(write_results):
    """Finish a run in so many seconds at so many images a second."""

    def write(
        made, path, rate=1000.0, train=60.0, wall=70.0, device=CPU.name, scored="3.5", **more
    ):
        write_results(made, path)
        folder = made.folder / "runs" / path
        result = json.loads((folder / "run.json").read_text())
        result["provenance"] = {
            **{"device": device, "images_per_second": rate},
            **{"train_seconds": train, "wall_seconds": wall},
            **more,
        }
        (folder / "run.json").write_text(json.dumps(result))
        (folder / "evaluate.benchmark.tsv").write_text(f"s\th:m:s\n{scored}\t0:00:03\n")

    return write


def test_a_finished_run_tells_its_loss_s_speed_and_to_others_its_model_s(made, finish):
    finish(made, ONE)
    found = read(made)
    assert found.of_training(made.runs[ONE]) == 1000
    assert found.beside_training(made.runs[ONE]) == 10
    assert found.scoring(made.runs[ONE], 10**6) == 3.5
    other = made.runs[TWO]
    assert found.of_training(other) is None
    assert found.of_model(other).train == 1000


def test_a_run_that_shared_its_gpu_tells_no_speed(made, finish):
    finish(made, ONE, runs_per_gpu=2)
    assert read(made).of_training(made.runs[ONE]) is None
    finish(made, ONE, runs_per_gpu=1)
    assert read(made).of_training(made.runs[ONE]) == 1000


def test_another_batch_size_or_model_is_another_speed_and_another_rate_is_not(made, tiny, finish):
    finish(made, ONE)
    tiny["recipe"] |= {"epochs": 50, "lr": 0.1}
    again = study.check(tiny, "tiny")
    assert read(again).of_training(again.runs[ONE]) == 1000
    for place, change in (("recipe", {"batch_size": 80}), ("backbones", {"tiny": {"type": "vit"}})):
        changed = tiny | {place: tiny[place] | change}
        if place == "backbones":
            changed[place]["tiny"] = tiny[place]["tiny"] | {"dim": 32}
        other = study.check(changed, "tiny")
        assert read(other).of_training(other.runs[ONE]) is None
        assert read(other).of_model(other.runs[ONE]) is None


def test_runs_of_another_device_or_without_success_tell_nothing(made, finish, write_results):
    finish(made, ONE, device="NVIDIA H200")
    write_results(made, TWO, status="diverged")
    assert not read(made).trained
    finish(made, ONE, rate=None)
    assert not read(made).trained


def test_a_result_of_a_loss_that_is_no_more_tells_nothing(made, finish):
    finish(made, ONE)
    file = made.folder / "runs" / ONE / "run.json"
    file.write_text(file.read_text().replace('"type": "proxy_anchor"', '"type": "mine.Gone"'))
    assert not read(made).trained


def test_a_run_of_several_attempts_does_not_say_what_it_took_beside_training(made, finish):
    finish(made, ONE, wall=30.0)
    found = read(made)
    assert (found.of_training(made.runs[ONE]), found.beside_training(made.runs[ONE])) == (
        1000,
        None,
    )


def test_the_start_of_the_process_counts_where_snakemake_saw_it(made, finish):
    finish(made, ONE)
    table = made.folder / "runs" / ONE / "train.benchmark.tsv"
    for text, beside in {"s\th:m:s\n72.5\t0:01:12\n": 12.5, "torn": 10, "s\nNA\n": 10}.items():
        table.write_text(text)
        assert read(made).beside_training(made.runs[ONE]) == beside


def test_other_images_take_another_time_beside_training(made, tiny, finish):
    finish(made, ONE)
    tiny["datasets"]["letters"]["class_fraction"] = 0.5
    again = study.check(tiny, "tiny")
    found = read(again)
    assert found.of_training(again.runs[ONE]) == 1000
    assert found.beside_training(again.runs[ONE]) is None
    assert found.scoring(again.runs[ONE], 100) is None


def test_seeds_are_taken_in_the_middle_and_few_are_read(made, tiny, finish):
    tiny["plan"]["seeds"] = [*range(6)]
    many = study.check(tiny, "tiny")
    for seed, rate in enumerate([900.0, 1000.0, 100.0, 1.0, 1.0, 1.0]):
        finish(many, f"letters/tiny/proxy_anchor/seed{seed}", rate=rate)
    assert read(many).of_training(many.runs[ONE]) == 900


def test_the_same_data_set_tells_more_than_others(made, tiny, finish):
    tiny["datasets"]["others"] = {"type": "glyphs", "class_fraction": 0.2}
    tiny["plan"]["datasets"] = ["letters", "others"]
    both = study.check(tiny, "tiny")
    finish(both, ONE)
    other = "others/tiny/proxy_anchor/seed0"
    assert read(both).of_training(both.runs[other]) == 1000
    finish(both, other, rate=500.0)
    found = read(both)
    assert [found.of_training(both.runs[path]) for path in (ONE, other)] == [1000, 500]


def test_what_runs_now_tells_its_speed_here_and_how_far_it_is_anywhere(made, write_attempt):
    write_attempt(made, ONE, step=30, steps=40, steps_per_second=10.0)
    write_attempt(made, TWO, step=10, steps=40, steps_per_second=99.0, host="elsewhere")
    found = read(made)
    assert found.of_training(made.runs[ONE]) == 480
    assert found.of_training(made.runs[TWO]) is None
    assert found.done == {ONE: 0.75, TWO: 0.25}


def test_a_training_before_its_first_step_tells_nothing(made, write_attempt):
    write_attempt(made, ONE)
    assert (read(made).done, dict(read(made).trained)) == ({}, {})


@pytest.mark.parametrize(
    ("loss", "embeds"),
    [("htl", True), ("hpl", False), ("proxy_anchor", False), ("pml.CircleLoss", False)],
)
def test_the_code_of_a_loss_says_whether_it_embeds_the_training_set(loss, embeds):
    assert embeds_between_epochs(loss) == embeds


def test_a_loss_that_embeds_between_epochs_says_nothing_of_others(made, tiny, finish):
    tiny["recipe"]["batch_size"] = 80
    tiny["plan"]["losses"] = ["htl", "rll"]
    both = study.check(tiny, "tiny")
    finish(both, "letters/tiny/htl/seed0")
    found = read(both)
    assert found.of_training(both.runs["letters/tiny/htl/seed0"]) == 1000
    assert found.of_model(both.runs["letters/tiny/rll/seed0"]) is None


def test_a_probe_is_remembered_by_device_and_settings(tiny, tmp_path, monkeypatch):
    run = study.check(tiny, "tiny").runs[ONE]
    monkeypatch.setenv("DMLBENCH_CACHE", str(tmp_path))
    answer = {"train": 10.0, "embed": 30.0, "start": 4.0, "parameters": 7}
    monkeypatch.setattr(speeds, "_SCRIPT", f"print({json.dumps(json.dumps(answer))})")
    here = Speeds(CPU)
    assert here.of_model(run) is None
    here.training_probe(run).ask()
    assert here.of_model(run) is None  # this one asked already
    assert Speeds(CPU).of_model(run) == (10.0, 30.0, 4.0, 7)
    assert Speeds(Device("another", 0)).of_model(run) is None
    tiny["backbones"]["tiny"]["image_size"] = 64
    assert Speeds(CPU).of_model(study.check(tiny, "tiny").runs[ONE]) is None


def test_what_was_measured_beats_the_probe_but_for_what_no_run_tells(made, finish, monkeypatch):
    answer = {"train": 10.0, "embed": 30.0, "start": 4.0, "parameters": 7}
    monkeypatch.setattr(installed, "remembered", lambda *_: answer)
    finish(made, ONE)
    assert read(made).of_model(made.runs[TWO]) == (1000.0, 30.0, 4.0, 7)


def test_each_model_is_measured_once(tiny, monkeypatch, capsys):
    asked = []

    def ask(probe):
        asked.append(probe.module)
        return {**dict.fromkeys(["train", "embed", "start", "score"], 1), "images": 2000}

    monkeypatch.setattr(Probe, "ask", ask)
    tiny["datasets"]["others"] = {"type": "omniglot"}
    tiny["plan"] |= {"datasets": ["letters", "others"], "seeds": [0, 1]}
    tiny["backbones"]["wide"] = tiny["backbones"]["tiny"] | {"dim": 32}
    tiny["plan"]["backbones"] = ["tiny", "wide"]
    speeds.measure(study.check(tiny, "tiny").runs.values())
    assert sorted(asked) == ["dmlbench.evaluation.probe"] * 2 + ["dmlbench.probe"] * 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 4
    assert "probe 4 of 4" in said[-1]


def test_on_a_machine_with_gpus_scoring_is_measured_on_both(made, monkeypatch, capsys):
    answer = {**dict.fromkeys(["train", "embed", "start", "score"], 1), "images": 20_000}
    monkeypatch.setattr(speeds, "device", lambda: Device("NVIDIA H200", 2))
    monkeypatch.setattr(Probe, "ask", lambda _: answer)
    speeds.measure(made.runs.values())
    said = [line.partition(", ")[2] for line in capsys.readouterr().err.splitlines()]
    assert [line.partition(":")[0] for line in said] == [
        "scoring 16-d",
        "scoring 16-d on a GPU",
        "test_resnet at 32",
    ]


@pytest.mark.parametrize(
    ("gpus", "images", "expected"),
    [(2, 19_999, False), (2, 20_000, True), (0, 10**6, False)],
)
def test_many_images_are_scored_at_the_speed_of_the_gpu(made, gpus, images, expected, monkeypatch):
    asked = []
    monkeypatch.setattr(installed, "remembered", lambda _, facts: asked.append(facts))
    Speeds(Device("NVIDIA H200", gpus)).scoring(made.runs[ONE], images)
    ((device, *_, spec),) = asked
    assert json.loads(spec)["gpu"] == expected == (device == "NVIDIA H200")


def test_a_probe_that_fails_is_named_with_its_last_words(tiny, monkeypatch):
    monkeypatch.setattr(speeds, "_SCRIPT", "raise MemoryError('no room')")
    with pytest.raises(installed.BrokenInstallation) as caught:
        speeds.measure(study.check(tiny, "tiny").runs.values())
    assert str(caught.value) == "scoring 16-d was not measured: MemoryError: no room"


def test_scoring_takes_the_square_of_the_images():
    assert scoring_seconds(6000, start=2.0, score=1.0, images=2000) == 2 + 9


def test_the_probe_of_scoring_runs_in_a_process_of_its_own(tiny, tmp_path, monkeypatch):
    run = study.check(tiny, "tiny").runs[ONE]
    monkeypatch.setenv("DMLBENCH_CACHE", str(tmp_path))
    began = time.time()
    answer = Speeds(CPU).scoring_probe(run, False).ask()
    took = time.time() - began
    assert 0 < answer["start"] < took
    assert 0 < answer["score"] < took
    assert Speeds(CPU).scoring(run, 2000) == answer["start"] + answer["score"]
