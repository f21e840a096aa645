"""How large the page of a large study is, and how soon a browser can use it.

    python benchmarks/page.py                       # 2,560 runs: 4 x 5 x (25 losses x 5 seeds + 3)

It makes up the results of a study, composes its page without pictures, opens it several times in a
headless Chromium, and prints a Markdown table. A page can be used when the browser has read it and
the page's script has run.
"""

from __future__ import annotations

import argparse
import html
import json
import os
import platform
import re
import shutil
import subprocess
import tempfile
import time
from functools import cached_property
from pathlib import Path
from statistics import median

import numpy as np
import pandas as pd

from dmlbench.leaderboard.html import render
from dmlbench.leaderboard.page import compose
from dmlbench.leaderboard.statistics.panel import all_statistics
from dmlbench.leaderboard.table import Result, tabulate
from dmlbench.losses import list_losses
from dmlbench.study.result_files import StudyFiles
from dmlbench.training.provenance import processor

MOST_BYTES = 5_000_000
MOST_SECONDS = 2.0
TIMES = 5
NAMES = ("chromium", "chromium-browser", "google-chrome")
OPTIONS = ("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--dump-dom",
           "--disable-background-networking")  # fmt: skip
TELL = """<script>
const ran = performance.now();
addEventListener("load", () => {
  const [entry] = performance.getEntriesByType("navigation");
  document.title = JSON.stringify([entry.domInteractive / 1000, ran / 1000]);
});
</script></html>"""
"""When the document was read, and when the page's own script was done: seconds from its start."""


class MadeUp(Result):
    """A result without files."""

    @cached_property
    def epochs(self) -> pd.DataFrame:
        return pd.DataFrame({"epoch": [1], "step": [50], "loss": [1.0]})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    for axis, count in {"datasets": 4, "backbones": 5, "losses": 25, "seeds": 5}.items():
        parser.add_argument(f"--{axis}", type=int, default=count)
    parser.add_argument("--keep", type=Path, help="leave the page in this file")
    options = parser.parse_args()
    results = made_up(options.datasets, options.backbones, options.losses, options.seeds)
    page = compose_page(results)
    if options.keep:
        options.keep.write_text(page, "utf-8")
    machine = f"{processor()}, {os.cpu_count()} cores, {platform.system()}"
    print(f"{len(results):,} runs. {machine}; load {os.getloadavg()[0]:.1f}.\n")
    print("| what | measured | asked for |\n|---|---:|---|")
    size = len(page.encode())
    print(_row("page without pictures", f"{size / 1e6:.2f} MB", "5 MB", size > MOST_BYTES))
    for browser in filter(None, map(shutil.which, NAMES)):
        read, ran = (median(times) for times in zip(*open_often(page, browser), strict=True))
        print(_row("the document is read", f"{read:.2f} s", "", False))
        print(_row("its script has run", f"{ran:.2f} s", "2 s", ran > MOST_SECONDS))
        break
    else:
        print("\nThere is no Chromium here: nothing was opened.")


def _row(name: str, measured: str, asked: str, is_missed: bool) -> str:
    return f"| {name} | {measured} | {asked}{' **missed**' * is_missed} |"


def made_up(datasets: int, backbones: int, losses: int, seeds: int) -> list[Result]:
    """Results of datasets x backbones x (losses x seeds + 3 controls) runs, with drawn scores."""
    random = np.random.default_rng(0)
    native = [name for name in list_losses() if "." not in name]
    kinds = {f"{native[i % len(native)]}{i // len(native) or ''}": native[i % len(native)]
             for i in range(losses)}  # fmt: skip
    level = {loss: random.uniform(0.4, 0.6) for loss in kinds}
    folder = StudyFiles(Path("results/made"))
    results = []
    for dataset in (f"dataset_{i}" for i in range(datasets)):
        for backbone in (f"backbone_{i}" for i in range(backbones)):
            place = {"dataset": dataset, "tested_on": dataset, "backbone": backbone}
            for control, score in (("random", 0.02), ("untrained", 0.2), ("oracle", 1.0)):
                names = place | {"loss": f"control_{control}", "seed": 0}
                results.append(_result(folder, names, None, score))
            for loss, kind in kinds.items():
                for seed in range(seeds):
                    score = float(level[loss] + 0.02 * random.normal())
                    results.append(
                        _result(folder, place | {"loss": loss, "seed": seed}, kind, score)
                    )
    return results


def _result(files: StudyFiles, names: dict[str, object], kind: str | None, score: float) -> Result:
    path = f"{names['dataset']}/{names['backbone']}/{names['loss']}/seed{names['seed']}"
    scores = {f"recall@{k}": 1 - (1 - score) ** (1 + i / 2) for i, k in enumerate((1, 2, 4, 8))}
    scores |= {"map@r": score / 2, "r_precision": score / 1.7, "nmi": score, "queries": 3784.0}
    rows = [{"protocol": "zero_shot", "metric": name, "value": scores[name]} for name in scores]
    settings = {"recipe": {"epochs": 40, "batch_size": 80}, "dataset": {"facts": {"levels": []}}}
    provenance = {"git_commit": "c0ffee", "device": "cpu", "versions": {"torch": "2.15.0"},
                  "train_seconds": 100.0, "wall_seconds": 110.0, "images_per_second": 1234.5,
                  "loss_parameters": 0}  # fmt: skip
    outcome = {"status": "ok", "error": None, "train_key": path, "eval_key": path}
    run = {**names, **outcome, "study": "made", "provenance": provenance,
           "settings": settings | {"loss": {"type": kind}}}  # fmt: skip
    planned = {**names, "path": path, "settings": settings, "tree": None, "gallery": None}
    return MadeUp(planned, run, {**outcome, "metrics": rows}, files.run(path))


def compose_page(results: list[Result]) -> str:
    """The page of `results`, without pictures."""
    table = tabulate(results)
    return render(compose("made", table, results, statistics=all_statistics(table, results)), [])


def open_often(page: str, browser: str) -> list[list[float]]:
    """When the page was read and when its script had run, each time that it was opened."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "page.html"
        file.write_text(page.replace("</html>", TELL), "utf-8")
        return [_open(file, browser) for _ in range(TIMES)]


def _open(file: Path, browser: str) -> list[float]:
    command = [browser, *OPTIONS, f"--user-data-dir={file.parent / 'profile'}", file.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    time.sleep(0.5)  # until its processes have ended
    times: list[float] = json.loads(
        html.unescape(re.findall("<title>(.*?)</title>", done.stdout)[0])
    )
    return times


if __name__ == "__main__":
    main()
