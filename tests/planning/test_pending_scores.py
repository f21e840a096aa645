"""The scores of single queries are pending if they are damaged, or missing when they are needed."""

import pytest

from dmlbench.planning.pending import Pending, Reason, add_missing, find_changed, read_results

PATH = "letters/tiny/proxy_anchor/seed0"
REASON = Reason("for a test")


@pytest.fixture
def files(finished):
    """The files of a run that kept its queries."""
    files = finished.files.run(PATH)
    files.queries.write_bytes(b"queries")
    files.write_metrics(files.load_metrics(), files.load_run())
    return files


def test_damaged_scores_of_single_queries_are_computed_again(finished, files):
    assert "evaluate" not in find_changed(finished, read_results(finished)).counts
    files.queries.write_bytes(b"Queries")
    pending = find_changed(finished, read_results(finished))
    assert pending.evaluate == {PATH: ("damaged: queries.parquet", "")}


def test_a_leaderboard_needs_the_scores_of_single_queries(finished, files):
    files.queries.unlink()
    pending = Pending(verdict=REASON)
    add_missing(finished, read_results(finished), pending)
    assert (pending.evaluate, pending.train) == ({}, {})
    pending = Pending(leaderboard=REASON, verdict=REASON)
    add_missing(finished, read_results(finished), pending)
    assert (pending.evaluate, pending.train) == ({PATH: ("no queries.parquet", "")}, {})
