"""`snakemake --report` of a finished study: whole, and made without internet."""

import json
import re
import shutil
import subprocess
import zipfile

import pytest

LEADERBOARD = "results/tiny/leaderboard"
PLOTS = ("recall", "recall_curves", "time", "training")
NOWHERE = "http://127.0.0.1:9"


@pytest.fixture
def offline(finished):
    """The finished project, its calls without any network."""
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        finished.environment |= {name: NOWHERE, name.upper(): NOWHERE}
    return finished


def shown(html):
    """What the report says of its results and of their categories, and of the workflow."""
    scripts = dict(re.findall(r'<script id="([\w-]+)">\s*var \w+ = (.*?);\s*</script>', html, re.S))
    return tuple(json.loads(scripts[name]) for name in ("results", "categories", "workflow-desc"))


def test_the_report_holds_the_table_and_the_plots_with_captions_categories_and_labels(offline):
    offline.run("--report", "report.zip")
    with zipfile.ZipFile(offline.folder / "report.zip") as archive:
        results, categories, about = shown(archive.read("report/report.html").decode())
        for path, result in results.items():
            packed = archive.read(f"report/{result['data_uri']}")
            assert packed == (offline.folder / path).read_bytes()
    assert results.keys() == {
        *(f"{LEADERBOARD}/leaderboard.{kind}" for kind in ("html", "csv")),
        *(f"{LEADERBOARD}/plots/{plot}.png" for plot in PLOTS),
    }
    assert categories.keys() == {"Leaderboard", "Plots"}
    labels = [tuple(result["labels"].items()) for result in results.values()]
    assert len({*labels}) == len(results)
    assert {label[0] for label in labels} == {("study", "tiny")}
    captions = {path: result["caption"] for path, result in results.items()}
    assert len({*captions.values()}) == len(results)
    assert "leaderboard of <tt" in captions[f"{LEADERBOARD}/leaderboard.html"]
    assert "Recall&#64;K against K" in captions[f"{LEADERBOARD}/plots/recall_curves.png"]
    assert "The study" in about
    for name in ("tiny", "letters", "normalized_softmax", "proxy_anchor"):
        assert f">{name}</span>" in about or f">{name}</tt>" in about
    assert "system-message" not in about + "".join(captions.values())


def test_a_single_page_holds_all_of_it_too_and_loads_nothing(offline):
    offline.run("--report", "report.html")
    html = (offline.folder / "report.html").read_text()
    results, *_ = shown(html)
    assert all(result["data_uri"].startswith("data:") for result in results.values())
    assert re.findall(r'<(?:script|link|img)[^>]*\b(?:src|href)="(?!data:)', html) == []


def test_it_is_made_where_there_is_no_network_at_all(finished):
    unshare = ["unshare", "--net", "--map-root-user"]
    if not shutil.which("unshare") or subprocess.run([*unshare, "true"], check=False).returncode:
        pytest.skip("this machine lets no one cut the network")
    command = ["snakemake", "--configfile", "study.yaml", "--report", "report.zip"]
    subprocess.run(
        [*unshare, *command], cwd=finished.folder, env=finished.environment, check=True, timeout=120
    )
    assert (finished.folder / "report.zip").stat().st_size > 100_000


def test_making_a_report_is_no_reason_to_run_anything(finished):
    finished.run("--report", "report.zip")
    assert finished.planned() == {}
    (finished.folder / "workflow/report/recall.rst").write_text("Another caption.")
    assert finished.planned() == {}


def test_a_clone_in_which_nothing_ran_plans_its_jobs(project):
    assert project.planned()["tables"] == 1
