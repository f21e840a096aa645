"""Checks of a study that look at files: are the images of the user's data sets there?"""

from __future__ import annotations

from pathlib import Path

from dmlbench.datasets import load
from dmlbench.datasets.store.format import MANIFEST_FILE
from dmlbench.study.study import Study
from dmlbench.utils.errors import DatasetError, StudyError
from dmlbench.utils.files import read_json_if_whole


def check_images(study: Study, stores: Path) -> None:
    """Check the images of the user's own data sets.

    If they are not packed yet, all image files must exist. If they are packed, the store must have
    been packed from the folder that the study names.

    Args:
        stores: the folder of the packed images.

    Raises:
        StudyError: images are missing, or were packed from another folder.
    """
    problems = []
    for run in study.stores.values():
        if not run.data.options:
            continue
        dataset = load(run.data.type, run.data.options)
        store = stores / run.store
        try:
            manifest = read_json_if_whole(store / MANIFEST_FILE)
            if manifest is None:
                dataset.check()
            else:
                _check_source(store, Path(manifest["settings"]["place"]), dataset.place)
        except DatasetError as error:
            problems.append(f"datasets.{run.dataset}: {error}")
    if problems:
        raise StudyError(study.name, dict.fromkeys(problems))  # each once, in order


def _check_source(store: Path, packed: Path, named: Path) -> None:
    """Refuse a store that was packed from another folder than the study names.

    A folder that was moved holds the same images; two folders with equal lists need not.
    """
    if packed != named.resolve() and packed.exists():
        raise DatasetError(
            f"{store} was packed from {packed}, which is still there, and the study names {named}. "
            f"If they hold different images, give the entry another name or `revision`. If they "
            f"hold the same, name {packed}, or remove it."
        )
