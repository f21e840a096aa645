"""`dmlbench run` checks a study and becomes Snakemake."""

import os
import sys

import pytest
import yaml

from dmlbench.cli import studies
from dmlbench.cli.main import main
from dmlbench.utils.modules import PACKAGE

ROOT = PACKAGE.parent
PYTHON = [sys.executable, "-P", "-m", "snakemake"]
SNAKEFILE = ["--snakefile", str(ROOT / "Snakefile")]


@pytest.fixture
def run(tiny, tmp_path, monkeypatch):
    """Call `dmlbench run` beside my.yaml; the command that it becomes, or its message."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my.yaml").write_text(yaml.safe_dump(tiny))

    class Replaced(Exception):
        pass

    def execv(program, command):
        assert program == command[0]
        raise Replaced(command)

    monkeypatch.setattr(os, "execv", execv)

    def call(*arguments):
        try:
            main(["run", *arguments])
        except Replaced as replaced:
            return replaced.args[0]
        except SystemExit as ended:
            return ended.code

    return call


@pytest.mark.parametrize(
    ("arguments", "passed"),
    [
        ([], []),
        (["--cores", "3"], ["--cores", "3"]),
        (["--cores", "all", "-n"], ["--dry-run", "--cores", "all"]),
        (["--dry-run", "--profile", "p"], ["--dry-run", "--profile", "p"]),
        (["--", "--cores", "8", "data"], ["--cores", "8", "data"]),
        (["-n", "--", "--resources", "gpu=2"], ["--resources", "gpu=2", "--dry-run"]),
    ],
)
def test_arguments_are_passed_on_to_snakemake(run, arguments, passed):
    assert run("my.yaml", *arguments) == [*PYTHON, *passed, *SNAKEFILE, "--configfile", "my.yaml"]


def test_the_demo_needs_no_file(run):
    demo = ["--configfile", str(ROOT / "config/demo.yaml")]
    assert run("--demo") == [*PYTHON, *SNAKEFILE, *demo]
    assert run("--demo", "--", "data") == [*PYTHON, "data", *SNAKEFILE, *demo]


def test_a_study_with_results_goes_on_by_its_name(run, tmp_path):
    (tmp_path / "results/tiny").mkdir(parents=True)
    snapshot = tmp_path / "results/tiny/study.json"
    (tmp_path / "my.yaml").rename(snapshot)
    assert run("tiny")[-1] == "results/tiny/study.json"


@pytest.mark.parametrize("arguments", [[], ["my.yaml", "--demo"], ["--", "--cores", "2"]])
def test_one_study_must_be_named(run, arguments):
    assert run(*arguments) == "dmlbench: run: name a study file, or give --demo, and not both."


def test_a_wrong_study_is_one_message_and_starts_nothing(run, tiny, tmp_path):
    assert run("nothere.yaml") == (
        "dmlbench: nothere.yaml: the study cannot be run:\n  there is no such file."
    )
    (tmp_path / "my.yaml").write_text(yaml.safe_dump(tiny | {"recipe": {"lr": "fast"}}))
    message = run("my.yaml")
    assert message.startswith("dmlbench: my.yaml: the study cannot be run:\n  recipe.lr: ")


@pytest.mark.parametrize("cores", ["0", "-1", "1.5", "many", "1e9", "100001"])
def test_a_number_of_cores_that_is_none_is_refused(run, cores, capsys):
    assert run("my.yaml", "--cores", cores) == 2
    assert f"'{cores}' is not a whole number from 1 to 100,000" in capsys.readouterr().err


def test_a_double_dash_keeps_its_meaning_for_other_commands(monkeypatch):
    given = {}
    monkeypatch.setattr(studies, "_status", lambda options: given.update(vars(options)) or 0)
    with pytest.raises(SystemExit, match="0"):
        main(["status", "--", "-odd-name"])
    assert (str(given["study"]), given["passed_on"]) == ("-odd-name", [])


def test_ctrl_c_before_the_first_job_is_one_line(run, monkeypatch, capsys):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("dmlbench.study.preflight.check_before_jobs", interrupt)
    assert run("my.yaml") == 130
    assert capsys.readouterr().err == "tiny: checking the study\ndmlbench: stopped\n"
