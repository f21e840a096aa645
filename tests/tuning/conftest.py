import pytest

from dmlbench.study.study import check_study


@pytest.fixture
def tuned(tiny):
    """The settings of a tuned study, whose folds are trained in a second."""
    tiny["tuning"] = {"trials": 3, "folds": 3, "use_folds": 2}
    tiny["datasets"]["letters"]["class_fraction"] = 0.04
    tiny["recipe"] |= {"epochs": 3, "batch_size": 24, "schedule": "cosine"}
    tiny["plan"] |= {"losses": ["normalized_softmax"], "controls": []}
    return tiny


@pytest.fixture
def study(tuned, tmp_path, monkeypatch, data_folder):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DMLBENCH_DATA", str(data_folder))
    return check_study(tuned, "tiny")
