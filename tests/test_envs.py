"""The lock, the conda environments and pyproject.toml agree on the versions."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent
LOCK = (ROOT / "envs/requirements.lock").read_text()
CPU_LOCK = (ROOT / "envs/requirements-cpu.lock").read_text()
SLURM_LOCK = (ROOT / "envs/requirements-slurm.lock").read_text()
PIN = re.compile(r"^([a-z0-9_.-]+)==([^ ;\\]+)", re.MULTILINE)
LOCKED = dict(PIN.findall(LOCK))
ONLY_GPUS = re.compile("nvidia-|cuda-|triton|faiss-gpu")


def project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def dependencies():
    return {re.match(r"[\w-]+", line).group() for line in project()["dependencies"]}


def test_the_lock_has_every_dependency():
    assert dependencies() <= LOCKED.keys()


@pytest.mark.parametrize("lock", [LOCK, CPU_LOCK, SLURM_LOCK], ids=["all", "cpu", "slurm"])
def test_a_lock_has_hashes_and_names_no_registry(lock):
    entries = re.split(r"^(?=[a-z0-9_.-]+==)", lock, flags=re.MULTILINE)[1:]
    assert all("--hash=sha256:" in entry for entry in entries)
    assert "://" not in lock


def test_the_lock_for_cpus_has_the_same_versions_without_what_only_gpus_need():
    left_out = {name for name in LOCKED if ONLY_GPUS.match(name)} | {"torch", "torchvision"}
    assert len(left_out) > 20
    pinned = dict(PIN.findall(CPU_LOCK))
    assert pinned == {name: LOCKED[name] for name in LOCKED if name not in left_out}
    assert re.search(r"^faiss-cpu==[^;]+? \\$", CPU_LOCK, re.MULTILINE)  # on every platform


def test_what_a_cpu_leaves_out_of_torch_is_among_its_dependencies():
    lines = (ROOT / "envs/cpu-excludes.txt").read_text().splitlines()
    names = {line for line in lines if not line.startswith("#")}
    assert names == {"triton", "cuda-bindings"}
    assert names <= LOCKED.keys()


def test_each_conda_environment_has_the_versions_of_the_lock_and_one_build_of_faiss():
    for kind, other in (("cpu", "gpu"), ("gpu", "cpu")):
        content = yaml.safe_load((ROOT / f"envs/{kind}.yaml").read_text())
        pinned = dict(line.split("==") for line in content["dependencies"][-1]["pip"])
        assert {name: LOCKED[name] for name in pinned} == pinned
        assert pinned.keys() == dependencies() - {f"faiss-{other}"}


def test_the_plugins_for_clusters_are_extras_with_a_lock_of_their_own():
    extras = project()["optional-dependencies"]
    assert extras.keys() == {"ui", "lite0", "slurm", "cluster-generic", "dev"}
    plugins = {
        re.match(r"[\w-]+", extras[name][0]).group() for name in ("slurm", "cluster-generic")
    }
    locked = PIN.findall(SLURM_LOCK)
    assert {name for name, _ in locked} == plugins | {"snakemake-executor-plugin-slurm-jobstep"}
    assert not {name for name, _ in locked} & LOCKED.keys()
