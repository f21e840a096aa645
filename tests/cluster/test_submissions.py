"""What Snakemake asks a scheduler for, seen by stand-ins for the commands of the schedulers."""

import importlib.util
import os
import re
import stat
import subprocess
from pathlib import Path

import pytest

from ..project import Project, copy_project

SBATCH = """#!/bin/sh
printf '%s\\n' "$*" >> submitted
echo "refused: this is a stand-in" >&2
exit 1
"""
SCONTROL = """#!/bin/sh
echo "AccountingStorageType   = accounting_storage/none"
echo "MinJobAge               = 300 sec"
echo "MaxArraySize            = 1001"
"""
NOTHING = "#!/bin/sh\n"
# As those of PBS: a job is a process, which gets SIGTERM and then SIGKILL
QSUB = """#!/bin/sh
echo "$*" >> submitted
for script; do :; done
number=$(wc -l < submitted)
mkdir -p jobs
setsid sh -c 'sh "$1"; echo $? > jobs/$2.exit' - "$script" "$number" > jobs/$number.log 2>&1 &
echo $! > jobs/$number.process
echo "$number.server"
"""
QSTAT = """#!/bin/sh
for job; do :; done
number=${job%.server}
[ -e jobs/$number.process ] || { echo "qstat: Unknown Job Id $job" >&2; exit 153; }
echo "Job Id: $job"
if [ -e jobs/$number.exit ]; then
  echo "    job_state = F"
  echo "    Exit_status = $(cat jobs/$number.exit)"
else
  echo "    job_state = R"
fi
"""
QDEL = """#!/bin/sh
for job; do
  number=${job%.server}
  kill -TERM -$(cat jobs/$number.process)
  echo 271 > jobs/$number.exit
done
"""


def stand_in(project, folder, commands):
    """Put these commands first in PATH."""
    folder.mkdir()
    for name, script in commands.items():
        (folder / name).write_text(script)
        (folder / name).chmod(0o755)
    path = f"{folder}:{project.environment['PATH']}"
    project.environment |= {"PATH": path, "PYTHONPATH": os.pathsep.join(plugins())}
    return project


def plugins():
    """The folders of Snakemake's plugins for clusters; the test is skipped if they are missing."""
    folders = {}
    for name in ("slurm", "cluster_generic"):
        found = importlib.util.find_spec(f"snakemake_executor_plugin_{name}")
        if not found:
            pytest.skip(f"no snakemake-executor-plugin-{name}: make test-cluster installs it")
        folders[str(Path(found.origin).parents[1])] = None
    return [*folders]


@pytest.fixture
def project(tmp_path, data_folder, tiny):
    project = Project(copy_project(tmp_path / "made"), data_folder)
    project.write(tiny)
    return project


@pytest.fixture
def slurm(project, tmp_path):
    """A project on a login node: it has no GPU, and its sbatch refuses all jobs."""
    names = ("sacct", "sacctmgr", "scancel", "sinfo", "squeue", "sshare")
    commands = dict.fromkeys(names, NOTHING) | {"sbatch": SBATCH, "scontrol": SCONTROL}
    return stand_in(project, tmp_path / "bin", commands)


def submitted(project):
    """The options of each submission, by the comment that names its job."""
    lines = (project.folder / "submitted").read_text().splitlines()
    options = [line.partition(" --wrap")[0] for line in lines]
    return {re.search(r"--comment (\S+)", line)[1]: line for line in options}


