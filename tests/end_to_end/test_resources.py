"""What the jobs get on one machine."""


def test_on_one_machine_a_training_has_no_time_limit_and_no_job_is_in_a_group(project):
    output = project.run("--dry-run", "--printshellcmds")
    commands = [line for line in output.splitlines() if " train results/tiny/study.json" in line]
    assert len(commands) == 3
    assert not [line for line in commands if "--max-minutes" in line]
    assert "roup job" not in output
