"""What `dmlbench plan` says of time and space, and of a budget."""

import json

import pytest
import yaml

from dmlbench import speeds
from dmlbench.cli import main
from dmlbench.speeds import Device, Speed, Speeds

HOUR = 3600.0


class Known(Speeds):
    """A device that trains and embeds one image a second, and scores in an hour."""

    def of_model(self, run):
        return Speed(1.0, 1.0, 0.0, 10**6)

    def scoring(self, run, images):
        return HOUR


@pytest.fixture
def plan(tiny, tmp_path, monkeypatch, capsys):
    """Call `dmlbench plan` on the tiny study, with omniglot's images."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("dmlbench.price.usable_cores", lambda: 4)
    tiny["datasets"] = {"letters": {"type": "omniglot"}}

    def call(*options, gpus=0, kind=Known):
        monkeypatch.setattr("dmlbench.price.read", lambda _: kind(Device("a machine", gpus)))
        (tmp_path / "my.json").write_text(json.dumps(tiny))
        with pytest.raises(SystemExit) as ended:
            main(["plan", "my.json", *options])
        said = capsys.readouterr()
        return ended.value.code, said.out, said.err

    return call


def test_the_cost_stands_below_the_runs(plan, tiny):
    code, out, err = plan()
    assert code == 0
    assert len(out.splitlines()) == 3
    # two trainings of 401 steps of 48 and a test of 13,180 images, and three scorings
    hours = (2 * (401 * 48 + 13180)) / HOUR + 3
    assert err.splitlines()[1:] == [
        f"cost: 3 runs, {hours:.1f} CPU-hours on a machine; with 4 cores about 10 h 00 min, once "
        "images and weights are there",
        "disk: 44.3 MB of packed images, 2.5 MB of embeddings, "
        "48.0 MB of checkpoints while it runs",  # one a core
    ]


def test_on_gpus_trainings_alone_cost_and_more_gpus_end_sooner(plan, tiny):
    tiny["plan"]["seeds"] = [0, 1, 2, 3]
    hours = 8 * (401 * 48 + 13180) / HOUR
    for options, with_ in (
        ((), "2 GPUs about 36 h 02 min"),
        (("--gpus", "1"), "1 GPU about 3 d 0 h"),
    ):
        _, _, err = plan(*options, gpus=2)
        assert f"cost: 9 runs, {hours:.1f} GPU-hours on a machine; with {with_}" in err


def test_runs_that_share_a_gpu_cost_as_if_they_had_it_alone_and_that_is_said(plan, tiny):
    tiny["runs_per_gpu"] = 3
    _, _, err = plan(gpus=2)
    lines = err.splitlines()
    assert (
        lines[2]
        == "cost: as if each run had its GPU alone; what runs_per_gpu: 3 saves is not known"
    )
    assert "72.0 MB of checkpoints while it runs" in lines[3]  # six at once
    _, _, err = plan()
    assert "runs_per_gpu" not in err


def test_gpus_that_are_not_there_have_no_speed(plan):
    code, out, _ = plan("--gpus", "2")
    assert code == "dmlbench: --gpus 2: there is no GPU here, and its speed is not known."
    assert out == ""


@pytest.mark.parametrize("text", ["0", "-1", "two"])
def test_a_number_of_gpus_is_above_0(plan, text):
    code, _, err = plan(f"--gpus={text}")
    assert code == 2
    assert f"argument --gpus: '{text}' is no number above 0" in err


def test_a_budget_that_is_enough_leaves_all(plan):
    _, _, err = plan("--budget", "2d")
    assert err.splitlines()[-1] == "budget: 48.0 CPU-hours, which is enough"


def test_a_budget_that_is_not_gives_lines_for_the_study(plan, tiny):
    tiny["plan"] |= {"seeds": [0, 1, 2, 3, 4], "losses": ["proxy_anchor", "rll", "triplet"]}
    _, _, err = plan("--budget", "100h", gpus=1)
    lines = err.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("budget"))
    assert lines[start] == "budget: 100.0 GPU-hours; what fits is 10 of 16 runs, 81.1 GPU-hours:"
    assert lines[start + 2] == "  seeds: [0, 1, 2]  # saves 2 d 6 h"
    tiny["plan"] |= yaml.safe_load("\n".join(lines[start + 1 :]))["plan"]
    _, _, err = plan("--budget", "100h", gpus=1)
    assert err.endswith("which is enough\n")


def test_too_small_a_budget_says_so_and_that_few_seeds_say_little(plan, tiny):
    tiny["plan"]["seeds"] = [0, 1, 2]
    _, _, err = plan("--budget", "1m", gpus=1)
    assert (
        "budget: 0.017 GPU-hours; nothing fits, and the least is 3 of 7 runs, 18.0 GPU-hours:"
        in err
    )
    assert "  seeds: [0]  # saves" in err
    assert err.endswith("Intervals over fewer than 3 seeds say little.\n")


def test_a_budget_that_is_no_time_is_refused(plan):
    code, _, err = plan("--budget", "40")
    assert code == 2
    assert "argument --budget: '40' is no time, which is a number above 0 and its unit" in err


def test_without_a_probe_it_says_how_to_get_one(plan, monkeypatch):
    monkeypatch.setattr("dmlbench.installed.remembered", lambda *_: None)
    code, _, err = plan(kind=Speeds)
    assert code == 0
    assert "cost: of 3 runs not known. `dmlbench plan STUDY --probe` measures" in err
    assert "disk: 44.3 MB of packed images" in err
    code, out, _ = plan("--budget", "40h", kind=Speeds)
    assert code.startswith("dmlbench: --budget needs to know what all runs cost.\ndisk: ")
    assert out == ""


def test_images_that_are_not_counted_are_named(plan, monkeypatch):
    monkeypatch.setattr("dmlbench.cost.images", lambda *_: None)
    _, _, err = plan()
    assert "cost: of the runs on letters not known. `snakemake data` packs and counts" in err


def test_a_probe_is_made_where_it_is_asked_for(plan, monkeypatch):
    measured = []
    monkeypatch.setattr(speeds, "measure", lambda runs: measured.extend(runs))
    plan()
    assert measured == []
    plan("--probe")
    assert len(measured) == 3


def test_the_reasons_of_jobs_go_without_a_budget(plan):
    code, _, _ = plan("--diff", "--budget", "40h")
    assert "--diff" in code
    assert "takes no other option" in code
