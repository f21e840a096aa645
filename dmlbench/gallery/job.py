"""The pictures of a data set and a backbone as a job: it reads embeddings and images, and writes
pages."""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from dmlbench.datasets.store.reader import Store
from dmlbench.gallery.comparison import DifferencesPage, compare_losses
from dmlbench.gallery.differences import mean_by_class
from dmlbench.gallery.examples import (
    COLUMNS,
    NEAREST,
    SIDE,
    Examples,
    GalleryPage,
    describe,
)
from dmlbench.gallery.made_of import read_gallery_digest, write_made_of
from dmlbench.gallery.maps import compose_map, map_sheet
from dmlbench.gallery.neighbours import Neighbours, find_neighbours
from dmlbench.gallery.page import read_key, render_differences, render_gallery
from dmlbench.gallery.ranked_images import RankedImages, Rows, place_images, read_images
from dmlbench.gallery.thumbnails import Sheet
from dmlbench.study.gallery_files import GalleryFiles
from dmlbench.study.result_files import RunFiles
from dmlbench.study.result_shape import OK
from dmlbench.study.row_names import display_name
from dmlbench.study.run import Run, json_key
from dmlbench.study.study import PICTURES, Study, code_of_pages
from dmlbench.utils.errors import MissingResult, UserError
from dmlbench.utils.files import keep_only, replacing
from dmlbench.utils.text import error_reason


@dataclass(frozen=True)
class Seed:
    """The first seed of a loss that has embeddings."""

    run: Run
    embeddings: NDArray[np.floating]
    """(N, models * D)"""
    ids: Rows
    """(N,) of their images."""
    trained: Mapping[str, Any]
    """The content of run.json of the training that made them."""


def gallery_job(study: Study, group: str, stores: Path, threads: int = 1) -> None:
    """Write the pictures of `group`: a page for each loss, and one that compares losses.

    Pages that are there and are made from the same are kept. A loss without embeddings has a page
    that says why.

    Args:
        group: dataset/backbone.
        stores: the folder of the packed images.
        threads: of the maps; no map depends on it.

    Raises:
        StudyError: the study has no such pictures.
        DatasetError: the packed images are missing or damaged.
    """
    runs = study.gallery(group)
    files = study.files.gallery(group)
    results = read_gallery_digest(study, group)
    losses: dict[str, list[Run]] = {}
    for run in runs:
        losses.setdefault(run.loss, []).append(run)
    drawing = _Drawing(study, group, Store(stores / runs[0].tested.store), threads)
    problems = {loss: why for loss, of in losses.items() if (why := drawing.draw(loss, of))}
    files.folder.mkdir(parents=True, exist_ok=True)
    drawing.write_thumbnails()
    with replacing(files.differences) as path:
        path.write_text(render_differences(drawing.compare(losses, problems)), "utf-8")
    kept = {files.made_of, files.thumbnails, *map(files.page, losses)}
    keep_only(kept, files.folder)
    write_made_of(study, group, results, problems)
    for loss, why in problems.items():
        print(f"pictures of {loss}: {why}")


