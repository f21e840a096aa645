"""A failure is a result; a wrong study is refused before any job; two calls do not meet."""

import os
import signal

import pytest

DIVERGING = {"bad": {"type": "proxy_anchor", "proxies_lr_factor": 1e6}}


def test_a_run_that_diverges_leaves_a_hole_and_only_it_is_tried_again(project, tiny):
    tiny["losses"] = DIVERGING
    tiny["recipe"]["weight_decay"] = 1  # times a rate of 3000: proxies grow without end
    tiny["plan"]["losses"] = ["normalized_softmax", "bad"]
    project.write(tiny)
    output = project.run(expect=1)
    assert "letters/tiny/bad/seed0: diverged: " in output
    table = (project.folder / "results/tiny/leaderboard/leaderboard.md").read_text()
    assert "diverged" in table
    assert project.metrics().keys() == {
        f"results/tiny/runs/letters/tiny/{loss}/seed0/metrics.json"
        for loss in ("normalized_softmax", "control_random")
    }
    again = {"train": 1, "evaluate": 1, "build_leaderboard": 1, "verdict": 1}
    assert "  failed: diverged (the loss is nan " in project.diff(again)

    tiny["losses"]["bad"]["proxies_lr_factor"] = 1
    project.write(tiny)
    assert "  no result yet: 1 run (letters x tiny x bad x seed 0)" in project.diff(again)
    project.run()
    assert project.diff({})
    assert not list((project.folder / "results").rglob("failed.json"))
    table = (project.folder / "results/tiny/leaderboard/leaderboard.md").read_text()
    assert "diverged" not in table


def test_a_wrong_study_is_refused_before_any_job(project, tiny):
    tiny["recipe"]["batchsize"] = 3
    project.write(tiny)
    output = project.run(expect=1)
    assert "study.yaml: the study cannot be run:" in output
    assert "recipe.batchsize: unknown key. Did you mean 'batch_size'?" in output
    assert "Traceback" not in output
    assert not (project.folder / "results").exists()


def test_a_second_call_on_a_study_is_refused_while_the_first_works(project, tiny):
    tiny["recipe"]["epochs"] = 400
    tiny["plan"]["losses"] = ["normalized_softmax"]
    project.write(tiny)
    first = project.start()
    project.wait_for_step("normalized_softmax", 1)
    output = project.run(expect=1)
    assert f"process {first.pid} on " in output
    assert "wait for it, or stop it" in output
    os.killpg(first.pid, signal.SIGKILL)
    first.communicate()


@pytest.mark.slow
def test_ctrl_c_saves_and_the_next_call_continues(project, tiny):
    tiny["recipe"]["epochs"] = 60
    tiny["plan"] |= {"losses": ["normalized_softmax"], "controls": []}
    project.write(tiny)
    first = project.start()
    project.wait_for_step("normalized_softmax", 20)
    os.killpg(first.pid, signal.SIGINT)
    first.communicate(timeout=60)
    assert first.returncode != 0
    state = project.folder / "results/tiny/state/letters/tiny/normalized_softmax/seed0"
    assert (state / "checkpoint.pt").is_file()
    pending = {"train": 1, "evaluate": 1, "build_leaderboard": 1, "verdict": 1}
    assert "  interrupted (at step " in project.diff(pending)
    project.run()
    log = project.folder / "results/tiny/runs/letters/tiny/normalized_softmax/seed0/log.txt"
    assert "resumed at step" in log.read_text()
    assert not state.exists()
