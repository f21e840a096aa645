"""Are the images of the user's data sets there?"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from dmlbench.datasets import load
from dmlbench.datasets.store.checks import check_store
from dmlbench.datasets.store.format import MANIFEST_FILE
from dmlbench.study.study import Study
from dmlbench.utils.errors import DatasetError


def image_problems(study: Study, stores: Path) -> Iterator[str]:
    """What is wrong with the images of the user's own data sets.

    If they are not packed yet, all image files must exist. If they are packed, the store must have
    been packed from the folder that the study names.

    Args:
        stores: the folder of the packed images.
    """
    for run in study.stores.values():
        store = stores / run.store
        try:
            manifest = check_store(store) if (store / MANIFEST_FILE).exists() else None
            if not run.data.options:
                continue
            dataset = load(run.data.type, run.data.options)
            if manifest is None:
                dataset.check()
            # no place: the facts say which images
            elif packed := manifest["settings"].get("place"):
                _check_source(store, Path(packed), dataset.place)
        except DatasetError as error:
            yield f"datasets.{run.dataset}: {error}"


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
