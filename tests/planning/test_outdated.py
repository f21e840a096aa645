"""What Snakemake gets as the inputs of jobs: whatever the dates of files are, pending jobs run."""

import os
import shutil
from pathlib import Path

import pytest

from dmlbench.planning.outdated import FUTURE, MARKER, Inputs
from dmlbench.study.study import check_study

PATH, OTHER = "letters/tiny/proxy_anchor/seed0", "letters/tiny/normalized_softmax/seed0"
OUTDATED = str(MARKER)


def ignored(file):
    """As `ancient` does, mark a file whose date is ignored."""
    return f"ancient {file}"


@pytest.fixture
def inputs_of(stores):
    """The inputs of the jobs of a study, as they are now."""

    def make(study, **options):
        return Inputs(study, stores, ignored, **options)

    return make


def test_nothing_is_marked_in_a_finished_study(finished, inputs_of):
    inputs, files = inputs_of(finished), finished.files
    run = files.run(PATH)
    assert inputs.of_training(PATH) == []
    assert inputs.of_scoring(PATH) == [ignored(run.run), ignored(run.embeddings)]
    of_all = [*inputs.of_leaderboard(), *inputs.of_tracking(["a.csv"]), *inputs.of_verdict()]
    assert all(file.startswith("ancient results/tiny/") for file in of_all if "a.csv" not in file)
    assert not MARKER.exists()


def test_a_damaged_training_marks_its_jobs_and_those_that_come_after(finished, inputs_of):
    run = finished.files.run(PATH)
    run.history.write_text("damaged")
    inputs = inputs_of(finished)
    assert inputs.of_training(PATH) == [OUTDATED]
    assert inputs.of_scoring(PATH) == [str(run.run), str(run.embeddings), OUTDATED]
    assert inputs.of_training(OTHER) == []
    assert OUTDATED not in inputs.of_scoring(OTHER)
    for files in (inputs.of_leaderboard(), inputs.of_verdict(), inputs.of_tracking([])):
        assert OUTDATED in files
        assert not [file for file in files if file.startswith("ancient")]


def test_an_outdated_result_of_the_date_0_which_is_none_for_snakemake_gets_another(
    finished, inputs_of
):
    run, other = finished.files.run(PATH), finished.files.run(OTHER)
    outputs = [run.run, run.metrics, other.run, finished.files.table]
    outputs += [run.train_benchmark, run.evaluate_benchmark]  # Snakemake takes them for outputs
    for file in outputs:
        file.touch()
        os.utime(file, (0, 0))
    run.history.write_text("damaged")
    assert inputs_of(finished).of_training(PATH) == [OUTDATED]
    assert [file.stat().st_mtime > 0 for file in outputs] == [True, True, False, True, True, True]


def test_a_leaderboard_that_changed_marks_no_run(finished, inputs_of):
    finished.files.table.write_text("edited")
    inputs = inputs_of(finished)
    assert OUTDATED in inputs.of_leaderboard()
    assert OUTDATED in inputs.of_verdict()
    assert OUTDATED not in [*inputs.of_training(PATH), *inputs.of_scoring(PATH)]


def test_tracking_is_marked_also_if_the_study_asks_for_it_no_more(tiny, finish, inputs_of):
    study = check_study(tiny | {"tracking": True}, "tiny")
    finish(study)
    assert OUTDATED not in inputs_of(study).of_tracking([])
    study.files.tracked.write_text("key of another place")
    assert OUTDATED in inputs_of(study).of_tracking([])
    assert OUTDATED in inputs_of(study).of_verdict()
    finish(untracked := check_study(tiny, "tiny"))
    assert OUTDATED in inputs_of(untracked).of_tracking([])
    assert OUTDATED not in inputs_of(untracked).of_verdict()


def test_a_job_that_another_snakemake_sent_looks_at_no_result(finished, inputs_of):
    finished.files.run(PATH).run.write_text("damaged")
    inputs = inputs_of(finished, is_asked=False)
    run = finished.files.run(PATH)
    assert inputs.of_training(PATH) == []
    assert inputs.of_scoring(PATH) == [str(run.run), str(run.embeddings)]
    assert OUTDATED not in inputs.of_tracking([])


def test_what_comes_after_a_forced_job_runs_too(finished, inputs_of):
    inputs = inputs_of(finished, is_forced=True)
    for files in (inputs.of_scoring(PATH), inputs.of_leaderboard(), inputs.of_verdict()):
        assert OUTDATED not in files
        assert not [file for file in files if file.startswith("ancient")]


def is_as_snakemake_needs_it():
    """Whether the marker is newer than any result where it is followed, and older where not."""
    return MARKER.stat().st_mtime == FUTURE and MARKER.lstat().st_mtime == 0 and MARKER.is_dir()


def test_the_marker_is_a_link_to_the_future_however_it_is_found(tiny, inputs_of, tmp_path):
    study = check_study(tiny, "tiny")
    assert inputs_of(study).of_training(PATH) == [OUTDATED]
    assert is_as_snakemake_needs_it()
    (MARKER / "a file").touch()  # the folder changes
    os.utime(MARKER, (9, 9), follow_symlinks=False)
    assert inputs_of(study).marker == OUTDATED
    assert is_as_snakemake_needs_it()
    shutil.copytree(MARKER.parent, tmp_path / "copy")  # without links
    shutil.rmtree(MARKER.parent)
    shutil.copytree(tmp_path / "copy", MARKER.parent)
    assert not MARKER.is_symlink()
    assert inputs_of(study).marker == OUTDATED
    assert is_as_snakemake_needs_it()
    shutil.move(MARKER.parent, tmp_path / "elsewhere")
    assert (tmp_path / "elsewhere" / MARKER.name).readlink() == Path("outdated.since")


def test_a_marker_of_another_user_that_is_right_is_not_touched(tiny, inputs_of, monkeypatch):
    study = check_study(tiny, "tiny")
    assert inputs_of(study).marker == OUTDATED

    def refuse(*_, **__):
        raise PermissionError

    monkeypatch.setattr(os, "utime", refuse)
    assert inputs_of(study).marker == OUTDATED


def test_what_is_missing_is_made_for_pending_jobs_alone(finished, inputs_of, tmp_path):
    there, missing = tmp_path / "there.json", tmp_path / "missing.json"
    there.touch()
    files = [str(there), str(missing)]
    assert inputs_of(finished).made_if_missing(files, is_pending=True) == files
    assert inputs_of(finished).made_if_missing(files, is_pending=False) == [ignored(there)]


@pytest.mark.parametrize("options", [{"is_forced": True}, {"is_asked": False}])
def test_a_job_that_runs_whatever_is_pending_waits_for_what_is_missing(
    finished, inputs_of, options, tmp_path
):
    missing = str(tmp_path / "missing.json")
    inputs = inputs_of(finished, **options)
    assert inputs.made_if_missing([missing], is_pending=False) == [ignored(missing)]
