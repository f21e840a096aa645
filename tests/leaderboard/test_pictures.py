import os
import time
import xml.etree.ElementTree as ElementTree
from functools import partial

import pytest
from matplotlib.figure import Figure

from dmlbench.leaderboard.build import build
from dmlbench.leaderboard.pictures import draw_all, drawing
from dmlbench.leaderboard.plots.figure import new_figure, text_figure
from dmlbench.utils.errors import DiskError, UserError


def words(svg):
    return " ".join(" ".join(ElementTree.parse(svg).getroot().itertext()).split())


def figures_of(*texts):
    return lambda: map(text_figure, texts)


def test_a_plot_of_several_figures_is_several_pictures(tmp_path):
    pictures, failed = draw_all({"time": figures_of("first", "second")}, tmp_path)
    assert [picture.name for picture in pictures] == ["time", "time-2"]
    assert [words(picture.svg).split()[-1] for picture in pictures] == ["first", "second"]
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "time-2.pdf", "time-2.png", "time-2.svg", "time.pdf", "time.png", "time.svg",
    ]  # fmt: skip
    assert not failed


def fail(error):
    raise error


def test_several_processes_write_the_same_files_in_the_same_order(tmp_path, capfd):
    plots = {name: partial(map, text_figure, [name, "more"]) for name in "dcba"}
    plots["b"] = partial(fail, ValueError("no such font"))
    one, two = (draw_all(plots, tmp_path / str(workers), workers) for workers in (1, 2))
    assert [picture.name for picture in two[0]] == ["d", "d-2", "c", "c-2", "b", "a", "a-2"]
    assert one[1] == two[1] == {"b": "ValueError: no such font"}
    contents = [
        {file.name: file.read_bytes() for file in (tmp_path / folder).iterdir()} for folder in "12"
    ]
    assert contents[0] == contents[1]
    assert len(contents[0]) == 21
    assert capfd.readouterr().err.count("in fail\n") == 2  # the trace is printed here, too


def test_others_draw_while_the_caller_works(tmp_path):
    with drawing({"time": partial(map, text_figure, ["now"])}, tmp_path, workers=2) as finish:
        deadline = time.monotonic() + 60
        while not (tmp_path / "time.pdf").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert (tmp_path / "time.pdf").exists()
        pictures, _ = finish()
    assert [picture.name for picture in pictures] == ["time"]


def test_figures_are_made_one_at_a_time(tmp_path):
    written = []

    def figures():
        for number in range(3):
            written.append(len([*tmp_path.glob("*.svg")]))
            yield text_figure(str(number))

    draw_all({"time": figures}, tmp_path)
    assert written == [0, 1, 2]


def test_a_plot_that_cannot_be_drawn_costs_only_itself_and_its_picture_says_why(tmp_path):
    def fail():
        yield new_figure(1)
        raise ValueError("no such\n$font$")

    pictures, failed = draw_all({"time": fail, "recall": figures_of("fine")}, tmp_path)
    assert [picture.name for picture in pictures] == ["time", "recall"]
    assert failed == {"time": "ValueError: no such $font$"}
    assert "time could not be drawn: ValueError: no such $font$" in words(pictures[0].svg)
    assert words(pictures[1].svg).endswith("fine")


def test_a_figure_that_cannot_be_saved_leaves_no_half_picture(tmp_path, monkeypatch):
    def fail(figure, file, **_):
        file.write_bytes(b"half")
        raise RuntimeError("no renderer")

    draw_all({"time": figures_of("old")}, tmp_path)
    before = (tmp_path / "time.png").read_bytes()
    monkeypatch.setattr(Figure, "savefig", fail)
    with pytest.raises(RuntimeError, match="no renderer"):  # the picture that says so fails, too
        draw_all({"time": figures_of("new")}, tmp_path)
    assert (tmp_path / "time.png").read_bytes() == before
    assert len([*tmp_path.iterdir()]) == 3


def test_a_full_disk_is_no_failure_of_a_plot(tmp_path):
    def fail():
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        draw_all({"time": fail}, tmp_path)


def test_pictures_without_a_successor_are_removed_and_so_are_empty_folders(tmp_path):
    draw_all({"recall": figures_of("1", "2"), "trees/a/b/htl": figures_of("tree")}, tmp_path)
    draw_all({"recall": figures_of("1")}, tmp_path)
    left = sorted(str(file.relative_to(tmp_path)) for file in tmp_path.rglob("*"))
    assert left == ["recall.pdf", "recall.png", "recall.svg"]


def test_a_leaderboard_without_one_plot_is_whole_and_says_which(study, tmp_path, monkeypatch):
    def fail(*_):
        raise ZeroDivisionError("by <zero>")

    monkeypatch.setattr("dmlbench.leaderboard.plots.time.time", fail)
    results = study(("htl",))
    failed = build("made", results.runs, results.files, tmp_path / "out")
    assert failed == {"time": "ZeroDivisionError: by <zero>"}
    assert "could not be drawn" in words(tmp_path / "out/plots/time.svg")
    assert "Recall@K" in words(tmp_path / "out/plots/recall_curves.svg")
    markdown = (tmp_path / "out/leaderboard.md").read_text()
    assert "- the plot \\`time\\` could not be drawn: ZeroDivisionError: by \\<zero\\>." in markdown
    page = (tmp_path / "out/leaderboard.html").read_text()
    assert "<p>the plot `time` could not be drawn: ZeroDivisionError: by &lt;zero&gt;." in page


def test_a_full_disk_and_a_killed_process_are_said_when_others_draw(tmp_path):
    full = DiskError("disk_full", "there is no room")
    with pytest.raises(DiskError, match="there is no room") as raised:
        draw_all({"time": partial(fail, full)}, tmp_path, workers=2)
    assert raised.value.status == "disk_full"
    with pytest.raises(UserError, match="was killed: often the machine has too little memory"):
        draw_all({"time": partial(os._exit, 9)}, tmp_path, workers=2)
