"""One set of versions, wherever it is written down."""

import re
import tomllib
from pathlib import Path

import yaml

ROOT = Path(__file__).parent.parent
LOCK = (ROOT / "envs/requirements.lock").read_text()
LOCKED = dict(re.findall(r"^([a-z0-9_.-]+)==([^ ;\\]+)", LOCK, re.MULTILINE))


def dependencies():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return {re.match(r"[\w-]+", line).group() for line in project["dependencies"]}


def test_the_lock_holds_every_dependency_with_hashes_and_names_no_registry():
    assert dependencies() <= LOCKED.keys()
    entries = re.split(r"^(?=[a-z0-9_.-]+==)", LOCK, flags=re.MULTILINE)[1:]
    assert all("--hash=sha256:" in entry for entry in entries)
    assert "://" not in LOCK


def test_the_conda_environment_has_the_lock_s_versions():
    packages = yaml.safe_load((ROOT / "envs/dmlbench.yaml").read_text())["dependencies"][-1]["pip"]
    pinned = dict(line.split("==") for line in packages)
    assert {name: LOCKED[name] for name in pinned} == pinned
    assert pinned.keys() == dependencies() - {"faiss-cpu"}
