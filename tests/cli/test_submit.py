"""`dmlbench submit` finds its profile, or says what is wrong, before it starts anything."""

import subprocess
import sys

import pytest
import yaml

from dmlbench.cli.main import main, parse
from dmlbench.study.study import check_study
from dmlbench.utils.errors import WrongEnvironment
from dmlbench.utils.modules import PACKAGE
from dmlbench.workflow import submit
from dmlbench.workflow.driver import hold_driver_file


@pytest.fixture
def call(tiny, tmp_path, monkeypatch, capfd):
    """Call `dmlbench submit my.yaml`; its exit code or message, and its output."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my.yaml").write_text(yaml.safe_dump(tiny))

    def run(*arguments):
        with pytest.raises(SystemExit) as ended:
            main(["submit", "my.yaml", *arguments])
        return ended.value.code, capfd.readouterr().out

    return run


def test_the_shipped_profile_is_the_default_and_a_folder_of_the_user_comes_first(tmp_path, call):
    assert parse(["submit", "my.yaml"]).profile == "slurm"
    assert submit.find_profile("slurm") == PACKAGE.parent / "profiles/slurm"
    (tmp_path / "slurm").mkdir()
    (tmp_path / "slurm/config.yaml").write_text("executor: local\n")
    assert submit.find_profile("slurm") == tmp_path / "slurm"
    with pytest.raises(WrongEnvironment) as error:
        submit.find_profile("nowhere")
    assert str(error.value).startswith(
        "--profile nowhere: there is no folder nowhere with a profile"
    )
    assert str(error.value).endswith("the profiles here: cluster-generic, default, slurm.")


def test_the_executor_is_that_of_the_arguments_or_of_the_profile(tmp_path):
    assert submit.find_executor(tmp_path, []) == "local"
    (tmp_path / "profile.yaml").write_text("executor: touch\nslurm-status-command: ?ask()\n")
    assert submit.find_executor(tmp_path, ["--jobs", "3"]) == "touch"
    assert submit.find_executor(tmp_path, ["--executor", "local"]) == "local"
    for text in ("cores: all\n", "", "- executor\n", "a: [\n"):
        (tmp_path / "profile.yaml").write_text(text)
        assert submit.find_executor(tmp_path, []) == "local"
    (tmp_path / "profile.yaml").write_text("executor: kubernetes-x\n")
    with pytest.raises(
        WrongEnvironment, match="pip install snakemake-executor-plugin-kubernetes-x"
    ):
        submit.find_executor(tmp_path, [])


def test_without_slurm_on_this_machine_nothing_is_started(tmp_path, monkeypatch):
    (tmp_path / "profile.yaml").write_text("executor: slurm\n")
    monkeypatch.setattr(submit.importlib.util, "find_spec", lambda name: True)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(WrongEnvironment, match="this machine has no command squeue"):
        submit.find_executor(tmp_path, [])


def test_a_study_with_a_driver_gets_no_second_one(call, tiny, tmp_path):
    study = check_study(tiny, "my.yaml")
    with hold_driver_file(study, study.files.submit_log):
        code, output = call("--detach")
    assert code == 0
    assert output.startswith("tiny: `dmlbench submit` works on it already: process ")
    assert not study.files.submit_log.exists()


def test_a_driver_is_a_process_of_its_own_whose_log_and_exit_code_are_passed_on(call, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/profile.yaml").write_text("executor: local\n")
    # a second start would only repeat that Snakemake refuses the option
    code = (
        "from dmlbench.workflow import supervisor; supervisor.MAX_IDLE_STARTS = 1\n"
        "from dmlbench.cli.main import main; main()\n"
    )
    arguments = ["submit", "my.yaml", "--profile", "mine", "--", "--no-such-option"]
    command = [sys.executable, "-c", code, *arguments]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert ended.returncode == 2
    assert "unrecognized arguments: --no-such-option" in ended.stdout
    assert "gave up: 1 start in a row got the study no further" in ended.stdout
    assert (tmp_path / "results/tiny/logs/submit.log").read_text() == ended.stdout


def test_what_would_be_submitted_is_shown_by_partition(call, tiny, tmp_path):
    tiny["cluster"] = {"partition": "gpu", "cpu_partition": "cpu"}
    (tmp_path / "my.yaml").write_text(yaml.safe_dump(tiny))
    code, output = call("--dry-run")
    lines = output.splitlines()
    assert code == 0
    assert lines[0] == "tiny: would submit 4 jobs"  # two trainings, a control, and its images
    table = {line.split()[0]: line.split()[1] for line in lines[2:5]}
    assert table == {"partition": "jobs", "cpu": "2", "gpu": "2"}
    assert lines[-1] == "On this machine: build_leaderboard 1, verdict 1."
    assert not (tmp_path / "results").exists()
