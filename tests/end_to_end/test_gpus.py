"""A study on a machine with GPUs: as many trainings at once as fit on them, each on its own, and
none waits for cores that scores are made on. The GPUs are those of a made nvidia-smi."""

import csv
import platform
from collections import Counter

import pytest

RUNS = "results/tiny/runs/letters/tiny"
SMI = """#!/bin/sh
echo "$*" >> "$0.calls"
echo "0, GPU-a, Default, Disabled, Fake"
echo "1, GPU-b, Default, Disabled, Fake"
"""
# In place of the training: note when and where, and stay until as many others are there as ever
TRAIN = """
    import os, time
    note = Path("begun-and-ended")
    with note.open("a") as file:
        file.write(f"begin {os.environ['CUDA_VISIBLE_DEVICES']} {os.environ['DMLBENCH_CORES']}\\n")
    limit = time.monotonic() + 60
    while note.read_text().count("begin") < AT_ONCE and time.monotonic() < limit:
        time.sleep(0.02)
    time.sleep(0.3)
    with note.open("a") as file:
        file.write(f"end {os.environ['CUDA_VISIBLE_DEVICES']}\\n")
    return Output([], np.zeros((1, run.model.dim), np.float32), np.zeros(1, np.int32))
"""


@pytest.fixture
def box(project, tmp_path):
    """A project on a machine with two GPUs."""
    for folder in ("bin", "tmp"):
        (tmp_path / folder).mkdir()
    tool = tmp_path / "bin/nvidia-smi"
    tool.write_text(SMI)
    tool.chmod(0o755)
    project.environment["PATH"] = f"{tool.parent}:{project.environment['PATH']}"
    project.environment["TMPDIR"] = str(tmp_path / "tmp")
    project.environment.pop("CUDA_VISIBLE_DEVICES", None)
    return project


@pytest.mark.parametrize(("runs", "gpus"), [(1, 2), (2, 2), (2, 1)])
def test_as_many_trainings_run_at_once_as_may_share_a_gpu(box, tiny, runs, gpus):
    at_once = gpus * runs
    tiny["plan"] |= {"losses": ["triplet"], "seeds": list(range(at_once + 2)), "controls": []}
    box.write(tiny | {"runs_per_gpu": runs})
    here = "    with training_imports(run.recipe, stores):\n"
    job = "dmlbench/training/job.py"
    box.edit(job, here, TRAIN.replace("AT_ONCE", str(at_once)) + here)
    box.edit("dmlbench/training/resumable_job.py", "measurements(output.history)", "{}")
    limit = () if gpus == 2 else ("--resources", f"gpu={gpus}")
    box.run("--until", "train", *limit, cores=9)
    at_work, most, cores = Counter(), Counter(), set()
    for line in (box.folder / "begun-and-ended").read_text().splitlines():
        word, device, *given = line.split()
        at_work[device] += 1 if word == "begin" else -1
        most |= at_work
        most["all"] = max(most["all"], at_work.total())
        cores |= {*given}
    devices = [device for device in most if device != "all"]
    assert most == dict.fromkeys(devices, runs) | {"all": at_once}
    assert len(devices) == gpus
    assert cores == {str(8 // at_once)}  # one is left for those that score
    # the jobs ask for no GPUs: the process that starts them has found them
    assert len((box.folder.parent / "bin/nvidia-smi.calls").read_text().splitlines()) == 1


def test_no_training_uses_a_gpu_if_the_call_allows_none(box, tiny):
    tiny["plan"] |= {"losses": ["triplet"], "controls": []}
    box.write(tiny)
    here = "    with training_imports(run.recipe, stores):\n"
    box.edit("dmlbench/training/job.py", here, TRAIN.replace("AT_ONCE", "1") + here)
    box.edit("dmlbench/training/resumable_job.py", "measurements(output.history)", "{}")
    box.run("--until", "train", "--resources", "gpu=0")
    assert "GPU-" not in (box.folder / "begun-and-ended").read_text()


@pytest.mark.slow
def test_scores_of_many_images_ask_for_a_gpu_and_use_the_cpu_if_torch_cannot_use_it(box, tiny):
    tiny["plan"] |= {"losses": ["triplet"], "controls": ["random"]}
    box.write(tiny)
    box.edit("dmlbench/study/run.py", "IMAGES = 20_000", "IMAGES = 100")
    box.edit(
        "dmlbench/training/resumable_job.py", "if uses_model else torch", "if False else torch"
    )
    box.run("--benchmark-extended", cores=9)
    for loss, gpus, cores in (("triplet", "1", "4"), ("control_random", "0", "1")):
        folder = box.folder / RUNS / loss / "seed0"
        train, evaluate = (
            next(csv.DictReader((folder / f"{rule}.benchmark.tsv").open(), delimiter="\t"))
            for rule in ("train", "evaluate")
        )
        assert f"'gpu': {gpus}" in train["resources"]
        assert train["threads"] == cores
        assert evaluate["threads"] == "1"
        assert "'gpu': 1" in evaluate["resources"]
        log = (folder / "evaluate.log").read_text()
        assert "scoring on the CPU: torch cannot compute on the GPU of this job on " in log
        assert box.json(f"{RUNS}/{loss}/seed0/metrics.json")["device"] == "cpu"
    assert box.planned() == {}


@pytest.mark.slow
def test_a_training_whose_gpu_torch_cannot_use_is_refused_unless_the_cpu_is_chosen(box, tiny):
    tiny["plan"] |= {"losses": ["triplet"], "controls": []}
    box.write(tiny)
    box.run("--until", "train", "--retries", "0", expect=1)
    folder = box.folder / RUNS / "triplet/seed0"
    log = (folder / "log.txt").read_text()
    node = platform.node()
    assert (
        f"torch cannot compute on the GPU of this job on {node} (CUDA_VISIBLE_DEVICES=GPU-" in log
    )
    assert not (folder / "run.json").exists()
    box.environment["DMLBENCH_DEVICE"] = "cpu"
    box.run("--until", "train")
    result = box.json(f"{RUNS}/triplet/seed0/run.json")
    assert result["status"] == "ok"
    assert result["provenance"]["device"].startswith("cpu (")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mode", "variable", "message"),
    [
        ("Exclusive_Process", None, "runs_per_gpu: 2 processes cannot share GPU-a (Fake), GPU-b"),
        ("Prohibited", None, "the compute mode of GPU-a (Fake), GPU-b (Fake) is Prohibited"),
        ("Default", "2", "CUDA_VISIBLE_DEVICES=2 chooses no GPU."),
    ],
)
def test_a_study_whose_jobs_could_not_use_the_gpus_is_refused_at_its_start(
    box, tiny, tmp_path, mode, variable, message
):
    tool = tmp_path / "bin/nvidia-smi"
    tool.write_text(tool.read_text().replace("Default", mode))
    if variable:
        box.environment["CUDA_VISIBLE_DEVICES"] = variable
    box.environment["CUDA_MPS_PIPE_DIRECTORY"] = str(tmp_path)  # nobody listens there
    box.write(tiny | {"runs_per_gpu": 2})
    assert message in " ".join(box.run(expect=1).split())
    assert not (box.folder / "results/tiny/runs").exists()
    box.run("--until", "pack_store", "--resources", "gpu=0")
