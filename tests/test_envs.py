"""The lock, the conda environments and pyproject.toml agree on the versions."""

import re
import tomllib
from pathlib import Path

import yaml

ROOT = Path(__file__).parent.parent
LOCK = (ROOT / "envs/requirements.lock").read_text()
LOCKED = dict(re.findall(r"^([a-z0-9_.-]+)==([^ ;\\]+)", LOCK, re.MULTILINE))


def project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def dependencies():
    return {re.match(r"[\w-]+", line).group() for line in project()["dependencies"]}


def test_the_lock_has_every_dependency_with_hashes_and_names_no_registry():
    assert dependencies() <= LOCKED.keys()
    entries = re.split(r"^(?=[a-z0-9_.-]+==)", LOCK, flags=re.MULTILINE)[1:]
    assert all("--hash=sha256:" in entry for entry in entries)
    assert "://" not in LOCK


def test_each_conda_environment_has_the_versions_of_the_lock_and_one_build_of_faiss():
    for kind, other in (("cpu", "gpu"), ("gpu", "cpu")):
        content = yaml.safe_load((ROOT / f"envs/{kind}.yaml").read_text())
        pinned = dict(line.split("==") for line in content["dependencies"][-1]["pip"])
        assert {name: LOCKED[name] for name in pinned} == pinned
        assert pinned.keys() == dependencies() - {f"faiss-{other}"}


def test_the_plugin_for_clusters_is_an_extra_and_not_in_the_lock():
    extras = project()["optional-dependencies"]
    assert extras.keys() == {"ui", "slurm", "dev"}
    assert not [name for name in LOCKED if "slurm" in name]
