"""Glyphs: printed letters of five scripts, drawn from the fonts inside matplotlib.

A class is a letter (as Latin k, Latin K, Georgian Kan), and its super-class is the script: Latin,
Greek, Cyrillic, Armenian or Georgian. The letters are those that all twelve DejaVu text faces carry
and that have no decomposition (no accents). If several look the same in DejaVu Sans (Latin A, Greek
Alpha, Cyrillic A), only the first is a class. Each face draws each letter twice, under a small
affine distortion; the four STIXGeneral faces do the same with the letters that they carry. White on
black. Made for this benchmark: small enough for a laptop, with natural super-classes and a
variation that is known.

Access: nothing to download. Fonts: DejaVu (Bitstream Vera licence, changes in the public domain)
and STIX (SIL Open Font Licence); both licences are in the folder of the fonts.

Split: half of the classes of every script train, the other half test.
"""

from __future__ import annotations

import math
import random
import unicodedata
from collections.abc import Iterator, Mapping
from functools import cache, partial
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image, ImageDraw, ImageFont

from dmlbench.datasets import Row
from dmlbench.datasets.archives.spec import Archive
from dmlbench.utils.errors import DatasetError

if TYPE_CHECKING:
    from dmlbench.datasets.decoding import Source

FACTS = {"version": 1, "channels": 1, "levels": ["script"], "recall_at": [1, 2, 4, 8]}
ABOUT = {"train": [267, 7502], "test": [270, 7628]}  # by the fonts of matplotlib 3.11
SOURCES: dict[str, Archive] = {}

DEJAVU = [
    f"DejaVu{family}{style}"
    for family, slanted in (("Sans", "Oblique"), ("SansMono", "Oblique"), ("Serif", "Italic"))
    for style in ("", "-Bold", f"-{slanted}", f"-Bold{slanted}")
]
STIX = ["STIXGeneral", "STIXGeneralBol", "STIXGeneralItalic", "STIXGeneralBolIta"]
SCRIPTS = ("LATIN", "GREEK", "CYRILLIC", "ARMENIAN", "GEORGIAN")
COPIES = 2

EM = 0.72
"""Size of the font as a share of the image's side: capitals are 0.73 of it high."""
BASELINE = 0.7
"""Distance of the baseline from the top, as a share of the side."""
ROTATION = math.radians(10)
SHEAR = 0.1
SCALE = math.log(1.12)
SHIFT = 0.06
"""ROTATION, SHEAR, SCALE and SHIFT are the largest distortions; SHIFT is a share of the side."""


def images(archives: Mapping[str, Path]) -> Iterator[tuple[Row, Source]]:
    """Yield every letter in every face that carries it."""
    folder = _font_folder()
    carried = {face: _characters(folder, face) for face in DEJAVU + STIX}
    letters = _choose_letters(folder, set.intersection(*(carried[face] for face in DEJAVU)))
    for letter, split in _split_letters(letters).items():
        code, script = f"U+{ord(letter):04X}", _script(letter).title()
        class_name = f"{code} {unicodedata.name(letter)}"
        for face in DEJAVU + STIX:
            if letter in carried[face]:
                for copy in range(COPIES):
                    path = f"{code}/{face}-{copy}"
                    yield (
                        Row(path, class_name, (script,), split),
                        partial(draw, folder / f"{face}.ttf", letter, copy),
                    )


def draw(face: Path, letter: str, copy: int, side: int) -> Image.Image:
    """One letter, gray, side x side pixels.

    The distortion depends only on face, letter and copy, so every side and every process shows the
    same drawing.
    """
    generator = random.Random(f"{face.stem} {letter} {copy}")
    angle = generator.uniform(-ROTATION, ROTATION)
    shear = generator.uniform(-SHEAR, SHEAR)
    wide, high = (math.exp(generator.uniform(-SCALE, SCALE)) for _ in range(2))
    right, down = (generator.uniform(-SHIFT, SHIFT) for _ in range(2))

    fine = 2 * side  # drawn at twice the side, then averaged: this smooths the edges
    image = Image.new("L", (fine, fine))
    font = _font(face, round(EM * fine))
    position = (fine / 2, BASELINE * fine)
    ImageDraw.Draw(image).text(position, letter, fill=255, font=font, anchor="ms")
    # the map from a pixel of the result back to the drawing, about the centre
    cos, sin = math.cos(angle), math.sin(angle)
    a, b = cos / wide + shear * sin / wide, -sin / wide + shear * cos / wide
    c, d = sin / high, cos / high
    x, y = (0.5 + right) * fine, (0.5 + down) * fine
    inverse = (a, b, fine / 2 - a * x - b * y, c, d, fine / 2 - c * x - d * y)
    image = image.transform((fine, fine), Image.Transform.AFFINE, inverse, Image.Resampling.BICUBIC)
    return image.reduce(2)


def _font_folder() -> Path:
    """The folder of matplotlib's fonts; DatasetError if some are missing."""
    import matplotlib

    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    if missing := [face for face in DEJAVU + STIX if not (folder / f"{face}.ttf").is_file()]:
        raise DatasetError(
            f"glyphs: {folder} lacks {', '.join(missing)}, which matplotlib's own package has: "
            f"pip install --force-reinstall matplotlib"
        )
    return folder


@cache
def _font(face: Path, size: int) -> ImageFont.FreeTypeFont:
    # every build of Pillow has the basic layout
    return ImageFont.truetype(str(face), size, layout_engine=ImageFont.Layout.BASIC)


def _characters(folder: Path, face: str) -> set[str]:
    """The characters that the font of `face` carries."""
    from fontTools.ttLib import TTFont

    with TTFont(folder / f"{face}.ttf", lazy=True) as font:
        return {chr(code) for code in font.getBestCmap()}


def _script(letter: str) -> str:
    return unicodedata.name(letter, "").partition(" ")[0]


def _choose_letters(folder: Path, characters: set[str]) -> list[str]:
    """The letters among `characters` that are classes, sorted by code point."""
    font = _font(folder / "DejaVuSans.ttf", 64)
    by_look: dict[bytes, str] = {}
    for letter in sorted(characters):
        if (
            unicodedata.category(letter).startswith("L")
            and _script(letter) in SCRIPTS
            and not unicodedata.decomposition(letter)
        ):
            image = Image.new("1", (128, 128))  # 1 bit: shades do not count
            ImageDraw.Draw(image).text((32, 96), letter, fill=1, font=font, anchor="ls")
            by_look.setdefault(image.tobytes(), letter)
    return list(by_look.values())


def _split_letters(letters: list[str]) -> dict[str, str]:
    """The split of each letter: half of each script, chosen by digests, trains."""
    split = dict.fromkeys(letters, "test")
    for script in SCRIPTS:
        members = [letter for letter in letters if _script(letter) == script]
        members.sort(key=lambda letter: sha256(f"glyphs {letter}".encode()).digest())
        split.update(dict.fromkeys(members[: len(members) // 2], "train"))
    return split
