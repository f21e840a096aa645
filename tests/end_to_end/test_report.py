"""`snakemake --report` of a finished study: whole, and made without internet."""

import json
import re
import shutil
import subprocess
import zipfile

import pytest

LEADERBOARD = "results/tiny/leaderboard"
PLOTS = ("recall", "recall_curves", "time", "training")


@pytest.fixture
def report(finished):
    """Make a report of the finished project where there is no network."""
    cut = ["unshare", "--net", "--map-root-user"]
    if not shutil.which("unshare") or subprocess.run([*cut, "true"], check=False).returncode:
        pytest.skip("this machine lets no one cut the network")

    def make(name):
        command = ["snakemake", "--configfile", "study.yaml", "--report", name]
        subprocess.run(
            [*cut, *command],
            **{"cwd": finished.folder, "env": finished.environment, "check": True, "timeout": 120},
        )
        return finished.folder / name

    return make


def shown(html):
    """What the report says of its results and of their categories, and of the workflow."""
    scripts = dict(re.findall(r'<script id="([\w-]+)">\s*var \w+ = (.*?);\s*</script>', html, re.S))
    return tuple(json.loads(scripts[name]) for name in ("results", "categories", "workflow-desc"))


def test_the_report_has_the_table_and_the_plots_with_captions_categories_and_labels(report):
    made = report("report.zip")
    with zipfile.ZipFile(made) as archive:
        results, categories, about = shown(archive.read("report/report.html").decode())
        for path, result in results.items():
            packed = archive.read(f"report/{result['data_uri']}")
            assert packed == (made.parent / path).read_bytes()
    assert results.keys() == {
        *(f"{LEADERBOARD}/leaderboard.{kind}" for kind in ("html", "csv")),
        *(f"{LEADERBOARD}/plots/{plot}.png" for plot in PLOTS),
    }
    assert categories.keys() == {"Data", "Leaderboard", "Plots"}
    labels = [tuple(result["labels"].items()) for result in results.values()]
    assert len({*labels}) == len(results)
    assert {label[0] for label in labels} == {("study", "tiny")}
    captions = {path: result["caption"] for path, result in results.items()}
    assert len({*captions.values()}) == len(results)
    assert "leaderboard of <tt" in captions[f"{LEADERBOARD}/leaderboard.html"]
    assert "their K nearest neighbours" in captions[f"{LEADERBOARD}/plots/recall_curves.png"]
    assert "The study" in about
    for name in ("tiny", "letters", "normalized_softmax", "proxy_anchor"):
        assert f">{name}</span>" in about or f">{name}</tt>" in about
    assert "system-message" not in about + "".join(captions.values())


def test_a_single_page_has_all_of_it_and_loads_nothing(report):
    html = report("report.html").read_text()
    results, *_ = shown(html)
    assert all(result["data_uri"].startswith("data:") for result in results.values())
    assert re.findall(r'<(?:script|link|img)[^>]*\b(?:src|href)="(?!data:)', html) == []


def test_a_changed_caption_runs_nothing(finished):
    (finished.folder / "workflow/report/recall.rst").write_text("Another caption.")
    assert finished.planned() == {}
