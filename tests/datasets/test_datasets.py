import subprocess
import sys

import pytest

from dmlbench.datasets import DatasetError, list_datasets, load
from dmlbench.source import declarations


def test_only_data_sets_are_listed_and_each_loads_with_what_packing_needs():
    names = list_datasets()
    assert {"glyphs", "omniglot", "csv"} <= set(names)
    assert not {"store", "pack", "archives", "transfer", "decoding", "__init__"} & set(names)
    for name in names:
        options = declarations(f"dmlbench.datasets.{name}").options
        defaults = {option: default for option, (_, default) in options.items()}
        module = load(name, defaults | ({"file": "x.csv"} if name == "csv" else {}))
        assert callable(module.images)
        groups = module.SOURCES if isinstance(module.SOURCES, tuple) else (module.SOURCES,)
        for archive in (archive for group in groups for archive in group.values()):
            assert archive.urls or archive.by_hand
            assert all(url.startswith(("https://", "http://")) for url in archive.urls)
            assert archive.checksum is None or archive.checksum.startswith(("md5:", "sha256:"))


def test_facts_are_read_without_an_import_and_are_those_of_the_module():
    for name in list_datasets():
        facts = declarations(f"dmlbench.datasets.{name}").constants["FACTS"]
        assert facts == load(name).FACTS
        assert {"version", "channels", "levels", "recall_at"} <= set(facts)


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(DatasetError, match="no data set 'omniglott': did you mean 'omniglot'"):
        load("omniglott")
    with pytest.raises(DatasetError, match=r"there are: .*glyphs"):
        load("zzz")
    with pytest.raises(DatasetError):
        load("store")


@pytest.mark.parametrize(
    ("module", "dear"),
    [
        ("dmlbench.datasets", "numpy pyarrow pandas torch PIL requests matplotlib"),
        ("dmlbench.datasets.store", "pandas torch PIL requests matplotlib pyarrow.dataset"),
        ("dmlbench.datasets.pack", "pandas torch requests matplotlib"),
    ],
)
def test_imports_nothing_dear(module: str, dear: str):
    code = f"import sys, {module}; print(sorted(set('{dear}'.split()) & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
