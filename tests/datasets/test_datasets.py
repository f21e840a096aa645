import re
import subprocess
import sys

import pytest

from dmlbench.datasets import list_datasets, load
from dmlbench.datasets.archives.spec import archive_groups
from dmlbench.utils.declarations import read_declarations
from dmlbench.utils.errors import DatasetError

NEEDED = {"csv": {"file": "x.csv"}, "folder": {"folder": "x"}, "parquet": {"files": "x"}}
"""Options that a type needs."""


def test_only_data_sets_are_listed_and_each_has_what_packing_needs():
    names = list_datasets()
    assert {"glyphs", "omniglot", *NEEDED} <= set(names)
    assert not {
        "store",
        "archives",
        "annotations",
        "decoding",
        "metadata",
        "_docs_page",
        "__init__",
    } & set(names)
    for name in names:
        options = read_declarations(f"dmlbench.datasets.{name}").options
        defaults = {option: default for option, (_, default) in options.items()}
        module = load(name, defaults | NEEDED.get(name, {}))
        assert callable(module.images)
        groups = archive_groups(module.SOURCES)
        for archive in (archive for group in groups for archive in group.values()):
            assert archive.urls or archive.by_hand
            assert all(url.startswith(("https://", "http://")) for url in archive.urls)
            assert archive.checksum is None or re.fullmatch(
                r"md5:[0-9a-f]{32}|sha256:[0-9a-f]{64}", archive.checksum
            )


def test_facts_read_from_the_file_equal_those_of_the_module():
    for name in list_datasets():
        facts = read_declarations(f"dmlbench.datasets.{name}").constants["FACTS"]
        assert facts == load(name).FACTS
        assert {"version", "channels", "levels", "recall_at"} <= set(facts)


@pytest.mark.parametrize(
    ("name", "splits"),
    [
        ("cub200", {"train": [100, 5864], "test": [100, 5924]}),
        ("cars196", {"train": [98, 8054], "test": [98, 8131]}),
        ("sop", {"train": [11318, 59551], "test": [11316, 60502]}),
        ("inshop", {"train": [3997, 25882], "test": [3985, 14218 + 12612]}),
        ("inat2018", {"train": [5690, 325846], "test": [2452, 136093]}),
        ("lfw", {"test": [5749, 13233]}),
    ],
)
def test_the_splits_of_the_papers_are_declared(name: str, splits: dict[str, list[int]]):
    assert load(name).FACTS["splits"] == splits


def test_an_unknown_name_is_refused_with_the_nearest_name_or_all_names():
    with pytest.raises(DatasetError, match=r"no data set 'omniglott'\. Did you mean 'omniglot'\?"):
        load("omniglott")
    with pytest.raises(DatasetError, match=r"no data set 'zzz'\. Allowed: .*glyphs"):
        load("zzz")
    with pytest.raises(DatasetError):
        load("store")


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("dmlbench.datasets", "numpy pyarrow pandas torch PIL requests matplotlib"),
        ("dmlbench.datasets.store.images", "pyarrow pandas torch PIL requests matplotlib"),
        ("dmlbench.datasets.store.reader", "pandas torch PIL requests matplotlib pyarrow.dataset"),
        ("dmlbench.datasets.store.pack", "pandas torch requests matplotlib"),
    ],
)
def test_modules_do_not_import_heavy_packages(module: str, heavy: str):
    code = f"import sys, {module}; print(sorted(set('{heavy}'.split()) & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
