"""`dmlbench export`: the results of a study as one archive, to publish, to cite and to load."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import dmlbench
from dmlbench.study.study import Study
from dmlbench.utils.errors import MissingResult
from dmlbench.utils.files import replacing

SUMS = "SHA256SUMS"
DATE = (1980, 1, 1, 0, 0, 0)
"""Of all members: equal results make equal archives."""
OF_RUNS: tuple[str, ...] = (
    "run.json",
    "metrics.json",
    "history.parquet",
    "queries.parquet",
    "artefacts/*.json",
)
OF_TUNING: tuple[str, ...] = ("chosen.json", "trial*/trial.json", "trial*/curve.parquet")
CITATION = """\
cff-version: 1.2.0
message: Please cite this archive if you use its results.
type: dataset
title: "Results of the study {study}, made with dmlbench {version}"
authors:
  - name: (your name)
"""
README = """\
The results of the study "{study}", made with dmlbench {version}.

{study}/leaderboard/leaderboard.html   the tables and plots, in any browser
{study}/study.json                     all settings
{study}/runs/, {study}/tuning/         scores, settings, keys and origin of each run and trial
{sums}                             sha256sum --check {sums}

Embeddings and models are not here. To put these results beside others of the same study:

    dmlbench merge {study}/study.json {study}
"""


def export(study: Study, archive: Path) -> int:
    """Write the results of `study` into a zip, without embeddings, models and logs.

    Returns:
        The number of its runs.

    Raises:
        MissingResult: there is no leaderboard yet.
    """
    files = study.files
    if not files.page.is_file():
        raise MissingResult(f"{study.name}: there is no leaderboard yet: dmlbench run {study.name}")
    words = {"study": study.name, "version": dmlbench.__version__, "sums": SUMS}
    sums = []
    with replacing(archive) as temporary, zipfile.ZipFile(temporary, "w") as target:

        def add(name: str, content: bytes) -> None:
            sums.append(f"{sha256(content).hexdigest()}  {name}\n")
            member = zipfile.ZipInfo(name, DATE)
            target.writestr(member, content, zipfile.ZIP_DEFLATED)

        add("README.txt", README.format(**words).encode())
        add("CITATION.cff", CITATION.format(**words).encode())
        for file in _published(study):
            add(f"{study.name}/{file.relative_to(files.folder).as_posix()}", file.read_bytes())
        target.writestr(zipfile.ZipInfo(SUMS, DATE), "".join(sums), zipfile.ZIP_DEFLATED)
    return sum(line.endswith("/run.json\n") for line in sums)


def _published(study: Study) -> Iterator[Path]:
    """The files that say what a study found; of its runs and trials, those that are there."""
    files = study.files
    yield files.snapshot
    yield from sorted(path for path in files.leaderboard.rglob("[!.]*") if path.is_file())
    parts = [(files.run(path).folder, OF_RUNS) for path in study.runs]
    parts += [(files.choice(cell).folder, OF_TUNING) for cell in study.tuned_cells]
    for folder, patterns in parts:
        for pattern in patterns:
            yield from sorted(folder.glob(pattern))
