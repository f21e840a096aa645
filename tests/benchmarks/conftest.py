"""A machine with nothing but torch, torchvision and timm."""

import os
from pathlib import Path

import pytest

MISSING = """
import sys
from importlib.machinery import PathFinder

NAMES = {
    "alembic",
    "faiss",
    "fontTools",
    "matplotlib",
    "mlflow",
    "pandas",
    "pyarrow",
    "pydantic",
    "pygments",
    "pytorch_metric_learning",
    "requests",
    "scipy",
    "sklearn",
    "snakemake",
    "sqlalchemy",
    "urllib3",
}

class Bare(PathFinder):
    def find_spec(name, path=None, target=None):
        return None if name.partition(".")[0] in NAMES else PathFinder.find_spec(name, path, target)

    def find_distributions(context):
        named = (context.name or "").replace("-", "_")
        return () if named in NAMES else PathFinder.find_distributions(context)

sys.meta_path = [Bare if finder is PathFinder else finder for finder in sys.meta_path]
"""


@pytest.fixture
def bare_environment(tmp_path_factory):
    """The environment of a process that lacks those libraries; its children lack them too."""
    folder = tmp_path_factory.mktemp("missing")
    (folder / "sitecustomize.py").write_text(MISSING)
    paths = [str(folder), str(Path(__file__).parents[2])]
    return os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
