"""docs/screenshots.py: pictures of pages in their sizes, and what is left out is named."""

import subprocess
import sys
from pathlib import Path

from PIL import Image

from ..leaderboard.browser import needs_browser

SCRIPT = Path(__file__).parents[2] / "docs/screenshots.py"
RED, BLUE = (255, 0, 0), (0, 0, 255)
PAGE = """<!doctype html><style>body {{ background: {colour}; margin: 0 }}
@media (prefers-color-scheme: dark) {{ body {{ background: blue }} }}
#map {{ margin-top: 3000px; height: 900px; background: blue }}</style>{body}"""


def run(*arguments):
    command = [sys.executable, SCRIPT, *arguments]
    return subprocess.run(command, capture_output=True, text=True)


@needs_browser
def test_it_takes_the_pages_that_are_there_and_names_the_others(tmp_path):
    folder = tmp_path / "made/leaderboard"
    pages = {"leaderboard": '<a href="cells/a/b/htl.html"></a>', "galleries/a/b/htl": "<p id=map>"}
    for name, body in pages.items():
        file = folder / f"{name}.html"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(PAGE.format(colour="red", body=body))
    done = run(tmp_path / "made", "--out", tmp_path / "images")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("left out") == 1
    assert f"left out: cell: there is no {folder / 'cells/a/b/htl.html'}" in done.stdout
    seen = {}
    for file in (tmp_path / "images").glob("*.png"):
        picture = Image.open(file).convert("RGB")
        seen[file.stem] = (picture.size, picture.getpixel((100, 100)))
        assert file.stat().st_size < 250_000
    laptop = (1400, 900)
    assert seen == {
        "first_screen": (laptop, RED),
        "first_screen_dark": (laptop, BLUE),
        "phone": ((390, 844), RED),
        "gallery": (laptop, RED),
        "map": (laptop, BLUE),
    }


def test_a_study_without_a_page_is_an_error(tmp_path):
    done = run(tmp_path)
    assert done.returncode == 1
    assert "leaderboard.html" in done.stderr or "browser" in done.stderr
