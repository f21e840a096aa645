"""Names are shown as text, whatever they are, and pages say what they were made from."""

import html
import json
import re

import pytest

from dmlbench.gallery.comparison import DifferencesPage
from dmlbench.gallery.examples import ConfusedClasses, Example, GalleryPage, Thumbnail
from dmlbench.gallery.page import read_key, render_differences, render_gallery

HOSTILE = "</script><img src=x onerror=alert(1)>'\"&"


def gallery(name, key="0123456789abcdef"):
    query, near = Thumbnail(0, 0, name), Thumbnail(1, 0, name, "wrong")
    content = {
        **{"points": "", "labels": "", "right": "", "classes": [name], "levels": {name: [0]}},
        **{"count": 0, "side": 32, "columns": 8, "sheet": name, "caption": name, "left_out": 1},
    }
    return GalleryPage(
        "made",
        "letters/tiny/htl",
        title=name,
        key=key,
        facts=[name],
        groups={name: [Example(query, [near], near, name)]},
        confused=[ConfusedClasses(query, near, 1, 2)],
        sheet=b"x",
        side=80,
        map=content,
        problem=name,
    )


def differences(name):
    data = {"losses": [], "classes": [name], "queries": [], "sizes": [1], "scores": []}
    return DifferencesPage("made", "letters/tiny", name, ["htl"], {"rll": name}, data)


@pytest.mark.parametrize(
    ("page", "kind"),
    [
        (render_gallery(gallery(HOSTILE)), "map"),
        (render_differences(differences(HOSTILE)), "differences"),
    ],
)
def test_names_that_are_html_are_text(page, kind):
    assert "<img" not in page
    assert html.escape(HOSTILE, quote=False) in page.replace("&#39;", "'").replace("&#34;", '"')
    data = re.search(rf'id="{kind}-data">(.*?)</script>', page, re.DOTALL)[1]
    assert json.loads(data)["classes"] == [HOSTILE]


def test_a_page_says_its_key_and_one_without_pictures_has_none(tmp_path):
    file = tmp_path / "page.html"
    assert read_key(file) == ""
    file.write_text(render_gallery(gallery("htl")), "utf-8")
    assert read_key(file) == "0123456789abcdef"
    file.write_text(render_gallery(gallery("htl", key="")), "utf-8")
    assert read_key(file) == ""
