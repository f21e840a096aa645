"""The SLURM of the other tests is a real one: jobs, GPUs, and what is broken on purpose."""

import time


def submit(slurm, script, *options):
    """The number of a submitted job."""
    command = ("sbatch", "--parsable", "-o", "/dev/null", *options, "--wrap", script)
    return int(slurm.call(*command).stdout)


def wait_for_state(slurm, job, *states):
    slurm.wait_for(lambda: slurm.job(job)["JobState"] in states, f"job {job} is {states}")


def test_a_job_gets_the_gpus_that_it_asks_for(slurm, tmp_path):
    output = tmp_path / "output"
    job = submit(slurm, f"echo $CUDA_VISIBLE_DEVICES > {output}", "--gpus=1")
    wait_for_state(slurm, job, "COMPLETED")
    assert output.read_text() in ("0\n", "1\n")
    assert slurm.job(job)["TresPerJob"] == "gres:gpu:1"


def test_a_killed_node_ends_its_jobs_and_comes_back(slurm, tmp_path):
    sign = tmp_path / "sign"
    loop = f"while sleep 0.1; do date > {sign}; done"
    job = submit(slurm, loop, "-w", "node2", "--no-requeue")
    slurm.wait_for(sign.exists, "the job writes")
    slurm.kill_node("node2")
    sign.unlink(missing_ok=True)
    time.sleep(0.5)
    assert not sign.exists()
    slurm.call("scontrol", "update", "nodename=node2", "state=down", "reason=test")
    wait_for_state(slurm, job, "NODE_FAIL")
    slurm.start_node("node2")


def test_jobs_outlive_the_controller(slurm, tmp_path):
    sign = tmp_path / "sign"
    job = submit(slurm, f"sleep 1; touch {sign}")
    wait_for_state(slurm, job, "RUNNING")
    slurm.stop_controller()
    slurm.wait_for(sign.exists, "the job goes on")
    slurm.start_controller()
    wait_for_state(slurm, job, "COMPLETED")
