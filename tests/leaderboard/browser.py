"""Pages in a headless Chromium: their document once their scripts have run, and what a script
finds out in them."""

import html
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")
COMMAND = next(filter(None, map(shutil.which, NAMES)), None)
OPTIONS = ("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
           "--disable-background-networking", "--enable-logging=stderr")  # fmt: skip
DARK = "--blink-settings=preferredColorScheme=0"
needs_browser = pytest.mark.skipif(not COMMAND, reason="needs Chromium")
TITLE = re.compile(r"<title>(.*?)</title>", re.DOTALL)


AXE = Path(__file__).parents[2] / ".venv/axe/node_modules/axe-core/axe.min.js"
needs_axe = pytest.mark.skipif(not AXE.is_file(), reason="needs axe-core: make axe")
RULES = """
document.querySelectorAll("section").forEach((of) => { of.style.contentVisibility = "visible"; });
for (const details of document.querySelectorAll("details")) details.open = true;
const found = await axe.run(document, { resultTypes: ["violations"] });
return found.violations.map((of) => [of.impact, of.id, of.nodes[0].html.slice(0, 200),
  of.nodes[0].failureSummary]);
"""


class Browser:
    def __init__(self, folder: Path) -> None:
        self.profile = folder / "profile"

    def open(self, file: Path, fragment: str = "", *options: str) -> str:
        """The document of `file` once its scripts have run. No script may print or fail."""
        profile = f"--user-data-dir={self.profile}"
        address = f"{file.resolve().as_uri()}{fragment}"
        command = [COMMAND, *OPTIONS, "--dump-dom", profile, *options, address]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert "CONSOLE" not in done.stderr, done.stderr
        return done.stdout

    def ask(
        self, file: Path, script: str, fragment: str = "", *options: str, before: str = ""
    ) -> object:
        """What `script`, the body of an async function, returns in a copy of the page `file`.

        Args:
            before: HTML in front of the page's own script.
        """
        run = f"""<script>(async () => {{ {script} }})().then(
            (found) => {{ document.title = JSON.stringify({{ found }}); }},
            (error) => {{ document.title = JSON.stringify({{ error: String(error) }}); }});
        </script></html>"""
        page = file.read_text("utf-8").replace("</html>", run)
        place = page.rindex("<script>", 0, page.rindex("<script>"))
        copy = file.with_name(f"asked-{file.name}")
        copy.write_text(page[:place] + before + page[place:], "utf-8")
        document = self.open(copy, fragment, "--virtual-time-budget=20000", *options)
        copy.unlink()
        answer = json.loads(html.unescape(TITLE.search(document)[1]))
        assert "error" not in answer, answer
        return answer.get("found")

    def find_problems(self, file: Path, *options: str) -> list[list[str]]:
        """What axe-core finds: impact, rule, an element, what to do."""
        before = f'<script src="{AXE.as_uri()}"></script>'
        found = self.ask(file, RULES, "", *options, before=before)
        assert isinstance(found, list)
        return found
