"""The process of `dmlbench submit` is found by its file."""

import json
import os
import platform
import time

import pytest

from dmlbench.workflow.driver import MAX_SILENCE, find_driver, hold_driver_file


@pytest.fixture
def log(study):
    return study.files.submit_log


def test_a_driver_is_found_as_long_as_it_holds_its_file(study, log):
    assert find_driver(study) is None
    with hold_driver_file(study, log) as file:
        file.update(starts=3, doing="runs Snakemake")
        driver = find_driver(study)
        assert (driver.pid, driver.host, driver.starts) == (os.getpid(), platform.node(), 3)
        assert driver.describe().startswith(f"process {os.getpid()} on {platform.node()}, since ")
        assert "start 3 of Snakemake, runs Snakemake; log: results/tiny/logs/submit.log" in (
            driver.describe()
        )
    assert find_driver(study) is None
    assert not study.files.driver.exists()


def test_a_study_has_one_driver(study, log):
    with hold_driver_file(study, log) as first, hold_driver_file(study, log) as second:
        assert first
        assert second is None
        assert study.files.driver.exists()


def write(study, host, age=0.0):
    study.folder.mkdir(parents=True, exist_ok=True)
    driver = {"pid": 1, "host": host, "since": 0.0, "log": "submit.log"}
    study.files.driver.write_text(json.dumps(driver))
    os.utime(study.files.driver, (time.time() - age,) * 2)


def test_a_driver_that_was_killed_here_is_none(study, log):
    write(study, platform.node())
    assert find_driver(study) is None
    with hold_driver_file(study, log) as file:
        assert file.driver.pid == os.getpid()


def test_a_driver_on_another_machine_lives_as_long_as_it_writes(study, log):
    write(study, "login2")
    assert find_driver(study).host == "login2"
    with hold_driver_file(study, log) as file:
        assert file is None
    write(study, "login2", age=MAX_SILENCE + 10)
    assert find_driver(study) is None


@pytest.mark.parametrize("content", ["", "{", "[]", '{"pid": "x"}'])
def test_a_damaged_file_is_no_driver(study, log, content):
    study.folder.mkdir(parents=True)
    study.files.driver.write_text(content)
    assert find_driver(study) is None
    with hold_driver_file(study, log) as file:
        assert file
