"""Speeds are those of this device and of these settings, from finished runs and unfinished ones."""

import json

import pytest

from dmlbench.planning import measured_speed
from dmlbench.planning.measured_speed import read_throughput
from dmlbench.planning.throughput import Device, embeds_between_epochs
from dmlbench.study.study import check_study
from dmlbench.utils import discovery

PATH, OTHER = "letters/tiny/proxy_anchor/seed0", "letters/tiny/normalized_softmax/seed0"
CPU = Device("cpu (this one)", 0)


@pytest.fixture(autouse=True)
def _no_probes(monkeypatch):
    """This machine has no GPU, and nobody has measured it."""
    monkeypatch.setattr(measured_speed, "find_device", lambda: CPU)
    monkeypatch.setattr(discovery, "remembered", lambda *_: None)


@pytest.fixture
def study(tiny):
    return check_study(tiny, "tiny")


@pytest.fixture
def finish_run(write_results, edit_result):
    """Write the result of a run that took so many seconds at so many images per second."""

    def write(study, path, rate=1000.0, train=60.0, wall=70.0, device=CPU.name, **provenance):
        write_results(study, path)
        files = study.files.run(path)
        measured = {
            "device": device,
            "images_per_second": rate,
            "train_seconds": train,
            "wall_seconds": wall,
        }
        edit_result(files.run, provenance=measured | provenance)
        files.evaluate_benchmark.write_text("s\th:m:s\n3.5\t0:00:03\n")

    return write


def test_a_finished_run_tells_its_own_speed_and_that_of_its_model(study, finish_run):
    finish_run(study, PATH)
    speeds = read_throughput(study)
    assert speeds.training_rate(study.runs[PATH]) == 1000
    assert speeds.overhead(study.runs[PATH]) == 10
    assert speeds.scoring_time(study.runs[PATH], 10**6) == 3.5
    other = study.runs[OTHER]
    assert speeds.training_rate(other) is None
    assert speeds.model_speed(other).train == 1000


def test_a_run_of_whole_batches_tells_nothing_about_chunks(tiny, study, finish_run):
    finish_run(study, PATH)
    tiny["recipe"]["chunk"] = 12
    chunked = check_study(tiny, "tiny").runs[PATH]
    assert read_throughput(study).training_rate(chunked) is None
    assert read_throughput(study).training_rate(study.runs[PATH]) == 1000


def test_a_run_that_shared_its_gpu_tells_no_speed(study, finish_run):
    finish_run(study, PATH, runs_per_gpu=2)
    assert read_throughput(study).training_rate(study.runs[PATH]) is None
    finish_run(study, PATH, runs_per_gpu=1)
    assert read_throughput(study).training_rate(study.runs[PATH]) == 1000


def test_other_epochs_and_learning_rates_do_not_change_the_speed(study, tiny, finish_run):
    finish_run(study, PATH)
    tiny["recipe"] |= {"epochs": 50, "lr": 0.1}
    again = check_study(tiny, "tiny")
    assert read_throughput(again).training_rate(again.runs[PATH]) == 1000


@pytest.mark.parametrize(
    ("section", "setting"), [("recipe", {"batch_size": 80}), ("backbones", {"dim": 32})]
)
def test_another_batch_size_or_model_has_another_speed(study, tiny, finish_run, section, setting):
    finish_run(study, PATH)
    entry = tiny["recipe"] if section == "recipe" else tiny["backbones"]["tiny"]
    entry |= setting
    other = check_study(tiny, "tiny")
    speeds = read_throughput(other)
    assert speeds.training_rate(other.runs[PATH]) is None
    assert speeds.model_speed(other.runs[PATH]) is None


def test_runs_on_another_device_or_without_success_tell_nothing(study, finish_run, write_results):
    finish_run(study, PATH, device="NVIDIA H200")
    write_results(study, OTHER, status="diverged")
    assert not read_throughput(study).training_rates
    finish_run(study, PATH, rate=None)
    assert not read_throughput(study).training_rates


def test_a_result_of_a_loss_that_no_longer_exists_tells_nothing(study, finish_run):
    finish_run(study, PATH)
    file = study.files.run(PATH).run
    file.write_text(file.read_text().replace('"type": "proxy_anchor"', '"type": "mine.Gone"'))
    assert not read_throughput(study).training_rates


def test_a_run_of_several_attempts_has_no_overhead(study, finish_run):
    finish_run(study, PATH, wall=30.0)
    speeds = read_throughput(study)
    assert speeds.training_rate(study.runs[PATH]) == 1000
    assert speeds.overhead(study.runs[PATH]) is None


@pytest.mark.parametrize(
    ("table", "overhead"), [("s\th:m:s\n72.5\t0:01:12\n", 12.5), ("torn", 10), ("s\nNA\n", 10)]
)
def test_the_overhead_includes_the_start_of_the_process_if_snakemake_measured_it(
    study, finish_run, table, overhead
):
    finish_run(study, PATH)
    study.files.run(PATH).train_benchmark.write_text(table)
    assert read_throughput(study).overhead(study.runs[PATH]) == overhead


