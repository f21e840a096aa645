"""Fonts in a PDF hold the letters of the plot, and no tables that only type setting needs."""

import io
import re
import zlib

import pytest
from fontTools.subset import Options
from fontTools.ttLib import TTFont

from dmlbench.leaderboard.plots.figure import save, text_figure
from dmlbench.leaderboard.plots.small_fonts import UNUSED, small_fonts


def embedded_fonts(pdf):
    """The TrueType fonts in a PDF."""
    streams = re.findall(rb"stream\r?\n(.*?)\r?\nendstream", pdf, re.S)
    for stream in streams:
        try:
            content = zlib.decompress(stream)
        except zlib.error:
            continue
        if content[:4] == b"\0\1\0\0":
            yield TTFont(io.BytesIO(content))


def test_an_embedded_font_has_outlines_and_none_of_the_unused_tables(tmp_path):
    save(text_figure("office affine AVATAR"), [tmp_path / "a.pdf"])
    fonts = [*embedded_fonts((tmp_path / "a.pdf").read_bytes())]
    assert fonts
    for font in fonts:
        assert "glyf" in font
        assert [table for table in UNUSED if table in font] == []


def test_the_defaults_of_fonttools_are_as_before_even_after_an_error():
    before = Options().drop_tables
    with small_fonts():
        assert {*UNUSED} < {*Options().drop_tables}
    with pytest.raises(ZeroDivisionError), small_fonts():
        raise ZeroDivisionError
    assert Options().drop_tables == before


def test_a_fonttools_without_that_default_is_left_alone(monkeypatch):
    monkeypatch.delattr(Options, "_drop_tables_default")
    with small_fonts():
        assert not hasattr(Options, "_drop_tables_default")
