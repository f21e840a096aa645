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
    ("htl", "inshop", 128, "recall@50", 97.8, "second-hand"),
    ("htl_triplet", "inshop", 128, "recall@1", 62.3, "unconfirmed"),
    ("softtriple", "sop", 512, "recall@100", 95.9, "second-hand"),
    ("softtriple", "cars196", 512, "nmi", 70.1, "unconfirmed"),
    ("softtriple", "cars196", 64, "recall@1", 78.6, "second-hand"),
    ("softtriple", "cars196", 64, "nmi", 67.0, "unconfirmed"),
    ("rll_h", "cub200", 512, "recall@8", 86.9, "seen"),
    ("rll_lmh", "sop", 1536, "nmi", 90.4, "seen"),
    ("proxynca_pp", "sop", 512, "recall@1", 80.7, "second-hand"),
    ("softtriple_mlrc", "cub200", 512, "map@r", 26.51, "unconfirmed"),
    ("contrastive_mlrc", "cub200", 512, "recall@1", 68.13, "unconfirmed"),
    ("arcface_mlrc", "cub200", 512, "map@r", 26.45, "second-hand"),
    ("hpl_pa", "sop", 512, "map@r", 49.07, "second-hand"),
    ("proxynca_pp_in_hpl", "cars196", 512, "r_precision", 36.31, "second-hand"),
    ("contrastive_xbm_in_hpl", "cub200", 512, "recall@1", 68.43, "second-hand"),
    ("circle", "sop", 512, "recall@1000", 98.6, "seen"),
    ("multi_similarity", "inshop", 512, "recall@40", 99.1, "second-hand"),
    ("xbm", "inshop", 512, "recall@1", 89.9, "second-hand"),
]
OF_TRANSFORMERS = [
    ("hyp_vit", "cub200", "vit_small_patch16_224", "384", "recall@1", 85.6, "seen"),
    ("hyp_vit", "cub200", "vit_small_patch16_224", "128", "recall@1", 84.0, "second-hand"),
    ("hyp_dino", "cars196", "vit_small_patch16_224", "384", "recall@1", 89.2, "seen"),
    ("hyp_dino", "cub200", "vit_small_patch16_224", "384", "recall@1", 80.9, "second-hand"),
    ("hyp_deit", "inshop", "deit_small_patch16_224", "384", "recall@1", 90.5, "second-hand"),
    ("see_dino", "cars196", "vit_small_patch16_224", "384", "recall@1", 91.5, "seen"),
    ("frozen_vit", "inshop", "vit_small_patch16_224", "", "recall@1", 43.2, "second-hand"),
    ("vptsp_g", "inat2018", "vit_base_patch16_224", "", "map@r", 48.1, "seen"),
    ("vptsp_g", "cars196", "vit_small_patch16_224", "", "map@r", 28.9, "seen"),
    ("unicom", "inat2018", "vit_large_patch14_336", "", "recall@1", 88.9, "seen"),
    ("unicom_frozen", "sop", "vit_base_patch16_224", "", "recall@1", 70.4, "seen"),
    ("proxynca_pp", "cars196", "", "", "recall@1", 90.1, "seen"),
    ("recall_at_k", "cars196", "resnet50", "512", "recall@1", 88.3, "second-hand"),
    ("recall_at_k", "sop", "vit_base_patch16_224", "", "recall@1", 88.0, "second-hand"),
]


@pytest.fixture(scope="module")
def table():
    return pd.read_csv(published.FILE, keep_default_na=False)


def test_every_row_names_its_number_and_its_source(table):
    assert list(table.columns) == list(published.Published._fields)
    assert set(table["dataset"]) <= {*list_datasets()}
    assert set(table["protocol"]) == {"zero_shot", "zero_shot concatenated"}
    assert set(table["provenance"]) == set(published.PROVENANCES)
    assert all(METRIC.fullmatch(metric) for metric in table["metric"])
    assert table["value"].between(0, 100, inclusive="neither").all()
    assert (table["value"] > 1).all(), "a fraction in place of percent"
    for name in ("system", "paper", "source"):
        assert table[name].str.strip().ne("").all()
    assert all(re.fullmatch(r"[a-z0-9_.]+", system) for system in table["system"])


