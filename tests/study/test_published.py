"""The published numbers are complete, plausible, and say where they come from."""

import re

import pandas as pd
import pytest

from dmlbench.datasets import list_datasets
from dmlbench.study import published
from dmlbench.study.published import read_published

METRIC = re.compile(r"recall@\d+|nmi|map@r|r_precision")
NUMBERS = [
    ("htl", "cub200", 512, "recall@1", 57.1, "second-hand"),
    ("htl", "inshop", 512, "recall@50", 97.8, "second-hand"),
    ("htl_triplet", "inshop", 512, "recall@1", 62.3, "unconfirmed"),
    ("softtriple", "sop", 512, "recall@100", 95.9, "second-hand"),
    ("softtriple", "cars196", 512, "nmi", 70.1, "unconfirmed"),
    ("softtriple", "cars196", 64, "recall@1", 78.6, "unconfirmed"),
    ("rll_h", "cub200", 512, "recall@8", 86.9, "seen"),
    ("rll_lmh", "sop", 1536, "nmi", 90.4, "seen"),
    ("proxynca_pp", "sop", 512, "recall@1", 80.7, "second-hand"),
    ("softtriple_mlrc", "cub200", 512, "map@r", 26.51, "unconfirmed"),
]


@pytest.fixture(scope="module")
def table():
    return pd.read_csv(published.FILE, keep_default_na=False)


def test_every_row_names_its_number_and_its_source(table):
    assert list(table.columns) == list(published.Published._fields)
    assert set(table["dataset"]) <= {*list_datasets()}
    assert set(table["protocol"]) == {"zero_shot"}
    assert set(table["provenance"]) == set(published.PROVENANCES)
    assert all(METRIC.fullmatch(metric) for metric in table["metric"])
    assert table["value"].between(0, 100, inclusive="neither").all()
    assert (table["value"] > 1).all(), "a fraction in place of percent"
    for name in ("system", "paper", "source"):
        assert table[name].str.strip().ne("").all()
    assert all(re.fullmatch(r"[a-z0-9_.]+", system) for system in table["system"])


def test_no_number_is_listed_twice(table):
    assert not table.duplicated(["system", "dataset", "backbone", "dim", "metric"]).any()


def test_exactly_the_numbers_from_memory_are_unconfirmed(table):
    remembered = table["source"].str.contains("memory")
    assert (remembered == (table["provenance"] == "unconfirmed")).all()


def test_recall_grows_with_k(table):
    recalls = table[table["metric"].str.startswith("recall@")]
    recalls = recalls.assign(k=recalls["metric"].str.removeprefix("recall@").astype(int))
    for names, rows in recalls.groupby(["system", "dataset", "backbone", "dim"]):
        assert rows.sort_values("k")["value"].is_monotonic_increasing, names


@pytest.mark.parametrize("number", NUMBERS)
def test_known_numbers_of_the_papers_have_their_provenance(number):
    system, dataset, dim, metric, value, provenance = number
    (row,) = [
        row
        for row in read_published()
        if (row.system, row.dataset, row.dim, row.metric) == (system, dataset, dim, metric)
    ]
    assert (row.value, row.provenance, row.backbone) == (
        value,
        provenance,
        "resnet50" if system == "proxynca_pp" else "bn_inception",
    )


def test_numbers_that_must_not_be_quoted_are_missing(table):
    assert not table["system"].str.startswith("hpl").any()
    assert "lfw" not in set(table["dataset"])
    rows = table[["system", "dataset", "metric", "value"]].to_records(index=False).tolist()
    assert ("softtriple", "sop", "recall@1", 78.6) not in rows, "HIER's table: the row of Cars"
