"""Snakemake's output has one line for each job, and the end of the log of one that failed."""

import io
import logging

import pytest
from snakemake.logging import ColorizingTextHandler, DefaultFormatter
from snakemake_interface_logger_plugins.common import LogEvent

from dmlbench.workflow.output import LOG_LINES, shorten_output
from tests.small_disk import KB, small_disk


class Job:
    """A job that runs, or a group of such jobs."""

    def __init__(self, number, retries=0, members=()):
        self.jobid, self.restart_times, self.attempt, self.jobs = number, retries, 1, members
        self.message = f"Train number {number}"

    def is_group(self):
        return bool(self.jobs)


class Workflow:
    """What the output needs of Snakemake's workflow."""

    def __init__(self, *running):
        self.scheduler = self
        self.running, self._user_kill = running, None


@pytest.fixture
def logger():
    """A logger with Snakemake's own handler, which writes to `logger.stream`."""
    logger = logging.Logger("snakemake", logging.INFO)
    logger.stream = io.StringIO()
    handler = ColorizingTextHandler(nocolor=True, stream=logger.stream)
    handler.name = "DefaultStreamHandler"
    handler.setFormatter(DefaultFormatter(set(), show_failed_logs=True))
    logger.addHandler(handler)
    return logger


def start(logger, message, number=1):
    """What Snakemake logs when it starts a job."""
    logger.info("Select jobs to execute...")
    logger.info("Execute 1 jobs...", extra={"event": LogEvent.JOB_STARTED})
    facts = {"rule_msg": message, "jobid": number, "reason": f"Missing: {'file, ' * 999}"}
    facts |= {"rule_name": "all", "local": True, "is_checkpoint": False, "benchmark": None}
    facts |= {key: ["many", "files"] for key in ("input", "output", "log")}
    facts |= {"wildcards": {}, "priority": 0, "threads": 1, "resources": {}}
    logger.info("Rule", extra={"event": LogEvent.JOB_INFO, **facts})


def finish(logger, done, total):
    """What Snakemake logs when a job ended."""
    logger.info("Finished jobid: 1", extra={"event": LogEvent.JOB_FINISHED})
    logger.info("", extra={"event": LogEvent.PROGRESS, "done": done, "total": total})


def test_each_job_is_one_line_with_the_progress(logger):
    shorten_output(logger, Workflow())
    logger.info("Provided cores: 2", extra={"event": LogEvent.RESOURCES_INFO})
    start(logger, "Train rll")
    finish(logger, 1, 3)
    start(logger, "Score rll")
    finish(logger, 2, 3)
    start(logger, None)  # the target `all`
    finish(logger, 3, 3)
    lines = [line for line in logger.stream.getvalue().splitlines() if line]
    assert [line[9:] if line[2] == ":" else line for line in lines] == [
        "Train rll",
        "[1 of 3 done] Score rll",
        "3 of 3 steps (100%) done",
    ]


def fail(logger, log, number=4, indent=False, rule="verdict"):
    """What Snakemake logs when a job failed."""
    facts = {"rule_name": rule, "rule_msg": None, "jobid": number, "conda_env": None, "aux": {}}
    facts |= {"input": ["metrics.json"] * 5000, "output": ["verdict.txt"], "log": [str(log)]}
    facts |= {"shellcmd": f"python -m dmlbench {rule}", "indent": indent}
    logger.error(f"Error in rule {rule}", extra=facts | {"event": LogEvent.JOB_ERROR})


def test_a_failed_job_shows_its_message_and_its_command_and_not_its_thousand_inputs(
    logger, tmp_path
):
    shorten_output(logger, Workflow(Job(4)))
    log = tmp_path / "log.txt"
    log.write_text("epoch 1\nTraceback\ndmlbench: the disk is full\n    Make room.\n")
    logger.error('RuleException:\nCalledProcessError in file "verdict.smk", line 1: ...')
    fail(logger, log)
    text = logger.stream.getvalue()
    assert "Error in rule verdict:" in text
    assert "    | dmlbench: the disk is full\n    |     Make room.\n" in text
    assert "python -m dmlbench verdict\n" in text
    assert len(text.splitlines()) < 16
    for word in ("metrics.json", "RuleException", "message: None", "epoch", "Traceback"):
        assert word not in text


def test_a_job_that_was_killed_shows_the_last_lines_of_its_log(logger, tmp_path):
    shorten_output(logger, Workflow(Job(4)))
    log = tmp_path / "log.txt"
    log.write_text("".join(f"epoch {n}\n" for n in range(900)))
    fail(logger, log)
    text = logger.stream.getvalue()
    assert text.count("    | epoch ") == LOG_LINES
    assert text.rstrip().endswith("    | epoch 899")