def test_other_images_have_another_overhead_and_another_time_of_scoring(study, tiny, finish_run):
    finish_run(study, PATH)
    tiny["datasets"]["letters"]["class_fraction"] = 0.5
    again = check_study(tiny, "tiny")
    speeds = read_throughput(again)
    assert speeds.training_rate(again.runs[PATH]) == 1000
    assert speeds.overhead(again.runs[PATH]) is None
    assert speeds.scoring_time(again.runs[PATH], 100) is None


def test_a_test_on_other_data_tells_no_overhead(study, tiny, finish_run):
    tiny["datasets"]["part"] = {"type": "glyphs", "class_fraction": 0.2}
    tiny["datasets"]["letters"]["test_on"] = "part"
    other = check_study(tiny, "tiny")
    finish_run(other, PATH)
    speeds = read_throughput(other)
    assert speeds.training_rate(other.runs[PATH]) == 1000
    assert (speeds.overhead(other.runs[PATH]), dict(speeds.scoring_times)) == (None, {})


def test_the_median_of_the_first_seeds_is_taken(tiny, finish_run):
    tiny["plan"]["seeds"] = [*range(6)]
    study = check_study(tiny, "tiny")
    for seed, rate in enumerate([900.0, 1000.0, 100.0, 1.0, 1.0, 1.0]):
        finish_run(study, f"letters/tiny/proxy_anchor/seed{seed}", rate=rate)
    assert read_throughput(study).training_rate(study.runs[PATH]) == 900


def test_the_same_data_set_counts_more_than_others(tiny, finish_run):
    tiny["datasets"]["others"] = {"type": "glyphs", "class_fraction": 0.2}
    tiny["plan"]["datasets"] = ["letters", "others"]
    study = check_study(tiny, "tiny")
    finish_run(study, PATH)
    other = "others/tiny/proxy_anchor/seed0"
    assert read_throughput(study).training_rate(study.runs[other]) == 1000
    finish_run(study, other, rate=500.0)
    speeds = read_throughput(study)
    assert [speeds.training_rate(study.runs[path]) for path in (PATH, other)] == [1000, 500]


def test_an_unfinished_training_tells_its_progress_and_on_this_machine_its_speed(
    study, write_attempt
):
    write_attempt(study, PATH, step=30, steps=40, steps_per_second=10.0)
    write_attempt(study, OTHER, step=10, steps=40, steps_per_second=99.0, host="other")
    speeds = read_throughput(study)
    assert speeds.training_rate(study.runs[PATH]) == 480
    assert speeds.training_rate(study.runs[OTHER]) is None
    assert speeds.progress == {PATH: 0.75, OTHER: 0.25}


@pytest.mark.parametrize(("runs_per_gpu", "rate"), [(1, 480), (2, None)])
def test_an_unfinished_training_that_shares_its_gpu_only_tells_its_progress(
    tiny, write_attempt, monkeypatch, runs_per_gpu, rate
):
    monkeypatch.setattr(measured_speed, "find_device", lambda: Device("NVIDIA H200", 1))
    study = check_study(tiny | {"runs_per_gpu": runs_per_gpu}, "tiny")
    write_attempt(study, PATH, step=30, steps=40, steps_per_second=10.0, device="cuda")
    speeds = read_throughput(study)
    assert speeds.training_rate(study.runs[PATH]) == rate
    assert speeds.progress == {PATH: 0.75}


def test_a_training_before_its_first_step_tells_nothing(study, write_attempt):
    write_attempt(study, PATH)
    speeds = read_throughput(study)
    assert (speeds.progress, dict(speeds.training_rates)) == ({}, {})


@pytest.mark.parametrize(
    ("loss", "embeds"),
    [("htl", True), ("hpl", False), ("proxy_anchor", False), ("pml.CircleLoss", False)],
)
def test_the_code_of_a_loss_says_whether_it_embeds_the_training_set(loss, embeds):
    assert embeds_between_epochs(loss) == embeds


def test_a_loss_that_embeds_between_epochs_tells_nothing_about_others(tiny, finish_run):
    tiny["recipe"]["batch_size"] = 80
    tiny["plan"]["losses"] = ["htl", "rll"]
    study = check_study(tiny, "tiny")
    finish_run(study, "letters/tiny/htl/seed0")
    speeds = read_throughput(study)
    assert speeds.training_rate(study.runs["letters/tiny/htl/seed0"]) == 1000
    assert speeds.model_speed(study.runs["letters/tiny/rll/seed0"]) is None


def test_a_measured_rate_replaces_that_of_the_probe_and_nothing_else(
    study, finish_run, monkeypatch
):
    answer = {"train": 10.0, "embed": 30.0, "start": 4.0, "parameters": 7, "features": 8}
    monkeypatch.setattr(discovery, "remembered", lambda *_: answer)
    finish_run(study, PATH)
    assert read_throughput(study).model_speed(study.runs[OTHER]) == (1000.0, 30.0, 4.0, 7, 8)


def test_the_keys_of_a_result_are_those_of_the_run_that_wrote_it(study, finish_run):
    """A result file and a planned run of the same settings have the same spec."""
    finish_run(study, PATH)
    speeds = read_throughput(study)
    settings = json.loads(study.files.run(PATH).run.read_text())["settings"]
    channels = settings["dataset"]["facts"]["channels"]
    spec = speeds.create_spec(settings["backbone"], settings["recipe"], channels)
    assert spec == speeds.training_spec(study.runs[PATH])
