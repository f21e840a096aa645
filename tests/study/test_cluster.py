"""The section `cluster:` of a study."""

import pytest

from dmlbench.study.cluster import Cluster
from dmlbench.study.study import check_study
from dmlbench.utils.errors import StudyError

OTHER = {
    "device": "cpu",
    "partition": "gpu",
    "cpu_partition": "cpu",
    "account": "lab",
    "qos": "long",
    "constraint": "a100|h100",
    "gpu_request": "gres",
    "gpu_type": "a100",
    "cores_per_gpu": 7,
    "max_minutes": 99,
    "time_factor": 3.5,
    "memory_mb": 12345,
    "score_with_training": False,
}


def test_no_key_has_a_setting_of_the_cluster(tiny):
    assert OTHER.keys() == Cluster.model_fields.keys()
    default = check_study(tiny, "tiny")
    other = check_study(tiny | {"cluster": OTHER}, "tiny")
    assert other.settings.cluster != default.settings.cluster
    for path, run in default.runs.items():
        assert other.runs[path].train_key == run.train_key
        assert other.runs[path].eval_key == run.eval_key
    assert other.leaderboard_key == default.leaderboard_key
    assert other.tracking_key("uri") == default.tracking_key("uri")


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("partition", "gpu; rm -rf ~"),
        ("partition", "$(id)"),
        ("account", "-x"),
        ("qos", "a b"),
        ("constraint", "a100`id`"),
        ("gpu_type", "a100:2"),
        ("gpu_request", "gpu"),
        ("device", "cuda"),
        ("cores_per_gpu", 0),
        ("max_minutes", 10**6),
        ("time_factor", 0.5),
        ("memory_mb", 10),
    ],
)
def test_a_wrong_value_is_refused_by_its_name(tiny, setting, value):
    with pytest.raises(StudyError) as error:
        check_study(tiny | {"cluster": {setting: value}}, "tiny")
    (problem,) = str(error.value).splitlines()[1:]
    assert problem.startswith(f"  cluster.{setting}: ")
    assert str(value) in problem
