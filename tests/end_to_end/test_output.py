"""What a person sees of a call of Snakemake."""

import re


def test_each_job_is_one_line_and_no_line_is_long(finished):
    lines = finished.output.splitlines()
    jobs = [line for line in lines if re.match(r"\d\d:\d\d:\d\d ", line)]
    assert len(jobs) == 8  # of 9 steps, `all` runs nothing
    assert sum("Train " in job for job in jobs) == sum("Score " in job for job in jobs) == 3
    assert "[7 of 9 done] Look whether every run has a result" in jobs[-1]
    assert "9 of 9 steps (100%) done" in lines
    assert len(lines) < 40
    assert max(map(len, lines)) < 200
    assert "Reason" not in finished.output
