"""The files for people who join or cite the project agree with the project."""

import re
import tomllib
from itertools import chain
from pathlib import Path

import pytest
import yaml

import dmlbench

ROOT = Path(__file__).parent.parent
PAGES = ["CONTRIBUTING.md", "CHANGELOG.md", "THIRD_PARTY.md"]
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
ROOMS = {path.parent.name for path in ROOT.glob("dmlbench/*/*.py")}


def test_the_citation_has_what_its_format_asks_for_and_the_package_s_version_and_licence():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation.keys() >= {"cff-version", "message", "title", "authors"}
    assert citation["version"] == dmlbench.__version__
    assert citation["license"] == PROJECT["license"]


def test_the_changelog_begins_with_the_rule_of_versions():
    top, *sections = re.split("^## ", (ROOT / "CHANGELOG.md").read_text(), flags=re.MULTILINE)
    assert "Same major.minor = comparable numbers" in top
    assert sections[0].startswith("Unreleased\n")


def test_the_workflow_on_github_runs_what_ci_runs_on_every_python_from_the_oldest():
    content = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())
    (job,) = content["jobs"].values()
    assert [step["run"] for step in job["steps"] if "run" in step] == ["bash .ci/run"]
    assert f">={job['strategy']['matrix']['python'][0]}" == PROJECT["requires-python"]


def test_each_hook_runs_a_tool_of_the_environment_that_the_lock_pins():
    locked = re.findall(
        "^([a-z0-9-]+)==", (ROOT / "envs/requirements.lock").read_text(), re.MULTILINE
    )
    repositories = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert [repository["repo"] for repository in repositories] == ["local"]
    hooks = repositories[0]["hooks"]
    assert {hook["language"] for hook in hooks} == {"system"}
    programs = {hook["entry"].split()[0] for hook in hooks} - {"git"}
    assert programs == {".venv/bin/ruff", ".venv/bin/snakefmt", ".venv/bin/codespell"}
    assert {Path(program).name for program in programs} <= set(locked)


def test_the_make_targets_that_contributors_are_told_to_run_exist():
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    named = set(re.findall(r"`make ([a-z-]+)`", CONTRIBUTING))
    assert named >= {"lint", "test", "test-slow", "format", "lock", "docs", "demo"}
    assert named - set(targets) == set()


def test_the_map_names_each_room_once_in_its_table_and_once_in_the_order_of_imports():
    rows = re.findall(r"^\| `(\w+)/` \|", CONTRIBUTING, re.MULTILINE)
    assert sorted(rows) == sorted(ROOMS)
    (order,) = re.findall(r"^(`cli` -> .+?)\n\n", CONTRIBUTING, re.MULTILINE | re.DOTALL)
    assert sorted(re.findall(r"`(\w+)`", order)) == sorted([*ROOMS, "embed"])


def test_each_room_has_a_folder_of_tests():
    assert {path.parent.name for path in ROOT.glob("tests/*/test_*.py")} >= ROOMS


@pytest.mark.parametrize("page", PAGES)
def test_links_to_files_and_paths_in_code_lead_somewhere(page):
    text = (ROOT / page).read_text()
    links = re.findall(r"\]\((?!https?:)([^)#]+)", text)
    paths = re.findall(r"`((?:dmlbench|docs|tests|config|envs|benchmarks)/[\w./]+)`", text)
    assert [path for path in links + paths if not (ROOT / path).exists()] == []


def test_the_third_party_notice_lists_the_packages_of_pyproject():
    requirements = chain(PROJECT["dependencies"], *PROJECT["optional-dependencies"].values())
    needed = {re.match(r"[\w-]+", line).group() for line in requirements}
    tables = (ROOT / "THIRD_PARTY.md").read_text().partition("## Losses")[0]
    listed = set(re.findall(r"^\| (\w[\w-]*) \|", tables, re.MULTILINE)) - {"package"}
    assert listed == needed
