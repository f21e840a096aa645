"""A study's track, its remarks and what it leaves out, in real Snakemake runs."""

LEADERBOARD = "results/tiny/leaderboard"


def test_the_track_and_remarks_only_rebuild_the_table(finished, tiny):
    compared = finished.folder / LEADERBOARD / "published_comparison.csv"
    remarks = {"unconfirmed": {"recipe.lr": "from memory"}}
    finished.write(tiny | {"track": "paper"} | remarks)
    finished.diff({"build_leaderboard": 1, "verdict": 1})
    finished.run()
    assert compared.is_file()
    page = (finished.folder / LEADERBOARD / "leaderboard.md").read_text()
    assert "- `recipe.lr`: from memory" in page
    assert finished.planned() == {}
    finished.write(tiny)
    finished.run()
    assert not compared.exists()


def test_an_excluded_loss_has_no_job_and_no_row(finished, tiny):
    tiny["plan"]["exclude"] = [{"dataset": "letters", "loss": "proxy_anchor"}]
    finished.write(tiny)
    finished.diff({"build_leaderboard": 1, "verdict": 1})
    finished.run()
    page = (finished.folder / LEADERBOARD / "leaderboard.md").read_text()
    assert "proxy_anchor" not in page
    assert "| normalized_softmax |" in page
