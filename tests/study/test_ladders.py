"""Data sets that differ in their holdout alone are rungs of one ladder."""

from dmlbench.study.ladders import find_ladders
from dmlbench.study.mean_ranks import has_mean_ranks, ranked_cells
from dmlbench.study.study import check_study


def rows(*entries):
    """Rows of data sets, each (name, holdout, facts)."""
    return [
        {
            "dataset": name,
            "settings": {"dataset": {"facts": {"levels": ["g", "f"], **facts}, "holdout": holdout}},
        }
        for name, holdout, facts in entries
    ]


def test_rungs_are_sorted_by_their_distance_whatever_the_order_of_the_plan():
    found = find_ladders(
        rows(("far", "level_2", {}), ("near", "class", {}), ("middle", "level_1", {}))
    )
    assert {name: (rung.number, rung.name) for name, rung in found.items()} == {
        "near": (0, "class"),
        "middle": (1, "g"),
        "far": (2, "f"),
    }
    assert [name for name, rung in found.items() if rung.is_nearest] == ["near"]
    assert {rung.ladder for rung in found.values()} == {"near / middle / far"}


def test_other_images_are_other_ladders_and_one_rung_is_none():
    other = {"rows": "sha256:0"}
    found = find_ladders(
        rows(
            ("a_class", "class", {}),
            ("b_class", "class", other),
            ("a_genus", "level_1", {}),
            ("b_genus", "level_1", other),
            ("c", "class", {"rows": "sha256:1"}),
        )
    )
    assert {name: rung.ladder for name, rung in found.items()} == {
        "a_class": "a_class / a_genus",  # one letter says too little
        "a_genus": "a_class / a_genus",
        "b_class": "b_class / b_genus",
        "b_genus": "b_class / b_genus",
    }


def test_a_second_recipe_on_the_same_rungs_is_a_second_ladder():
    found = find_ladders(
        rows(
            ("birds_class", "class", {}),
            ("birds_genus", "level_1", {}),
            ("birds_class_slow", "class", {}),
            ("birds_genus_slow", "level_1", {}),
        )
    )
    assert {name: rung.ladder for name, rung in found.items()} == {
        "birds_class": "birds",
        "birds_genus": "birds",
        "birds_class_slow": "birds_class_slow / birds_genus_slow",
        "birds_genus_slow": "birds_class_slow / birds_genus_slow",
    }


def test_a_study_knows_its_ladder_which_is_one_data_set_for_mean_ranks(tiny):
    tiny["plan"]["losses"] = ["htl", "rll", "triplet"]
    letters = {"type": "glyphs", "class_fraction": 0.1}
    tiny["datasets"] = {rung: {**letters, "holdout": rung} for rung in ("class", "level_1")}
    tiny["plan"]["datasets"] = ["class", "level_1"]
    study = check_study(tiny, "tiny")
    assert study.has_ladder
    assert not study.has_mean_ranks
    assert not has_mean_ranks(ranked_cells(study.rows))
    tiny["datasets"]["level_1"]["class_fraction"] = 0.2  # other classes
    study = check_study(tiny, "tiny")
    assert not study.has_ladder
    assert study.has_mean_ranks
