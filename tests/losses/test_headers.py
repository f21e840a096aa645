"""The list and the table of losses are what their files' headers say."""

import subprocess
import sys
from pathlib import Path

import pytest

from dmlbench import source
from dmlbench.cli import main
from dmlbench.losses import list_losses
from dmlbench.losses._headers import header

PAGE = Path(__file__).parents[2] / "docs/losses.md"


@pytest.fixture
def listed(capsys):
    def call(*arguments):
        with pytest.raises(SystemExit) as ended:
            main(["list", "losses", *arguments])
        assert not ended.value.code
        return capsys.readouterr().out

    return call


def test_the_page_of_the_docs_is_written_from_the_headers(listed):
    assert PAGE.read_text("utf-8") == listed("--markdown"), (
        "run: dmlbench list losses --markdown > docs/losses.md"
    )


def test_the_list_shows_names_and_titles(listed):
    rows = [line.split(maxsplit=1) for line in listed().splitlines()]
    assert [name for name, _ in rows] == list_losses()
    assert ["rll", "Ranked List Loss for Deep Metric Learning"] in rows


@pytest.mark.parametrize("name", list_losses())
def test_each_header_is_whole_and_its_class_is_what_the_file_makes(name):
    found = header(name)
    assert found.title
    assert found.differs.endswith(".")
    assert "\n" not in found.differs
    code = Path(source.__file__).parent / f"losses/{name}.py"
    assert bool(found.wraps) == (
        "pytorch_metric_learning" in code.read_text("utf-8").split('"""')[2]
    )


def test_a_header_is_read_part_by_part():
    found = header("cosface")
    assert found.title == "CosFace: Large Margin Cosine Loss for Deep Face Recognition"
    assert found.authors == "Wang, Wang, Zhou, Ji, Gong, Zhou, Li, Liu"
    assert (found.venue, found.arxiv, found.wraps) == ("CVPR 2018", "1801.09414", "CosFaceLoss")
    assert found.differs.startswith("Proxies start")
    assert header("npair").arxiv is None
    assert header("smooth_ap").wraps is None


@pytest.mark.parametrize(
    "text",
    [
        "Title.",
        "Title.\n\nAuthors; Venue; arXiv 1234.56789. What it does.",
        "Title.\n\nAuthors, Venue. What it does.\n\nDiffers: nothing.",
        "Title.\n\nAuthors; Venue; arXiv 1234. What it does.\n\nDiffers: nothing.",
    ],
)
def test_a_header_of_another_form_is_refused(monkeypatch, text):
    monkeypatch.setattr(source, "docstring", lambda module: text)
    with pytest.raises(ValueError, match=r"dmlbench\.losses\.rll: a header is a title"):
        header("rll")


def test_listing_imports_no_torch():
    code = (
        "import sys; from dmlbench.losses._headers import markdown; markdown();"
        "print({'torch', 'pytorch_metric_learning', 'numpy'} & set(sys.modules))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"
