"""Which device a job computes on, and when it refuses the CPU."""

import platform

import pytest

from dmlbench.utils.device import check_gpu_seen, use_chosen_device
from dmlbench.utils.errors import GpuNotSeen, WrongEnvironment


@pytest.mark.parametrize(
    "variables",
    [
        {"SLURM_JOB_GPUS": "3"},
        {"SLURM_STEP_GPUS": "0", "CUDA_VISIBLE_DEVICES": ""},
        {"CUDA_VISIBLE_DEVICES": "0"},
        {"CUDA_VISIBLE_DEVICES": "GPU-5c1"},
        {"CUDA_VISIBLE_DEVICES": "0", "DMLBENCH_DEVICE": "gpu"},
    ],
)
def test_a_job_that_was_given_a_gpu_refuses_the_cpu_and_names_its_node(variables):
    check_gpu_seen(True, variables)
    with pytest.raises(GpuNotSeen) as error:
        check_gpu_seen(False, variables)
    message = str(error.value)
    assert f"torch does not see the GPU of this job on {platform.node()} (" in message
    given = {name: value for name, value in variables.items() if value and name[0] != "D"}
    assert all(f"{name}={value}" in message for name, value in given.items())
    assert "DMLBENCH_DEVICE=cpu" in message


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"CUDA_VISIBLE_DEVICES": ""},
        {"CUDA_VISIBLE_DEVICES": "-1"},
        {"CUDA_VISIBLE_DEVICES": "NoDevFiles"},
        {"SLURM_JOB_ID": "7"},
        {"SLURM_JOB_GPUS": "0", "CUDA_VISIBLE_DEVICES": "0", "DMLBENCH_DEVICE": "cpu"},
    ],
)
def test_a_job_without_a_gpu_or_that_is_told_to_uses_the_cpu(variables):
    check_gpu_seen(False, variables)


def test_the_choice_of_the_cpu_hides_all_gpus():
    environ = {"DMLBENCH_DEVICE": "cpu", "CUDA_VISIBLE_DEVICES": "0,1"}
    use_chosen_device(environ)
    assert environ["CUDA_VISIBLE_DEVICES"] == ""


@pytest.mark.parametrize("chosen", ["", "gpu", None])
def test_without_a_choice_gpus_stay_as_they_are(chosen):
    environ = {"CUDA_VISIBLE_DEVICES": "1"} | (
        {} if chosen is None else {"DMLBENCH_DEVICE": chosen}
    )
    use_chosen_device(environ)
    assert environ["CUDA_VISIBLE_DEVICES"] == "1"


def test_another_choice_is_refused():
    with pytest.raises(WrongEnvironment, match="DMLBENCH_DEVICE=cuda: it is cpu, or gpu"):
        use_chosen_device({"DMLBENCH_DEVICE": "cuda"})
