"""What `dmlbench plan` says about time, space, and a budget."""

import json

import pytest
import yaml

from dmlbench.cli.main import main
from dmlbench.planning import report, throughput
from dmlbench.planning.throughput import Device, ModelSpeed, Throughput

HOUR = 3600.0


class OnePerSecond(Throughput):
    """A device that trains and embeds one image per second, and scores in an hour."""

    def model_speed(self, run):
        return ModelSpeed(train=1.0, embed=1.0, start=0.0, parameters=10**6)

    def scoring_time(self, run, images):
        return HOUR


@pytest.fixture
def plan(tiny, tmp_path, monkeypatch, capsys):
    """Call `dmlbench plan` on the tiny study with the images of omniglot: exit code, outputs."""
    monkeypatch.setattr(report, "usable_cores", lambda: 4)
    tiny["datasets"] = {"letters": {"type": "omniglot"}}

    def call(*options, gpus=0, speeds=OnePerSecond):
        device = Device("a machine", gpus)
        monkeypatch.setattr(report, "read_throughput", lambda _: speeds(device))
        (tmp_path / "my.json").write_text(json.dumps(tiny))
        with pytest.raises(SystemExit) as ended:
            main(["plan", "my.json", *options])
        output = capsys.readouterr()
        return ended.value.code, output.out, output.err

    return call


def test_the_cost_comes_with_the_summary(plan, tiny):
    code, out, err = plan()
    assert code == 0
    assert len(out.splitlines()) == 3
    # two trainings of 401 steps of 48 and a test of 13,180 images, and three scorings
    hours = (2 * (401 * 48 + 13180)) / HOUR + 3
    assert err.splitlines()[1:] == [
        f"cost: 3 runs, {hours:.1f} CPU-hours on a machine; with 4 cores about 10 h 00 min, once "
        "images and weights are there",
        "disk: 44.32 MB of packed images, 2.53 MB of embeddings, "
        "96 MB of checkpoints while it runs",  # two per core
    ]


@pytest.mark.parametrize(
    ("options", "end"), [((), "2 GPUs about 36 h 02 min"), (("--gpus", "1"), "1 GPU about 3 d 0 h")]
)
def test_on_gpus_only_trainings_cost_and_more_gpus_end_sooner(plan, tiny, options, end):
    tiny["plan"]["seeds"] = [0, 1, 2, 3]
    hours = 8 * (401 * 48 + 13180) / HOUR
    _, _, err = plan(*options, gpus=2)
    assert f"cost: 9 runs, {hours:.1f} GPU-hours on a machine; with {end}" in err


def test_runs_that_share_a_gpu_cost_as_if_they_did_not(plan, tiny):
    tiny["runs_per_gpu"] = 3
    _, _, err = plan(gpus=2)
    lines = err.splitlines()
    assert lines[2] == (
        "cost: this assumes that each run has a GPU of its own. How much time runs_per_gpu: 3 "
        "saves is not known."
    )
    assert "144 MB of checkpoints while it runs" in lines[3]  # six at once
    _, _, err = plan()
    assert "runs_per_gpu" not in err


def test_the_speed_of_gpus_is_not_known_on_a_machine_without(plan):
    code, out, _ = plan("--gpus", "2")
    assert code == (
        "dmlbench: --gpus 2: this machine has no GPU, so the speed of one is not known."
    )
    assert out == ""


@pytest.mark.parametrize("text", ["0", "-1", "two"])
def test_a_number_of_gpus_is_above_0(plan, text):
    code, _, err = plan(f"--gpus={text}")
    assert code == 2
    assert f"argument --gpus: '{text}' is not a whole number from 1 to 100,000" in err


def test_a_sufficient_budget_leaves_everything_in(plan):
    _, _, err = plan("--budget", "2d")
    assert err.splitlines()[-1] == "budget: 48.0 CPU-hours are enough"


def test_a_small_budget_gives_lines_for_the_study_that_fit_it(plan, tiny):
    tiny["plan"] |= {"seeds": [0, 1, 2, 3, 4], "losses": ["proxy_anchor", "rll", "triplet"]}
    _, _, err = plan("--budget", "100h", gpus=1)
    lines = err.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("budget"))
    assert lines[start] == (
        "budget: 100.0 GPU-hours. This plan fits: 10 of 16 runs, 81.1 GPU-hours."
    )
    assert lines[start + 2] == "  seeds: [0, 1, 2]  # saves 2 d 6 h"
    tiny["plan"] |= yaml.safe_load("\n".join(lines[start + 1 :]))["plan"]
    _, _, err = plan("--budget", "100h", gpus=1)
    assert err.endswith("are enough\n")


def test_too_small_a_budget_gives_the_smallest_plan_and_warns_of_few_seeds(plan, tiny):
    tiny["plan"]["seeds"] = [0, 1, 2]
    _, _, err = plan("--budget", "1m", gpus=1)
    assert (
        "budget: 0.017 GPU-hours. No plan fits, and this is the smallest one: 3 of 7 runs, "
        "18.0 GPU-hours.\n" in err
    )
    assert "  seeds: [0]  # saves" in err
    assert err.endswith("Intervals over fewer than 3 seeds say little.\n")


def test_a_budget_without_a_unit_is_refused(plan):
    code, _, err = plan("--budget", "40")
    assert code == 2
    assert "argument --budget: '40' is not a time. Give a number above 0 with its unit" in err


def test_an_unknown_cost_names_the_option_that_measures_it(plan, monkeypatch):
    monkeypatch.setattr("dmlbench.utils.discovery.remembered", lambda *_: None)
    code, _, err = plan(speeds=Throughput)
    assert code == 0
    assert "cost: not known for 3 runs. `dmlbench plan STUDY --probe` measures once" in err
    assert "disk: 44.32 MB of packed images" in err
    code, out, _ = plan("--budget", "40h", speeds=Throughput)
    assert code.startswith("dmlbench: --budget needs the cost of all runs.\ndisk: ")
    assert out == ""


def test_data_sets_whose_images_are_not_counted_are_named(plan, monkeypatch):
    monkeypatch.setattr("dmlbench.planning.cost.count_used_images", lambda *_: None)
    _, _, err = plan()
    assert "cost: not known for the runs on letters. `snakemake data` packs and counts" in err


def test_a_probe_runs_only_if_it_is_asked_for(plan, monkeypatch):
    measured = []
    monkeypatch.setattr(throughput, "measure_throughput", lambda runs: measured.extend(runs))
    plan()
    assert measured == []
    plan("--probe")
    assert len(measured) == 3


def test_the_reasons_and_a_budget_are_not_shown_together(plan):
    code, _, _ = plan("--diff", "--budget", "40h")
    assert "--diff" in code
    assert "cannot be combined" in code
