"""A study has the same keys on every Python, so moving to another one trains nothing again."""

import json
import subprocess
import sys

import pytest

from dmlbench.utils.modules import PACKAGE

ROOT = PACKAGE.parent
KEYS = """
import json, sys
from dmlbench.backbones import catalogue
catalogue.timm_models.cache_clear()
import dmlbench.study.grid as grid
grid.timm_models = lambda: frozenset(["test_resnet"])  # timm is not installed here
from dmlbench.study.study import read_study
study = read_study("config/demo.yaml")
print(json.dumps({path: [run.train_key, run.eval_key] for path, run in study.runs.items()}))
"""


def installed(packages):
    """These packages as the lock has them, without the hashes of their files."""
    lines = (ROOT / "envs/requirements.lock").read_text().splitlines()
    pins = dict(line.split(" ")[0].split("==") for line in lines if "==" in line.split(" ")[0])
    return [f"{name}=={pins[name]}" for name in packages]


@pytest.mark.slow
def test_the_demo_has_the_same_keys_on_another_python(other_python, tmp_path):
    here = subprocess.check_output([sys.executable, "-c", KEYS], cwd=ROOT)
    needed = installed(["pydantic", "pyyaml"])
    uv = [sys.executable, "-m", "uv", "pip", "install", "--quiet"]
    subprocess.run([*uv, "--python", other_python, "--target", tmp_path, *needed], check=True)
    environment = {"PYTHONPATH": f"{tmp_path}:{ROOT}", "PATH": ""}
    there = subprocess.check_output([other_python, "-c", KEYS], cwd=ROOT, env=environment)
    assert len(json.loads(here)) > 20
    assert json.loads(there) == json.loads(here)
