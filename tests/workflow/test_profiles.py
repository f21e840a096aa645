"""The profiles of Snakemake that the project ships."""

from pathlib import Path

import pytest
import yaml

PROFILES = Path(__file__).parents[2] / "profiles"
OF_EACH_MACHINE = {"cores"}
"""What only a profile for one machine has."""


def read(name):
    return yaml.safe_load((PROFILES / name / "profile.yaml").read_text())


@pytest.mark.parametrize("name", ["slurm", "cluster-generic"])
def test_a_profile_for_a_cluster_repeats_the_default_one_which_it_replaces(name):
    default, cluster = read("default"), read(name)
    shared = default.keys() - OF_EACH_MACHINE
    assert {key: cluster.get(key) for key in shared} == {key: default[key] for key in shared}


@pytest.mark.parametrize("name", ["slurm", "cluster-generic"])
def test_a_profile_for_a_cluster_leaves_to_the_user_what_profiles_replace_as_a_whole(name):
    profile = read(name)
    assert not {"default-resources", "set-threads", "cores", "slurm-array-jobs"} & profile.keys()
    assert profile["max-jobs-per-timespan"].endswith("/1s")  # else Snakemake lives a minute more
