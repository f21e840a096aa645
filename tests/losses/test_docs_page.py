"""The list and the table of losses are what their files' headers say."""

import subprocess
import sys
from pathlib import Path

import pytest

from dmlbench.cli.main import main
from dmlbench.losses import _docs_page, list_losses
from dmlbench.losses._docs_page import header
from dmlbench.utils.modules import PACKAGE

PAGE = Path(__file__).parents[2] / "docs/losses.md"


@pytest.fixture
def list_command(capsys):
    """Run `dmlbench list losses`; gives what it prints."""

    def run(*arguments):
        with pytest.raises(SystemExit) as caught:
            main(["list", "losses", *arguments])
        assert not caught.value.code
        return capsys.readouterr().out

    return run


def test_the_page_of_the_docs_is_up_to_date(list_command):
    assert PAGE.read_text("utf-8") == list_command("--markdown"), (
        "run: dmlbench list losses --markdown > docs/losses.md"
    )


def test_the_list_shows_names_code_titles_and_options(list_command):
    text = list_command()
    rows = [line.split(maxsplit=1) for line in text.splitlines() if not line.startswith(" ")]
    assert [name for name, _ in rows] == list_losses()
    assert ["rll", "native: Ranked List Loss for Deep Metric Learning"] in rows
    assert (
        "\ncosface             PML's CosFaceLoss: CosFace: Large Margin Cosine Loss for Deep Face "
        "Recognition\n"
        "    margin = 0.35           number ≥ 0, ≤ 1,000\n"
        "    scale = 64              number > 0, ≤ 10,000\n"
        "    proxies_lr_factor = 1   number ≥ 0, ≤ 1,000,000\n"
    ) in text


@pytest.mark.parametrize(
    ("word", "names"),
    [
        ("proxy", ["proxy_anchor", "proxygml", "proxynca_pp"]),
        ("h*l", ["hpl", "htl"]),
        ("rll", ["rll"]),
        ("?nr", ["snr"]),
    ],
)
def test_a_word_chooses_losses_by_a_part_or_a_pattern_of_their_name(list_command, word, names):
    lines = list_command(word).splitlines()
    assert [line.split()[0] for line in lines if not line.startswith(" ")] == names


@pytest.mark.parametrize("name", list_losses())
def test_each_header_is_complete_and_says_whether_the_loss_is_wrapped(name):
    parsed = header(name)
    assert parsed.title
    assert parsed.differs.endswith(".")
    assert "\n" not in parsed.differs
    _, _, code = (PACKAGE / f"losses/{name}.py").read_text("utf-8").split('"""', 2)
    imports = code.partition("\n\n\n")[0]
    assert bool(parsed.wraps) == ("pytorch_metric_learning" in imports)


def test_a_header_is_read_part_by_part():
    parsed = header("cosface")
    assert parsed.title == "CosFace: Large Margin Cosine Loss for Deep Face Recognition"
    assert parsed.authors == "Wang, Wang, Zhou, Ji, Gong, Zhou, Li, Liu"
    assert (parsed.venue, parsed.arxiv) == ("CVPR 2018", "1801.09414")
    assert parsed.wraps == "CosFaceLoss"
    assert parsed.differs.startswith("Proxies start")
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
    monkeypatch.setattr(_docs_page, "read_docstring", lambda module: text)
    with pytest.raises(ValueError, match=r"dmlbench\.losses\.rll: a header is a title"):
        header("rll")


def test_listing_imports_no_torch():
    code = (
        "import sys; from dmlbench.losses._docs_page import markdown; markdown();"
        "print({'torch', 'pytorch_metric_learning', 'numpy'} & set(sys.modules))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"
