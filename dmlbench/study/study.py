"""A study: a checked study file, and the grid of its runs.

A study file defines in mappings (`losses`, `backbones`, `datasets`) and selects in lists
(`plan`), because Snakemake merges mappings and replaces lists. Reading one imports no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from dmlbench.study.error_messages import describe_errors, show
from dmlbench.study.features import Features, features_of
from dmlbench.study.grid import grid
from dmlbench.study.ladders import find_ladders
from dmlbench.study.mean_ranks import has_mean_ranks, ranked_cells
from dmlbench.study.remarks import Remarks, find_wrong_remarks, read_remarks
from dmlbench.study.result_files import RESULTS, SNAPSHOT, StudyFiles
from dmlbench.study.row_names import is_control
from dmlbench.study.run import Run, data_settings, json_key
from dmlbench.study.settings import Settings
from dmlbench.study.tuning import Trial, make_trials
from dmlbench.study.tuning_checks import tuning_problems
from dmlbench.utils.errors import StudyError, UnreadableYaml
from dmlbench.utils.fingerprint import code_digest
from dmlbench.utils.reading import read_bytes
from dmlbench.utils.text import did_you_mean
from dmlbench.utils.yaml_text import MAX_BYTES, check_data, read_yaml

MAX_SNAPSHOT_BYTES = 10 * MAX_BYTES
"""Of the settings as JSON, which repeat what aliases stand for."""
TABLES = "dmlbench.leaderboard.build"
"""The module that makes the leaderboard."""
PICTURES = ("dmlbench.gallery.page", "dmlbench.gallery.maps")
"""The modules that make the pages of pictures."""


TEMPLATES = Path(__file__).parents[1] / "leaderboard/templates"


@dataclass(frozen=True)
class Study:
    """The settings of a study file, and its runs."""

    settings: Settings
    runs: dict[str, Run]
    """Path, as `dataset/backbone/loss/seed0`, -> run, in the order of the plan."""

    @property
    def name(self) -> str:
        return self.settings.study

    @property
    def folder(self) -> Path:
        """results/<study>."""
        return RESULTS / self.name

    @property
    def files(self) -> StudyFiles:
        return StudyFiles(self.folder)

    @cached_property
    def stores(self) -> dict[str, Run]:
        """Name of each store that the study reads -> a run whose data set it holds."""
        return {reader.store: reader for run in self.runs.values() for reader in (run, run.tested)}

    @cached_property
    def readers(self) -> list[Run]:
        """A run of each data set that is trained or tested on, for each store of it."""
        readers = (reader for run in self.runs.values() for reader in (run, run.tested))
        return [*{(reader.dataset, reader.store): reader for reader in readers}.values()]

    @cached_property
    def features(self) -> dict[str, Features]:
        """`store/name` of the features of frozen backbones that the study reads -> what they are
        computed from."""
        read = (features for run in self.runs.values() for features in features_of(run))
        return {features.path: features for features in read}

    @cached_property
    def tuned_cells(self) -> dict[str, list[Trial]]:
        """Each cell that is tuned, as `dataset/backbone/loss` -> its trials, in their order."""
        return {cell: self.tuned_cell(cell) for cell in self._tuned_runs}

    @cached_property
    def _tuned_runs(self) -> dict[str, Run]:
        """Each cell that is tuned -> its first run."""
        runs: dict[str, Run] = {}
        for run in self.runs.values():
            if run.tuning:
                runs.setdefault(run.cell, run)
        return runs

    @cached_property
    def _known_trials(self) -> dict[str, dict[str, Trial]]:
        """Each cell that `tuned_cell` was asked for -> its trials by their paths."""
        return {}

    @cached_property
    def trials(self) -> dict[str, Trial]:
        """Path, as `dataset/backbone/loss/trial0`, -> trial."""
        return {trial.path: trial for cell in self.tuned_cells.values() for trial in cell}

    @cached_property
    def trees(self) -> list[str]:
        """Names of the pictures of class trees, one for each cell whose loss learns a tree."""
        return [*dict.fromkeys(run.tree for run in self.runs.values() if run.tree)]

    @cached_property
    def galleries(self) -> dict[str, list[Run]]:
        """`dataset/backbone` -> its runs that are shown in pictures, if the study asks for some."""
        groups: dict[str, list[Run]] = {}
        for run in self.runs.values():
            if group := self._gallery_of(run):
                groups.setdefault(group, []).append(run)
        return groups

    def _gallery_of(self, run: Run) -> str | None:
        """The key of `galleries` that shows `run`; None if no picture does."""
        is_shown = self.settings.report.has_pictures and not is_control(run.loss)
        return f"{run.dataset}/{run.backbone}" if is_shown else None

    def gallery(self, group: str) -> list[Run]:
        """The runs of `group`, as `dataset/backbone`, that are shown in pictures.

        Raises:
            StudyError: the study has no such pictures.
        """
        if group not in self.galleries:
            problem = f"{group}: no pictures of it are asked for. "
            hint = did_you_mean(group, self.galleries) if self.galleries else "See `report`."
            raise StudyError(self.name, [problem + hint])
        return self.galleries[group]

    def gallery_key(self, group: str) -> str:
        """Digest of the results that the pictures of `group` show, and of the code that does."""
        runs = {run.path: (run.eval_key, run.tested.dataset) for run in self.gallery(group)}
        return json_key(runs, self.settings.report.model_dump(), code_of_pages(*PICTURES))

    @cached_property
    def has_mean_ranks(self) -> bool:
        """Whether losses are ranked over several data sets, which is a plot of its own."""
        return has_mean_ranks(ranked_cells(self._cells))

    @cached_property
    def has_ladder(self) -> bool:
        """Whether data sets are rungs of a ladder, which is a plot of its own."""
        return bool(find_ladders(self._cells))

    @cached_property
    def _cells(self) -> list[dict[str, Any]]:
        """Of `rows`, what needs no key: a plan of many runs asks for it."""
        return [
            {
                "dataset": run.dataset,
                "tested_on": run.tested.dataset,
                "backbone": run.backbone,
                "loss": run.loss,
                "settings": {"dataset": data_settings(run)},
            }
            for run in {run.cell: run for run in self.runs.values()}.values()
        ]

    @cached_property
    def leaderboard_key(self) -> str:
        """Digest of all results and remarks on the leaderboard, and of the code that writes it."""
        return json_key(
            {path: (run.eval_key, run.tested.dataset) for path, run in self.runs.items()},
            self.settings.report.has_pictures,
            self.remarks,
            self.remarks.published,
            code_of_pages(TABLES),
        )

    @cached_property
    def remarks(self) -> Remarks:
        """What the study says about its settings."""
        return read_remarks(self.settings)

    def tracking_key(self, uri: str) -> str:
        """Digest of all results that are written to MLflow at `uri`, and of the code that does."""
        return json_key(
            self.leaderboard_key,
            uri,
            self.settings.track_embeddings,
            code_digest("dmlbench.tracking.sync"),
        )

    @property
    def rows(self) -> list[dict[str, Any]]:
        """Names, path, keys and settings of each run, as the leaderboard reads them."""
        return [self._row(run) for run in self.runs.values()]

    def rows_of(self, cell: str) -> list[dict[str, Any]]:
        """Those of `rows` that belong to `cell`, as `dataset/backbone/loss`.

        Raises:
            StudyError: the plan has no such cell.
        """
        rows = [self._row(run) for run in self.runs.values() if run.cell == cell]
        if not rows:
            cells = dict.fromkeys(run.cell for run in self.runs.values())
            hint = did_you_mean(cell, cells)
            raise StudyError(self.name, [f"{cell}: no such cell in the plan. {hint}"])
        return rows

    def _row(self, run: Run) -> dict[str, Any]:
        """A run as the leaderboard reads it; see `rows`."""
        return {
            "dataset": run.dataset,
            "tested_on": run.tested.dataset,
            "backbone": run.backbone,
            "loss": run.loss,
            "seed": run.seed,
            "path": run.path,
            "tree": run.tree,
            "gallery": self._gallery_of(run),
            "train_key": run.train_key,
            "eval_key": run.eval_key,
            "settings": run.settings,
        }

    def run(self, path: str) -> Run:
        """The run at `path`.

        Raises:
            StudyError: the plan has no such run.
        """
        try:
            return self.runs[path]
        except KeyError:
            hint = did_you_mean(path, self.runs)
            raise StudyError(self.name, [f"{path}: no such run in the plan. {hint}"]) from None

    def tuned_cell(self, cell: str) -> list[Trial]:
        """The trials of `cell`, as `dataset/backbone/loss`. Those of other cells are not made.

        Raises:
            StudyError: the study does not tune it.
        """
        if cell not in self._tuned_runs:
            problem = _no_such("tuned loss", cell, self._tuned_runs)
            raise StudyError(self.name, [f"{cell}: {problem}"])
        return [*self._trials_of(cell).values()]

    def _trials_of(self, cell: str) -> dict[str, Trial]:
        """The trials of a tuned cell by their paths, made once."""
        if cell not in self._known_trials:
            trials = make_trials(self._tuned_runs[cell])
            self._known_trials[cell] = {trial.path: trial for trial in trials}
        return self._known_trials[cell]

    def trial(self, path: str) -> Trial:
        """The trial at `path`, as `dataset/backbone/loss/trial0`.

        Raises:
            StudyError: the study has no such trial.
        """
        cell = path.rpartition("/")[0]
        trials = self._trials_of(cell) if cell in self._tuned_runs else {}
        if path not in trials:
            raise StudyError(self.name, [f"{path}: {_no_such('trial', path, self.trials)}"])
        return trials[path]


@cache
def code_of_pages(*modules: str) -> str:
    """Digest of the code of `modules` and of the templates of all pages."""
    templates = {
        file.name: sha256(file.read_bytes()).hexdigest() for file in sorted(TEMPLATES.glob("[!.]*"))
    }
    return json_key(code_digest(*modules), templates)


def _no_such(kind: str, path: str, known: Mapping[str, Any]) -> str:
    """What is wrong with `path`, which is none of `known`."""
    if not known:
        return f"no such {kind}: the study has no `tuning`."
    return f"no such {kind}. {did_you_mean(path, known)}"


def read_study(path: str | Path) -> Study:
    """Read and check a study file.

    Args:
        path: a file in YAML, or in JSON as the workflow writes it. The name of a study that has
            results, or its folder of results, means the settings that it was last run with.

    Raises:
        StudyError: with everything that is wrong in one message.
    """
    return check_study(read_settings(path), str(path))


def read_settings(path: str | Path) -> Any:
    """The content of a study file, as it is written.

    Raises:
        StudyError: there is no such file, or it is not YAML.
    """
    try:
        file = find_file(Path(path))
        most = MAX_SNAPSHOT_BYTES if file.name == SNAPSHOT else MAX_BYTES
        return read_yaml(read_bytes(file, most).decode())
    except FileNotFoundError:
        known = sorted(snapshot.parent.name for snapshot in RESULTS.glob(f"*/{SNAPSHOT}"))
        hint = f" Studies with results here: {', '.join(known)}." if known else ""
        raise StudyError(str(path), [f"there is no such file.{hint}"]) from None
    except OSError as error:
        raise StudyError(str(path), [f"it cannot be read: {error.strerror}."]) from None
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        problem = f"line {line}: byte {error.object[error.start]:#04x} is not UTF-8."
        raise StudyError(str(path), [f"{problem} Save the file as UTF-8."]) from None
    except UnreadableYaml as error:
        raise StudyError(str(path), error.problems) from None


def find_file(path: Path) -> Path:
    if not path.is_file():
        for folder in (path, RESULTS / path):
            if (folder / SNAPSHOT).is_file():
                return folder / SNAPSHOT
    return path


def check_study(settings: Any, file: str) -> Study:
    """Check the settings of a study, and resolve its runs.

    Args:
        settings: the content of a study file.
        file: its name, for messages.

    Raises:
        StudyError: with everything that is wrong in one message.

    >>> plan = {"datasets": ["glyphs"], "losses": ["htl"], "seeds": [0], "controls": []}
    >>> study = check_study({"study": "my", "plan": plan | {"backbones": ["test_resnet"]}}, "my")
    >>> list(study.runs)
    ['glyphs/test_resnet/htl/seed0']
    """
    if not isinstance(settings, dict):
        content = "is empty" if settings is None else f"holds {show(settings)}"
        problem = f"it {content}, and a study is a mapping: lines as `study: my_name`."
        raise StudyError(file, [f"{problem} See docs/studies.md."])
    try:
        check_data(settings)
        checked = Settings.model_validate(settings)
    except UnreadableYaml as error:
        raise StudyError(file, error.problems) from None
    except ValidationError as error:
        raise StudyError(file, describe_errors(error, Settings)) from None
    problems: list[str] = []
    runs = {run.path: run for run in grid(checked, settings.get("recipe") or {}, problems)}
    problems += tuning_problems(
        checked, {run.cell: run for run in runs.values() if run.tuning}.values()
    )
    problems += find_wrong_remarks(settings, checked)
    if problems:
        raise StudyError(file, dict.fromkeys(problems))  # each once, in order
    return Study(checked, runs)
