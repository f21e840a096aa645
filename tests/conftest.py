import copy
import os

import pytest

# Workers share two cores; the numbers of threads that matter are set by what is tested.
os.environ.setdefault("OMP_NUM_THREADS", "1")

TINY = {
    "study": "tiny",
    "plan": {
        "datasets": ["letters"],
        "backbones": ["tiny"],
        "losses": ["normalized_softmax", "proxy_anchor"],
        "seeds": [0],
        "controls": ["random"],
    },
    "datasets": {"letters": {"type": "glyphs", "class_fraction": 0.1}},
    "backbones": {"tiny": {"type": "test_resnet", "dim": 16, "image_size": 32}},
    "recipe": {"batch_size": 48, "epochs": 1, "lr": 0.003},
    "tracking": False,
}


@pytest.fixture(scope="session")
def tiny_settings():
    """A study of seconds."""
    return copy.deepcopy(TINY)


@pytest.fixture
def tiny(tiny_settings):
    """A study of seconds, of one's own to change."""
    return copy.deepcopy(tiny_settings)


@pytest.fixture(scope="session")
def store_name(tiny_settings):
    from dmlbench import study

    (name,) = study.check(tiny_settings, "tiny").stores
    return name


@pytest.fixture(scope="session")
def data_folder(tmp_path_factory, store_name):
    """A data folder with the packed glyphs."""
    from dmlbench.datasets.pack import pack

    folder = tmp_path_factory.mktemp("data")
    pack("glyphs", 32, folder / "stores" / store_name, folder / "archives")
    return folder


@pytest.fixture(scope="session")
def glyphs(data_folder, store_name):
    from dmlbench.datasets.store import Store

    return Store(data_folder / "stores" / store_name)
