"""A full disk is one clear error at each writing stage; nothing is half-made; later it works."""

import json
import os
import shutil
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dmlbench.datasets.store.pack import pack
from dmlbench.leaderboard.build import build_leaderboard
from dmlbench.study.study import check_study
from dmlbench.tracking.sync import track
from dmlbench.utils.errors import DiskError, UserError
from dmlbench.workflow import study_lock
from dmlbench.workflow.conclusion import conclude
from dmlbench.workflow.study_lock import lock_study
from dmlbench.workflow.verdict import verdict
from tests.project import ROOT, Project, copy_project
from tests.result_edits import describe_again, edit_result
from tests.small_disk import KB, small_disk

TIME = "2020-01-01T00:00:00+00:00"


@pytest.fixture
def disk(tmp_path, monkeypatch):
    """A disk of 8 MB; the test runs in it."""
    with small_disk(tmp_path / "disk", 8192 * KB) as disk:
        monkeypatch.chdir(disk.folder)
        yield disk
        monkeypatch.undo()


@pytest.fixture
def study(tiny, disk, write_results):
    """A study of two runs that are scored."""
    tiny["plan"]["losses"] = ["proxy_anchor"]
    study = check_study(tiny, "tiny")
    write_results(study)
    epoch = {"epoch": [1], "step": [9], "loss": [0.5], "lr": [0.1], "seconds": [1.0]}
    for path in study.runs:
        files = study.files.run(path)
        pq.write_table(pa.table(epoch | {"images_per_second": [9.0]}), files.history)
        describe_again(files)
        edit_result(files.run, study="tiny", provenance={"started": TIME, "finished": TIME})
    return study


@pytest.fixture
def _unlocked():
    yield
    while study_lock._locks:
        study_lock._locks.pop().close()


def raises_full():
    return pytest.raises(DiskError, match=r"the disk is full \(No space left on device; free: ")


@pytest.mark.parametrize("free", [0, 100 * KB])
def test_the_leaderboard_keeps_its_whole_files_and_is_written_later(study, disk, free):
    build_leaderboard(study)
    folder = study.files.leaderboard
    whole = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    for path in whole:
        if path != study.files.made_of:
            path.write_text("old")
    disk.fill(free)
    with raises_full():
        build_leaderboard(study)
    for path in whole:
        assert path.read_bytes() in (whole[path], b"old")
    assert not list(folder.rglob(".*"))
    disk.make_room()
    build_leaderboard(study)
    assert {path: path.read_bytes() for path in whole} == whole


def test_a_conclusion_on_a_full_disk_says_so_and_raises_nothing(study, disk, capsys):
    disk.fill()
    conclude(study, disk.folder / "data")
    output = capsys.readouterr().out
    assert output.startswith("The leaderboard cannot be written: ")
    assert "the disk is full" in output
    assert "Make room there, and ask again" in output
    assert "Traceback" not in output
    assert not study.files.table.exists()


def test_a_verdict_is_whole_or_not_there(study, disk):
    disk.fill()
    with raises_full():
        verdict(study)
    assert not study.files.verdict.exists()
    disk.make_room()
    assert verdict(study) == 0
    assert study.files.verdict.read_text().startswith("tiny: all 2 runs have a result\n")


@pytest.mark.usefixtures("_unlocked")
@pytest.mark.parametrize("has_folder", [True, False])
def test_a_study_that_cannot_be_locked_names_its_folder(study, tiny, disk, has_folder):
    if not has_folder:
        study = check_study(tiny | {"study": "other"}, "other")
    disk.fill()
    with pytest.raises(DiskError, match=r"results.*the disk is full"):
        lock_study(study)
    assert not study.files.snapshot.exists()
    disk.make_room()
    lock_study(study)
    assert json.loads(study.files.snapshot.read_text())["study"] == study.name


def test_scores_on_a_full_disk_are_no_failed_run(study, disk):
    files = study.files.run(next(iter(study.runs)))
    before = files.metrics.read_bytes()
    disk.fill()
    with raises_full():
        files.write_metrics(files.load_metrics() | {"code": {}}, files.load_run())
    assert files.metrics.read_bytes() == before


