"""The pictures of the leaderboard's pages in the documentation, from the pages of a finished study.

    python docs/screenshots.py                      # of results/demo
    python docs/screenshots.py results/mine --out /tmp/images

It opens the pages in a headless Chromium at the size of a laptop or a phone, and writes PNGs of few
colours. The pages of a loss are those of the first row of the first table: the best. A picture
whose page is not there is left out, and named.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

from PIL import Image

ROOT = Path(__file__).parents[1]
NAMES = ("chromium", "chromium-browser", "google-chrome")
OPTIONS = ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run",
           "--disable-background-networking", "--virtual-time-budget=5000")  # fmt: skip
DARK = "--blink-settings=preferredColorScheme=0"
LAPTOP, PHONE = (1400, 900), (390, 844)
ROOM = 200
"""Pixels by which a window is larger than a frame in it."""
COLOURS = (256, 128, 64, 32)
"""They are tried in turn, until the file is small enough."""
MOST_BYTES = 250_000


class Shot(NamedTuple):
    name: str
    page: Path
    fragment: str = ""
    size: tuple[int, int] = LAPTOP
    is_dark: bool = False


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("study", type=Path, nargs="?", default=ROOT / "results/demo")
    parser.add_argument("--out", type=Path, default=ROOT / "docs/images")
    options = parser.parse_args()
    browser = next(filter(None, map(shutil.which, NAMES)), None)
    if not browser:
        sys.exit(f"There is no browser here: one of {', '.join(NAMES)}.")
    folder = options.study.resolve() / "leaderboard"
    if not (folder / "leaderboard.html").is_file():
        sys.exit(f"{folder} has no leaderboard.html: dmlbench run makes it.")
    options.out.mkdir(parents=True, exist_ok=True)
    for shot in shots(folder):
        if not shot.page.is_file():
            print(f"left out: {shot.name}: there is no {shot.page}")
            continue
        file = options.out / f"{shot.name}.png"
        take(browser, shot, file)
        print(f"{file}: {file.stat().st_size / 1000:.0f} kB")


def shots(folder: Path) -> Iterator[Shot]:
    """The pictures of the pages in the folder `leaderboard` of a study."""
    page = folder / "leaderboard.html"
    cell = first_cell(page)
    gallery = folder / f"galleries/{cell}.html"
    yield Shot("first_screen", page)
    yield Shot("first_screen_dark", page, is_dark=True)
    yield Shot("phone", page, size=PHONE)
    yield Shot("cell", folder / f"cells/{cell}.html")
    yield Shot("gallery", gallery, "#group1")
    yield Shot("map", gallery, "#map")


def first_cell(page: Path) -> str:
    """dataset/backbone/loss of the first link to a cell on the page: the first row's."""
    link = re.search(r'href="cells/([^"]+)\.html"', page.read_text("utf-8"))
    if not link:
        sys.exit(f"{page} links to no page of a loss.")
    return unquote(link[1])


def take(browser: str, shot: Shot, file: Path) -> None:
    """Write the picture of a page, with as many colours as `MOST_BYTES` allow."""
    width, height = shot.size
    with tempfile.TemporaryDirectory() as scratch:
        raw, frame = Path(scratch) / "raw.png", Path(scratch) / "frame.html"
        # A window is at least 500 pixels wide, and its picture begins at the top of its page. In a
        # frame, a page can be narrower, and can be scrolled to the place that its address names.
        frame.write_text(
            f"<!doctype html><style>body {{ margin: 0 }}</style>"
            f'<iframe src="{shot.page.as_uri()}{shot.fragment}" '
            f'style="width: {width}px; height: {height}px; border: 0"></iframe>'
        )
        command = [browser, *OPTIONS, *([DARK] if shot.is_dark else []),
                   f"--user-data-dir={scratch}/profile", f"--screenshot={raw}",
                   f"--window-size={width + ROOM},{height + ROOM}", frame.as_uri()]  # fmt: skip
        subprocess.run(command, check=True, capture_output=True)
        picture = Image.open(raw).convert("RGB").crop((0, 0, width, height))
    for colours in COLOURS:
        few = picture.quantize(colours, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
        few.save(file, optimize=True)
        if file.stat().st_size <= MOST_BYTES:
            return
    sys.exit(f"{file} has {file.stat().st_size:,} bytes with {colours} colours.")


if __name__ == "__main__":
    main()
