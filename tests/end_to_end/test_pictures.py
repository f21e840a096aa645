"""A finished study that asks for pictures gets them, and its leaderboard gets links to them."""

GROUP = "results/tiny/leaderboard/galleries/letters/tiny"


def test_pictures_are_drawn_once_when_they_are_asked_for(finished, tiny):
    tiny["report"] = {"galleries": True, "maps": "pca"}
    finished.write(tiny)
    finished.run()
    page = finished.folder / f"{GROUP}/proxy_anchor.html"
    assert "Failures, the most certain first" in page.read_text("utf-8")
    board = (finished.folder / "results/tiny/leaderboard/leaderboard.html").read_text("utf-8")
    assert 'href="galleries/letters/tiny.html"' in board
    assert finished.json(f"{GROUP}/made.json")["problems"] == {}
    finished.diff({})
