"""Every file of a study and of a run has one path."""

from pathlib import Path

import pytest

from dmlbench.study.result_files import RunFiles, StudyFiles

RUN = "letters/tiny/htl/seed0"


@pytest.fixture
def files(tmp_path):
    return StudyFiles(tmp_path / "my_study")


def paths(files):
    """The properties of `files` that are paths."""
    names = [name for name, value in vars(type(files)).items() if isinstance(value, property)]
    values = {name: getattr(files, name) for name in names}
    return {name: value for name, value in values.items() if isinstance(value, Path)}


def test_no_two_files_have_the_same_path(files):
    every = [*paths(files).values(), *paths(files.run(RUN)).values()]
    assert len(set(every)) == len(every)
    assert all(path.is_relative_to(files.folder) for path in every)


def test_a_run_has_its_own_folder_and_its_own_state(files):
    run = files.run(RUN)
    assert run == RunFiles(files.folder / "runs" / RUN, files.folder / "state" / RUN)
    assert run.training_files[-1] == run.run


def test_a_run_is_unfinished_while_its_state_has_a_lock(files):
    assert list(files.unfinished()) == []
    state = files.run(RUN).state
    state.mkdir(parents=True)
    assert list(files.unfinished()) == []
    (state / "lock").touch()
    assert list(files.unfinished()) == [RUN]


def test_a_missing_or_damaged_result_is_none(files):
    run = files.run(RUN)
    assert (run.read_run(), run.read_metrics(), run.read_failure()) == (None, None, {})
    run.folder.mkdir(parents=True)
    run.run.write_text("{")
    run.metrics.write_text('{"status": "ok"}')
    run.failed.write_text('{"status": "diverged"}')
    assert run.read_run() is None
    assert run.read_metrics() == {"status": "ok"}
    assert run.read_failure() == {"status": "diverged"}