# beside any --profile, Snakemake also uses profiles/default
@pytest.mark.parametrize("option", ["--workflow-profile", "--profile"])
def test_a_machine_without_gpus_and_with_one_core_limits_no_job(slurm, tiny, option):
    tiny["cluster"] = {"partition": "gpu", "cpu_partition": "cpu", "account": "lab"}
    slurm.write(tiny | {"cluster": tiny["cluster"] | {"cores_per_gpu": 6, "max_minutes": 60}})
    quick = ("--slurm-init-seconds-before-status-checks", "1", "--retries", "0")
    slurm.run(option, "profiles/slurm", *quick, cores=1, expect=1)
    run = "rule_run_letters_tiny_{}_0_evaluate_train"
    jobs = submitted(slurm)
    assert jobs.keys() == {
        run.format(loss) for loss in ("normalized_softmax", "proxy_anchor", "control_random")
    }
    for option in ("-A lab", "-p gpu", "-t 20", "--mem 5600", "--cpus-per-task=6", "--gpus=1"):
        assert option in jobs[run.format("proxy_anchor")]
    for option in ("-A lab", "-p cpu", "-t 15", "--mem 1800", "--cpus-per-task=1", "--ntasks=1"):
        assert option in jobs[run.format("control_random")]
    assert "--gpus" not in jobs[run.format("control_random")]
    for options in jobs.values():
        assert "--signal=TERM@120" in options
        assert "--requeue" in options
        assert "--array" not in options
        assert options.startswith("--parsable --job-name dmlbench_")


def test_a_gpu_may_be_asked_for_as_gres_of_a_type_and_scores_may_be_jobs_of_their_own(slurm, tiny):
    cluster = {"gpu_request": "gres", "gpu_type": "a100", "constraint": "nvlink"}
    tiny["plan"] |= {"losses": ["proxy_anchor"], "controls": []}
    slurm.write(tiny | {"cluster": cluster | {"score_with_training": False, "qos": "long"}})
    quick = ("--slurm-init-seconds-before-status-checks", "1", "--retries", "0")
    slurm.run("--workflow-profile", "profiles/slurm", *quick, expect=1)
    ((comment, options),) = submitted(slurm).items()
    assert comment == "rule_train_wildcards_letters_tiny_proxy_anchor_0"
    for option in ("--gres=gpu:a100:1", "-C nvlink", "--qos=long", "--cpus-per-task=4"):
        assert option in options
    assert "--gpus" not in options


def test_a_study_is_completed_by_qsub_and_its_like_also_if_a_job_is_deleted(
    project, tmp_path, tiny
):
    tiny["plan"] |= {"losses": ["proxy_anchor"], "controls": ["random"]}
    project.write(tiny | {"cluster": {"cores_per_gpu": 2, "max_minutes": 60}})
    stand_in(project, tmp_path / "bin", {"qsub": QSUB, "qstat": QSTAT, "qdel": QDEL})
    # the first submission is deleted by its administrator before it begins
    fails_once = QSUB.replace("setsid sh", '[ "$number" = 1 ] && script=/dev/null/gone\nsetsid sh')
    (tmp_path / "bin/qsub").write_text(fails_once)
    project.run("--workflow-profile", "profiles/cluster-generic")
    lines = (project.folder / "submitted").read_text().splitlines()
    asked = sorted(re.search(r"select=(\S+) -l (\S+)", line).groups() for line in lines)
    first = {("1:ncpus=2:mem=5600mb:ngpus=1", "walltime=20:00")}
    control = {("1:ncpus=1:mem=1800mb:ngpus=0", "walltime=15:00")}
    assert len(asked) == 3  # one of the two jobs, twice
    assert first <= {*asked}
    assert control <= {*asked}
    assert project.metrics().keys() == {
        f"results/tiny/runs/letters/tiny/{loss}/seed0/metrics.json"
        for loss in ("proxy_anchor", "control_random")
    }


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        ("job_state = R", "running"),
        ("job_state = Q", "running"),
        ("job_state = F\n    Exit_status = 0", "success"),
        ("job_state = F\n    Exit_status = 271", "failed"),
        ("Exit_status = 0\n    job_state = F", "success"),
        ("qstat: Unknown Job Id 7.server", "failed"),
        ("Connection refused\nqstat: cannot connect to server", "running"),
        ("", "running"),
    ],
)
def test_the_answer_of_qstat_is_understood(tmp_path, project, answer, status):
    (tmp_path / "qstat").write_text(f"#!/bin/sh\ncat <<END\n{answer}\nEND\n")
    (tmp_path / "qstat").chmod(0o755)
    script = project.folder / "profiles/cluster-generic/status.sh"
    assert script.stat().st_mode & stat.S_IXUSR
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    output = subprocess.run([script, "7.server"], env=environment, stdout=-1, text=True, check=True)
    assert output.stdout == f"{status}\n"