def test_a_full_disk_is_said_where_the_job_could_not_write_it(logger, tmp_path):
    shorten_output(logger, Workflow(Job(4)))
    with small_disk(tmp_path / "disk", 4096 * KB) as disk:
        (disk.folder / "log.txt").touch()
        fail(logger, disk.folder / "log.txt")
        assert "disk is full" not in logger.stream.getvalue()
        disk.fill()
        fail(logger, disk.folder / "log.txt")
    assert f"    | {disk.folder}: the disk is full (" in logger.stream.getvalue()


def test_without_show_failed_logs_no_log_is_shown(logger, tmp_path):
    logger.handlers[0].setFormatter(DefaultFormatter(set(), show_failed_logs=False))
    shorten_output(logger, Workflow(Job(4)))
    (tmp_path / "log.txt").write_text("dmlbench: the disk is full\n")
    fail(logger, tmp_path / "log.txt")
    assert "the disk is full" not in logger.stream.getvalue()
    assert "Error in rule verdict:" in logger.stream.getvalue()


def test_a_job_that_goes_on_is_one_line_and_shows_its_log_only_when_it_fails_for_good(
    logger, tmp_path
):
    job = Job(4, retries=2)
    shorten_output(logger, Workflow(job))
    log = tmp_path / "log.txt"
    log.write_text("epoch 1\ntimeout: saved at step 7 of 9\n")
    for attempt in (1, 2):
        job.attempt = attempt
        fail(logger, log)
        logger.info("Trying to restart job 4.")
    lines = [line[9:] for line in logger.stream.getvalue().splitlines() if line]
    how = "Train number 4: ended early (timeout: saved at step 7 of 9); goes on, attempt"
    assert lines == [f"{how} 2 of 3", f"{how} 3 of 3"]
    job.attempt = 3
    fail(logger, log)
    assert "    | epoch 1\n" in logger.stream.getvalue()


def test_a_group_of_jobs_that_goes_on_is_one_line(logger, tmp_path):
    group = Job(9, retries=10, members=[Job(4), Job(5)])
    shorten_output(logger, Workflow(group))
    log, empty = tmp_path / "log.txt", tmp_path / "evaluate.log"
    log.write_text("epoch 1\n")
    infos = [
        {"rule_name": rule, "jobid": number, "output": [], "log": [str(file)]}
        for number, rule, file in ((4, "train", log), (5, "evaluate", empty))
    ]
    facts = {"groupid": "g", "aux_logs": ["slurm.log"], "job_error_info": infos}
    logger.error("Error in group g", extra=facts | {"event": LogEvent.GROUP_ERROR})
    fail(logger, log, 4, indent=True)
    fail(logger, empty, 5, indent=True)
    (line,) = [line[9:] for line in logger.stream.getvalue().splitlines() if line]
    assert line == "Train number 4: ended early (epoch 1); goes on, attempt 2 of 11"


@pytest.mark.parametrize("how", ["Ctrl-C", "SIGTERM"])
def test_a_job_that_was_stopped_with_snakemake_goes_on_at_the_next_call(logger, tmp_path, how):
    workflow = Workflow(Job(4, retries=10))
    shorten_output(logger, workflow)
    if how == "Ctrl-C":
        logger.info("Terminating processes on user request, this might take some time.")
    else:
        workflow._user_kill = "graceful"
    fail(logger, tmp_path / "missing.txt")
    assert (
        logger.stream.getvalue()
        .rstrip()
        .endswith("Train number 4: ended early, without a message; the next call goes on")
    )


def test_other_messages_and_errors_stay(logger):
    shorten_output(logger, Workflow())
    logger.info("Building DAG of jobs...")
    logger.error("RuleException:\nValueError in file x.smk")
    logger.error("WorkflowError:\nAt least one job did not complete successfully.")
    assert logger.stream.getvalue() == (
        "Building DAG of jobs...\n"
        "RuleException:\nValueError in file x.smk\n"
        "WorkflowError:\nAt least one job did not complete successfully.\n"
    )


def test_with_verbose_and_with_other_handlers_snakemake_s_output_stays_as_it_is(logger):
    logger.setLevel(logging.DEBUG)
    formatter = logger.handlers[0].formatter
    shorten_output(logger, Workflow())
    assert logger.handlers[0].formatter is formatter
    logger.setLevel(logging.INFO)
    logger.handlers[0].name = "another plugin"
    shorten_output(logger, Workflow())
    assert logger.handlers[0].formatter is formatter
