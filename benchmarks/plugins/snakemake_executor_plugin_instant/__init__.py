"""A cluster whose jobs end at once: what remains is the time that Snakemake itself needs.

A job's results are written in this process, with numbers that are drawn (benchmarks/many_runs.py).
When Snakemake ends, the seconds of Snakemake and of the jobs are in instant.json.
"""

import json
import resource
import subprocess
import time
from pathlib import Path
from typing import Any

import many_runs
from snakemake_interface_executor_plugins.executors.base import SubmittedJobInfo
from snakemake_interface_executor_plugins.executors.real import RealExecutor
from snakemake_interface_executor_plugins.jobs import JobExecutorInterface
from snakemake_interface_executor_plugins.settings import CommonSettings, ExecMode

from dmlbench.study.study import read_study

common_settings = CommonSettings(
    non_local_exec=True, implies_no_shared_fs=False, job_deploy_sources=False
)
WRITERS = {"train": many_runs.write_training, "evaluate": many_runs.write_scores}
REPORT = Path("instant.json")


class Executor(RealExecutor):
    """Writes the results of a job when it is submitted."""

    def __post_init__(self) -> None:
        self.study = read_study(self.workflow.configfiles[0])
        self.submissions, self.job_seconds = 0, 0.0

    def run_job(self, job: JobExecutorInterface) -> None:
        self.format_job_exec(job)  # the command that a cluster would get
        self.submissions += 1
        info = SubmittedJobInfo(job, external_jobid=str(self.submissions))
        self.report_job_submission(info)
        start = time.thread_time()
        with many_runs.drawn_numbers():
            for part in [*job] if job.is_group() else [job]:
                self._work(part)
        self.job_seconds += time.thread_time() - start
        self.report_job_success(info)

    def _work(self, job: Any) -> None:
        """Do one job that is no group."""
        for file in job.benchmark, *job.log:
            Path(file).parent.mkdir(parents=True, exist_ok=True)
            Path(file).touch()
        if job.rule.name not in WRITERS:  # packing
            subprocess.run(["bash", "-euc", job.shellcmd], check=True)
            return
        names = job.wildcards
        path = f"{names.dataset}/{names.backbone}/{names.loss}/seed{names.seed}"
        WRITERS[job.rule.name](self.study, self.study.run(path))

    def shutdown(self) -> None:
        used = resource.getrusage(resource.RUSAGE_SELF)
        content = {
            "submissions": self.submissions,
            "seconds": used.ru_utime + used.ru_stime - self.job_seconds,
            "memory_mb": used.ru_maxrss / 1024,
        }
        REPORT.write_text(json.dumps(content))

    def cancel(self) -> None:
        """Nothing runs."""

    @property
    def cores(self) -> str:
        return "all"

    def get_python_executable(self) -> str:
        return "python"

    def get_exec_mode(self) -> Any:
        return ExecMode.REMOTE
