"""Snakemake's output has one line for each job, and all of a job that failed."""

import io
import logging

import pytest
from snakemake.logging import ColorizingTextHandler, DefaultFormatter
from snakemake_interface_logger_plugins.common import LogEvent

from dmlbench.workflow.output import shorten_output


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
    shorten_output(logger)
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


def test_a_failed_job_shows_its_log_and_command_and_not_its_thousand_inputs(logger, tmp_path):
    shorten_output(logger)
    log = tmp_path / "log.txt"
    log.write_text("dmlbench: the disk is full\n")
    logger.error('RuleException:\nCalledProcessError in file "verdict.smk", line 1: ...')
    facts = {"rule_name": "verdict", "rule_msg": None, "jobid": 4, "conda_env": None, "aux": {}}
    facts |= {"input": ["metrics.json"] * 5000, "output": ["verdict.txt"], "log": [str(log)]}
    facts |= {"shellcmd": "python -m dmlbench verdict", "event": LogEvent.JOB_ERROR}
    logger.error("Error in rule verdict", extra=facts)
    logger.warning("Cannot restore verdict.txt: no backup found.")
    logger.warning("Trying to restart job 4.")
    text = logger.stream.getvalue()
    assert "Error in rule verdict:" in text
    assert "dmlbench: the disk is full\n" in text
    assert "python -m dmlbench verdict\n" in text
    assert text.endswith("Trying to restart job 4.\n")
    assert len(text.splitlines()) < 16
    assert "metrics.json" not in text
    assert "RuleException" not in text


def test_other_messages_and_errors_stay(logger):
    shorten_output(logger)
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
    shorten_output(logger)
    assert logger.handlers[0].formatter is formatter
    logger.setLevel(logging.INFO)
    logger.handlers[0].name = "another plugin"
    shorten_output(logger)
    assert logger.handlers[0].formatter is formatter