def test_no_number_is_listed_twice(table):
    number = ["system", "dataset", "backbone", "dim", "protocol", "metric"]
    assert not table.duplicated(number).any()


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


@pytest.mark.parametrize("number", OF_TRANSFORMERS)
def test_newer_numbers_have_their_backbone_and_provenance(table, number):
    *names, value, provenance = number
    columns = ["system", "dataset", "backbone", "dim", "metric"]
    (row,) = table[(table[columns] == names).all(axis=1)].itertuples()
    assert (row.value, row.provenance) == (value, provenance)


def test_the_rows_of_proxy_anchor_are_those_of_its_tables_and_its_epochs(table):
    paper = table[(table["system"] == "proxy_anchor") & (table["provenance"] == "seen")]
    first = paper[paper["metric"] == "recall@1"].set_index("dataset")
    numbers = {"cub200": 68.4, "cars196": 86.1, "sop": 79.1, "inshop": 91.5}
    epochs = {"cub200": "40", "cars196": "40", "sop": "60", "inshop": "60"}
    assert first["value"].to_dict() == numbers
    assert first["epochs"].to_dict() == epochs
    assert set(paper["image_size"]) == {"224"}


def test_a_conflict_names_the_number_of_the_other_source(table):
    of_hpl = table[table["system"].str.endswith("_in_hpl")].set_index(
        ["system", "dataset", "metric"]
    )["value"]
    conflicts = [row for row in read_published() if row.conflict and row.system.endswith("_mlrc")]
    assert {row.system for row in conflicts} == {"contrastive_mlrc", "cosface_mlrc"}
    assert len(conflicts) == 6
    for row in conflicts:
        other = of_hpl[row.system.replace("_mlrc", "_in_hpl"), row.dataset, row.metric]
        assert row.conflict == f"HPL's table 3 has {other}"
        assert row.value != other


def test_pretraining_on_images_of_the_web_is_marked(table):
    unicom = table[table["system"].str.startswith("unicom")]
    assert len(unicom) == 20
    assert unicom["note"].str.contains("web, which may hold test classes").all()


def test_numbers_of_four_models_are_of_another_protocol_than_those_of_one(table):
    """Musgrave et al. and HPL concatenate four models of 128 dimensions."""
    of_four = table["protocol"] == "zero_shot concatenated"
    assert (of_four == table["note"].str.contains("four 128-d models concatenated")).all()
    assert (of_four == table["system"].str.fullmatch(r"hpl_pa|\w+_(mlrc|in_hpl)")).all()
    assert set(table["dim"][of_four]) == {"512"}


def test_the_tables_of_hpl_are_whole_as_far_as_they_were_seen(table):
    hpl = table[table["paper"] == "Yang et al., WACV 2022"]
    assert set(hpl["provenance"]) == {"second-hand"}
    datasets = {"1": "sop", "2": "cars196", "3": "cub200"}
    assert (hpl["dataset"] == hpl["table"].map(datasets)).all()
    assert hpl.groupby("dataset").size().to_dict() == {"sop": 18, "cars196": 21, "cub200": 21}
    gains = hpl[hpl["system"] == "hpl_pa"].merge(
        hpl[hpl["system"] == "proxy_anchor_in_hpl"], on=["dataset", "metric"]
    )
    gain = (gains["value_x"] - gains["value_y"]).round(2)
    assert gain.tolist() == [0.85, 1.15, 1.19, 0.46, 0.83, 0.9, 0.61, 0.28, 0.25]


def test_numbers_that_must_not_be_quoted_are_missing(table):
    assert 80.04 not in set(table["value"]), "HPL on SOP, from memory, of another protocol"
    assert "lfw" not in set(table["dataset"])
    rows = table[["system", "dataset", "metric", "value"]].to_records(index=False).tolist()
    assert ("softtriple", "sop", "recall@1", 78.6) not in rows, "HIER's table: the row of Cars"