@pytest.mark.slow
def test_a_store_that_does_not_fit_is_packed_later(tmp_path, disk, data_folder, store_name):
    whole = data_folder / "stores" / store_name
    out = disk.folder / "stores" / store_name
    disk.fill(64 * KB)
    with pytest.raises(UserError, match=r"no space is left|the disk is full"):
        pack("glyphs", 32, out, disk.folder / "archives")
    assert not (out / "manifest.json").exists()
    disk.make_room()
    subprocess.run(["mount", "-o", "remount,size=512m", str(disk.folder)], check=True)
    pack("glyphs", 32, out, disk.folder / "archives")
    names = {path.name for path in whole.iterdir() if path.is_file()}
    assert {path.name for path in out.iterdir()} == names
    for name in names - {"manifest.json"}:
        assert (out / name).read_bytes() == (whole / name).read_bytes()


@pytest.mark.slow
def test_mlflow_on_a_full_disk_is_one_error_and_a_later_import_is_complete(
    study, disk, monkeypatch
):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    uri = "sqlite:///results/mlflow.db"
    disk.fill(100 * KB)
    with pytest.raises(UserError, match="disk") as error:
        track(study, uri)
    assert "Traceback" not in str(error.value)
    disk.make_room()
    study.files.snapshot.write_text(json.dumps(study.settings.model_dump(mode="json")))
    command = [sys.executable, "-m", "dmlbench", "track", str(study.files.snapshot)]
    later = subprocess.run(command, stdout=-1, text=True, check=True).stdout
    assert ": 4 created, 0 replaced" in later  # two runs, each with its cell


@pytest.mark.parametrize("job", [["leaderboard"], ["verdict"]])
def test_a_job_whose_log_is_full_too_ends_with_an_error(study, disk, job):
    study.files.snapshot.write_text(json.dumps(study.settings.model_dump(mode="json")))
    log = disk.folder / "log.txt"
    log.touch()
    disk.fill()
    command = [sys.executable, "-m", "dmlbench", "--job", *job, str(study.files.snapshot)]
    with log.open("w") as output:
        ended = subprocess.run(command, stdout=output, stderr=output, check=False)
    assert ended.returncode == 1
    assert log.stat().st_size == 0 or "disk is full" in log.read_text()
    disk.make_room()
    with log.open("w") as output:
        ended = subprocess.run(command, stdout=output, stderr=output, check=False)
    assert ended.returncode == 0
    assert log.read_text().endswith("dmlbench: done\n")
    made = study.files.verdict if job == ["verdict"] else study.files.table
    assert made.is_file()


def test_no_bytecode_that_may_be_cut_is_written_to_a_disk_that_is_nearly_full(tmp_path):
    command = [sys.executable, "-P", "-c", "import dmlbench.module"]
    with small_disk(tmp_path / "disk", 16 * KB * KB) as disk:
        package = disk.folder / "dmlbench"
        package.mkdir()
        shutil.copy(ROOT / "dmlbench/__init__.py", package)
        (package / "module.py").touch()
        environment = os.environ | {"PYTHONPATH": str(disk.folder)}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        for free in (4 * KB * KB, 12 * KB * KB):
            disk.fill(free)
            subprocess.run(command, env=environment, check=True)
            assert bool(list(package.rglob("module.*.pyc"))) == (free > 8_000_000)


@pytest.mark.slow
def test_a_study_on_a_full_disk_says_so_and_completes_when_there_is_room(
    tmp_path, tiny, data_folder
):
    tiny["plan"]["losses"] = ["proxy_anchor"]
    with small_disk(tmp_path / "disk", 80 * KB * KB) as disk:
        project = Project(copy_project(disk.folder / "made"), data_folder)
        project.write(tiny)
        project.planned()  # its bytecode needs no room any more
        for free in (100 * KB, 200 * KB):
            disk.fill(free)
            output = project.run(expect=1)
            assert "the disk is full (No space left on device; free: " in output
            assert "killed" not in output
            assert "goes on, attempt" not in output  # not one retry
            assert "Traceback" not in output
            status = project.dmlbench("status", "study.yaml")
            assert "killed" not in status
            assert "running" not in status
        disk.make_room()
        project.run()
        table = project.folder / "results/tiny/leaderboard/leaderboard.csv"
        rows = table.read_text().splitlines()[1:]
        assert len(rows) > 10
        assert all(",ok," in row for row in rows)
        assert project.planned() == {}
        assert not [name for name in disk.files() if ".tmp-" in name or name.endswith(".part")]
