"""The files of a study and of a run: all other modules take their paths from here.

The names inside `state/` and `leaderboard/` are in the modules that write these files.

results/<study>/
  study.json                 the settings, as the study was last run
  lock                       held by the process that works on the study
  verdict.txt                whether every run has a result
  tracked.txt                what was written to MLflow
  leaderboard/               tables, page, plots
  logs/                      logs of all other jobs than those of runs
  runs/<dataset>/<backbone>/<loss>/seed<k>/
  state/<dataset>/<backbone>/<loss>/seed<k>/   what an unfinished training needs to continue
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dmlbench.utils.files import read_json_if_whole

RESULTS = Path("results")
SNAPSHOT = "study.json"


@dataclass(frozen=True)
class StudyFiles:
    """The files of a study; `folder` is results/<study>."""

    folder: Path

    @property
    def snapshot(self) -> Path:
        return self.folder / SNAPSHOT

    @property
    def lock(self) -> Path:
        return self.folder / "lock"

    @property
    def verdict(self) -> Path:
        return self.folder / "verdict.txt"

    @property
    def tracked(self) -> Path:
        return self.folder / "tracked.txt"

    @property
    def logs(self) -> Path:
        return self.folder / "logs"

    @property
    def leaderboard_log(self) -> Path:
        return self.logs / "leaderboard.log"

    @property
    def tracking_log(self) -> Path:
        return self.logs / "tracking.log"

    def fetching_log(self, store: str) -> Path:
        """The log of the download of a store's archives."""
        return self.logs / f"data/{store}.archives.log"

    def packing_log(self, store: str) -> Path:
        return self.logs / f"data/{store}.log"

    def weights_log(self, weights: str) -> Path:
        return self.logs / f"weights/{weights}.log"

    @property
    def leaderboard(self) -> Path:
        return self.folder / "leaderboard"

    @property
    def table(self) -> Path:
        """The leaderboard as Markdown; it is written last, when the rest is there."""
        return self.leaderboard / "leaderboard.md"

    @property
    def page(self) -> Path:
        return self.leaderboard / "leaderboard.html"

    @property
    def made_of(self) -> Path:
        """The key and the code that the leaderboard was made from."""
        return self.leaderboard / "made.json"

    def run(self, path: str) -> RunFiles:
        """The files of the run at `path`, as dataset/backbone/loss/seed0."""
        return RunFiles(self.folder / "runs" / path, self.folder / "state" / path)

    def unfinished(self) -> Iterator[str]:
        """Paths of the runs whose training has begun and is not finished."""
        state = self.folder / "state"
        for lock in state.glob("*/*/*/*/lock"):
            yield str(lock.parent.relative_to(state))


@dataclass(frozen=True)
class RunFiles:
    """The files of a run."""

    folder: Path
    state: Path
    """The folder of an unfinished training; removed when it is finished."""

    @property
    def run(self) -> Path:
        """Settings, keys, status and provenance of the training."""
        return self.folder / "run.json"

    @property
    def history(self) -> Path:
        """One row for each epoch."""
        return self.folder / "history.parquet"

    @property
    def embeddings(self) -> Path:
        """Embeddings of the test split, with the ids of their images."""
        return self.folder / "embeddings.npz"

    @property
    def model(self) -> Path:
        """The trained weights, if the study keeps them."""
        return self.folder / "model.safetensors"

    @property
    def artefacts(self) -> Path:
        """The folder of what the loss has learnt."""
        return self.folder / "artefacts"

    @property
    def loss_artefact(self) -> Path:
        """What the loss has learnt, such as its tree of the classes."""
        return self.artefacts / "loss.json"

    @property
    def metrics(self) -> Path:
        """The scores."""
        return self.folder / "metrics.json"

    @property
    def failed(self) -> Path:
        """The metrics.json of a failed run, which the verdict has put aside."""
        return self.folder / "failed.json"

    @property
    def train_log(self) -> Path:
        return self.folder / "log.txt"

    @property
    def evaluate_log(self) -> Path:
        return self.folder / "evaluate.log"

    @property
    def train_benchmark(self) -> Path:
        """Snakemake's table of the seconds that the job took."""
        return self.folder / "train.benchmark.tsv"

    @property
    def evaluate_benchmark(self) -> Path:
        return self.folder / "evaluate.benchmark.tsv"

    @property
    def training_files(self) -> list[Path]:
        """The files that every training writes, run.json last."""
        return [self.history, self.embeddings, self.run]

    def read_run(self) -> dict[str, Any] | None:
        """run.json; None if it is missing or damaged."""
        return read_json_if_whole(self.run)

    def read_metrics(self) -> dict[str, Any] | None:
        """metrics.json; None if it is missing or damaged."""
        return read_json_if_whole(self.metrics)

    def read_failure(self) -> dict[str, Any]:
        """failed.json; empty if there is none."""
        return read_json_if_whole(self.failed) or {}
