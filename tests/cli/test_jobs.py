from argparse import Namespace

import pytest

from dmlbench.cli import jobs


@pytest.mark.parametrize(
    ("failed", "is_job", "code"),
    [({}, False, 0), ({"time": "ValueError: no font"}, False, 1), ({"time": "E: x"}, True, 0)],
)
def test_a_person_gets_an_error_for_a_plot_that_cannot_be_drawn_and_snakemake_keeps_the_table(
    monkeypatch, capsys, failed, is_job, code
):
    monkeypatch.setattr(jobs, "read", lambda options: "study")
    monkeypatch.setattr("dmlbench.leaderboard.build.build_leaderboard", lambda study: failed)
    assert jobs._leaderboard(Namespace(job=is_job)) == code
    lines = [f"the plot `{name}` could not be drawn: {why}." for name, why in failed.items()]
    assert capsys.readouterr().out.splitlines() == lines