class _Drawing:
    """Draws the pages of a group, loss by loss, and remembers what their comparison needs."""

    def __init__(self, study: Study, group: str, store: Store, threads: int) -> None:
        self.study, self.group, self.store, self.threads = study, group, store, threads
        self.files: GalleryFiles = study.files.gallery(group)
        self.report = study.settings.report
        self.images: RankedImages | None = None
        """Those of the first loss that was drawn; all losses of a group have the same."""
        self.found: dict[str, Neighbours] = {}

    def draw(self, loss: str, runs: Sequence[Run]) -> str:
        """Write the page of `loss`, or keep it if it is made from the same already.

        Args:
            runs: its seeds.

        Returns:
            Why it has no pictures, or cannot be compared; an empty text if it can.
        """
        cell = f"{self.group}/{loss}"
        tested = runs[0].tested.dataset
        other = f" → {tested}" if tested != runs[0].dataset else ""
        title = f"{display_name(loss)} on {runs[0].dataset}{other}, {runs[0].backbone}: pictures"
        page, file = GalleryPage(self.study.name, cell, title, key=""), self.files.page(loss)
        drawn = read_key(file)
        try:
            seed = _first_seed(self.study, runs)
            page = self._fill(replace(page, key=self._key(seed.run, seed.trained)), seed, drawn)
        except (MissingResult, ValueError) as error:
            page = replace(page, key="", problem=error_reason(error))
        except (OSError, MemoryError, ImportError, UserError):
            raise
        except Exception as error:  # whatever a library makes of the numbers of others
            traceback.print_exc()
            why = f"{type(error).__name__}: {error_reason(error)}"
            page = replace(page, key="", problem=why)
        # Without embeddings, a page that shows one of the seeds is still the best that there is
        wanted = {page.key} if page.key else {self._key(*of) for of in _trained(self.study, runs)}
        if drawn and drawn in wanted:
            print(f"{cell}: drawn already")
            return page.problem
        self.files.folder.mkdir(parents=True, exist_ok=True)
        with replacing(file) as path:
            path.write_text(render_gallery(page), "utf-8")
        return page.problem

    def _key(self, run: Run, trained: Mapping[str, Any]) -> str:
        """The key of the page that shows `run`; `trained` is the content of its run.json."""
        report = self.report.model_dump()
        return json_key(trained["digest"], run.eval_key, report, code_of_pages(*PICTURES))

    def _fill(self, page: GalleryPage, seed: Seed, drawn: str) -> GalleryPage:
        """`page` with its pictures; as it is, if `drawn` is its key."""
        run, loss = seed.run, page.loss
        if self.images is None:
            levels = run.tested.facts["levels"]
            self.images = read_images(self.store, run.tested.data.part, seed.ids, levels)
        images = self.images
        placed = place_images(images, seed.embeddings, seed.ids, run.models, run.ball)
        found = find_neighbours(
            placed.gallery,
            images.labels,
            images.queries,
            images.gallery,
            NEAREST,
            placed.queries,
        )
        self.found[loss] = found
        if page.key == drawn:
            return page
        page = replace(page, facts=describe(images, found, run.seed))
        if self.report.galleries:
            sheet = Sheet(SIDE, COLUMNS)
            examples = Examples(images, placed, found, sheet)
            groups, confused = examples.groups(), examples.confused()
            picture = sheet.to_webp(self.store)
            page = replace(page, groups=groups, confused=confused, sheet=picture, side=SIDE)
        if self.report.maps != "none":
            thumbnails = self.files.thumbnails.name
            points = compose_map(images, placed, found, self.report.maps, self.threads, thumbnails)
            page = replace(page, map=points)
        return page

    def write_thumbnails(self) -> None:
        """Write the images of all maps, if there are maps. Without any embeddings, those of maps
        that were drawn earlier stay."""
        if self.report.maps == "none":
            self.files.thumbnails.unlink(missing_ok=True)
        elif self.images is not None:
            with replacing(self.files.thumbnails) as path:
                path.write_bytes(map_sheet(self.images).to_webp(self.store))

    def compare(
        self, losses: Mapping[str, Sequence[Run]], problems: Mapping[str, str]
    ) -> DifferencesPage:
        """The page that compares the losses that were drawn."""
        title = " · ".join(self.group.split("/"))
        shown = [loss for loss in losses if loss not in problems]
        page = DifferencesPage(self.study.name, self.group, f"{title}: pictures", shown, problems)
        found = {loss: self.found[loss] for loss in shown}
        if self.images is None or len(found) < 2 or not self.report.galleries:
            return page
        sheet = Sheet(SIDE, COLUMNS)
        by_class = {loss: _class_scores(self.study, losses[loss], self.images) for loss in found}
        data = compare_losses(self.images, found, by_class, sheet)
        return replace(page, data=data, sheet=sheet.to_webp(self.store), side=SIDE)


def _trained(study: Study, runs: Sequence[Run]) -> Iterator[tuple[Run, dict[str, Any]]]:
    """Those of `runs` that succeeded, and the content of their run.json."""
    for run in runs:
        files = study.files.run(run.path)
        trained, scored = files.read_run(), files.read_metrics()
        if trained and scored and trained["status"] == scored["status"] == OK:
            yield run, trained


def _first_seed(study: Study, runs: Sequence[Run]) -> Seed:
    """The first of `runs` that succeeded and whose embeddings are there.

    Raises:
        MissingResult: there is none.
    """
    problems = []
    for run, trained in _trained(study, runs):
        files = study.files.run(run.path)
        try:
            files.check_file(files.embeddings, trained)
        except MissingResult as error:
            problems.append(f"seed {run.seed}: {error}")
            continue
        with np.load(files.embeddings, allow_pickle=False) as content:
            return Seed(run, content["embeddings"], content["id"], trained)
    raise MissingResult(problems[0] if problems else "no seed succeeded")


def _class_scores(study: Study, runs: Sequence[Run], images: RankedImages) -> NDArray[np.float64]:
    """Mean MAP@R (C,) of each class of `images`, over the queries of all `runs` that have some."""
    classes, scores = [np.empty(0, np.int64)], [np.empty(0)]
    for run in runs:
        files: RunFiles = study.files.run(run.path)
        scored = files.read_metrics()
        if scored is None or scored["status"] != OK or not files.queries.is_file():
            continue
        table = pq.read_table(files.queries, columns=["protocol", "id", "map@r"])
        ids, values = (table[name].to_numpy() for name in ("id", "map@r"))
        kept = np.isin(ids, images.ids)
        first = table["protocol"].cast("string").to_numpy(zero_copy_only=False)
        kept &= first == first[0]
        classes.append(images.labels[np.searchsorted(images.ids, ids[kept])])
        scores.append(values[kept])
    return mean_by_class(classes, scores, len(images.class_names))
