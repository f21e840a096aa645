"""The files of a study and of a run: all other modules take their paths from here.

The names inside `state/` and `leaderboard/` are in the modules that write these files.

results/<study>/
  study.json                 the settings, as the study was last run
  job_estimates.json         on a cluster: what the jobs were submitted with
  lock                       held by the process that works on the study
  driver.json                held by the process of `dmlbench submit`
  verdict.txt                whether every run has a result
  tracked.txt                what was written to MLflow
  leaderboard/               tables, pages, plots; pictures: see gallery_files.py
  logs/                      logs of all other jobs than those of runs
  runs/<dataset>/<backbone>/<loss>/seed<k>/
  tuning/<dataset>/<backbone>/<loss>/          trials and their choice: see tuning_files.py
  state/<dataset>/<backbone>/<loss>/seed<k>/   what an unfinished training needs to continue
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dmlbench.study.gallery_files import GALLERIES, GalleryFiles
from dmlbench.study.result_shape import check_metrics, check_run, load_result
from dmlbench.study.tuning_files import ChoiceFiles, TrialFiles
from dmlbench.utils.digests import describe_file, is_unchanged, write_with_digest
from dmlbench.utils.errors import MissingResult

MAKES_NUMBERS = False
OPTIMISM = "optimism"
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
    def estimates(self) -> Path:
        """How long the jobs take on a cluster, as they were submitted."""
        return self.folder / "job_estimates.json"

    @property
    def lock(self) -> Path:
        return self.folder / "lock"

    @property
    def driver(self) -> Path:
        """The process of `dmlbench submit`."""
        return self.folder / "driver.json"

    @property
    def submit_log(self) -> Path:
        return self.logs / "submit.log"

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

    def duplicates_log(self, trained: str, tested: str) -> Path:
        """The log of the search for near-duplicates between two stores."""
        return self.logs / f"data/{tested}.near_duplicates/{trained}.log"

    def features_log(self, path: str) -> Path:
        """The log of the features of a frozen backbone, as store/name."""
        return self.logs / f"features/{path}.log"

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

    def gallery(self, group: str) -> GalleryFiles:
        """The files of the pictures of a group, as dataset/backbone."""
        folder = self.leaderboard / GALLERIES / group
        return GalleryFiles(folder, self.logs / GALLERIES / f"{group}.log")

    def run(self, path: str) -> RunFiles:
        """The files of the run at `path`, as dataset/backbone/loss/seed0."""
        return RunFiles(self.folder / "runs" / path, self.folder / "state" / path)

    def trial(self, path: str) -> TrialFiles:
        """The files of the trial at `path`, as dataset/backbone/loss/trial0."""
        return TrialFiles(self.folder / "tuning" / path, self.folder / "state" / path)

    def choice(self, cell: str) -> ChoiceFiles:
        """The files of the choice of a cell, as dataset/backbone/loss."""
        return ChoiceFiles(self.folder / "tuning" / cell)

    def chosen(self, cell: str) -> Path:
        """What is chosen for a cell, as dataset/backbone/loss."""
        return self.choice(cell).chosen

    def unfinished(self) -> Iterator[str]:
        """Paths of the runs and the trials that have begun and are not finished."""
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
    def optimism(self) -> Path:
        """The folder of the test embeddings after single epochs, by which nothing is chosen."""
        return self.folder / OPTIMISM

    def epoch_embeddings(self, trained: Mapping[str, Any]) -> dict[int, Path]:
        """The files in `optimism` of a training, by epoch; `trained` is the content of run.json."""
        names = [name for name in trained["files"] if name.startswith(f"{OPTIMISM}/")]
        return {epoch_of(name): self.folder / name for name in sorted(names, key=epoch_of)}

    def is_scored(self, file: Path) -> bool:
        """Whether `file` holds embeddings: only a scoring needs it."""
        return file == self.embeddings or file.parent == self.optimism

    @property
    def metrics(self) -> Path:
        """The scores."""
        return self.folder / "metrics.json"

    @property
    def queries(self) -> Path:
        """The scores of the single queries."""
        return self.folder / "queries.parquet"

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

    def load_run(self) -> dict[str, Any]:
        """The content of run.json.

        Raises:
            MissingResult: it is missing or damaged.
        """
        return load_result(self.run, check_run)

    def load_metrics(self) -> dict[str, Any]:
        """The content of metrics.json.

        Raises:
            MissingResult: it is missing or damaged.
        """
        return load_result(self.metrics, check_metrics)

    def read_run(self) -> dict[str, Any] | None:
        """run.json; None if it is missing or damaged."""
        with contextlib.suppress(MissingResult):
            return self.load_run()
        return None

    def read_metrics(self) -> dict[str, Any] | None:
        """metrics.json; None if it is missing or damaged."""
        with contextlib.suppress(MissingResult):
            return self.load_metrics()
        return None

    def read_failure(self) -> dict[str, Any]:
        """failed.json; empty if it is missing or damaged."""
        with contextlib.suppress(MissingResult):
            return load_result(self.failed, check_metrics)
        return {}

    def write_run(self, content: Mapping[str, Any]) -> None:
        """Write run.json, which also says what the other files of the training are.

        It is the last file of a training: it says that the others are whole.
        """
        written = [self.history, self.embeddings, self.model]
        written += sorted(self.artefacts.glob("[!.]*"))
        written += sorted(self.optimism.glob("epoch*.npy"), key=lambda file: epoch_of(file.name))
        files = {
            file.relative_to(self.folder).as_posix(): describe_file(file)
            for file in written
            if file.is_file()
        }
        write_with_digest(self.run, {**content, "files": files})

    def write_metrics(self, content: Mapping[str, Any], trained: Mapping[str, Any]) -> None:
        """Write metrics.json, which also says what queries.parquet is, if that is there.

        Args:
            trained: the content of run.json from which the scores were computed.

        Raises:
            ValueError: these cannot be scores.
        """
        of_queries = [self.queries] if self.queries.is_file() else []
        files = {file.name: describe_file(file) for file in of_queries}
        content = {**content, "training": trained["digest"], "files": files}
        check_metrics(content)
        write_with_digest(self.metrics, content)

    def find_damaged(self, result: Mapping[str, Any], quick: bool = False) -> list[Path]:
        """The files of a training or a scoring that are there and are not those that it wrote.

        Args:
            result: the content of run.json or of metrics.json.
            quick: of large files, compare the size alone.
        """
        damaged = []
        for name, record in result.get("files", {}).items():
            file = self.folder / name
            try:
                if not is_unchanged(file, record, quick):
                    damaged.append(file)
            except FileNotFoundError:
                continue
            except OSError:
                damaged.append(file)
        return damaged

    def find_missing(self, result: Mapping[str, Any]) -> list[Path]:
        """The files of a training or a scoring that are not there; `result` is the content of
        run.json or of metrics.json."""
        files = [self.folder / name for name in result.get("files", {})]
        return [file for file in files if not file.is_file()]

    def find_problems(self, result: Mapping[str, Any]) -> list[tuple[Path, str]]:
        """The files of a training or a scoring that are damaged, and those that a table needs and
        that are not there; `result` is the content of run.json or of metrics.json."""
        missing = [
            file
            for file in self.find_missing(result)
            if file != self.model and not self.is_scored(file)
        ]
        damaged = self.find_damaged(result, quick=True)
        return [(file, "missing") for file in missing] + [(file, "damaged") for file in damaged]

    def is_whole(self, file: Path, trained: Mapping[str, Any]) -> bool:
        """Whether `file` is there, and is the one that a training wrote.

        Args:
            file: one of its other files than run.json.
            trained: the content of run.json.
        """
        record = trained["files"].get(file.relative_to(self.folder).as_posix())
        try:
            return bool(record) and is_unchanged(file, record)
        except OSError:
            return False

    def check_file(self, file: Path, trained: Mapping[str, Any]) -> None:
        """Check that a file of a training is the one that it wrote.

        Args:
            file: one of its other files than run.json.
            trained: the content of run.json.

        Raises:
            MissingResult: it is missing or damaged.
        """
        if not self.is_whole(file, trained):
            problem = "damaged: it is not the file that its training wrote"
            problem = problem if file.is_file() else "there is no such file"
            raise MissingResult(f"{file}: {problem}. {TRAIN_AGAIN}")


TRAIN_AGAIN = "`snakemake` trains this run again."


def epoch_file(epoch: int) -> str:
    """The name of the file of an epoch.

    >>> epoch_file(12), epoch_of("optimism/epoch12.npy")
    ('epoch12.npy', 12)
    """
    return f"epoch{epoch}.npy"


def epoch_of(name: str) -> int:
    """The epoch of a file that `epoch_file` names."""
    return int(name.rpartition("epoch")[2].removesuffix(".npy"))
