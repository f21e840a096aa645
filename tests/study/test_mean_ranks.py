"""A study of several data sets has a plot of mean ranks, if enough losses are on all of them."""

import pytest

from dmlbench.study.mean_ranks import has_mean_ranks
from dmlbench.study.study import check_study

THREE = ("htl", "rll", "hpl")


def cells(losses, datasets, backbone="tiny"):
    return [(backbone, (data, data), loss) for data in datasets for loss in losses]


@pytest.mark.parametrize(
    ("planned", "expected"),
    [
        (cells(THREE, ["cub", "sop"]), True),
        (cells(THREE, ["cub"]), False),
        (cells(THREE[:2], ["cub", "sop"]), False),
        (cells(("control_random", "embeddings_x", "htl"), ["cub", "sop"]), False),
        (cells(THREE, ["cub"]) + cells(THREE, ["sop"], "large"), False),
        (cells(THREE, ["cub"]) + cells(THREE, ["cub", "sop"], "large"), True),
        ([("tiny", ("cub", test), loss) for test in ("cub", "sop") for loss in THREE], True),
        ([], False),
    ],
)
def test_mean_ranks_need_three_losses_on_two_data_sets_with_one_backbone(planned, expected):
    assert has_mean_ranks(planned) == expected


def test_a_study_knows_whether_it_has_mean_ranks(tiny):
    assert not check_study(tiny, "tiny").has_mean_ranks
    tiny["datasets"]["more"] = {"type": "glyphs", "class_fraction": 0.2}
    tiny["plan"] |= {"datasets": ["letters", "more"], "losses": ["htl", "rll", "triplet"]}
    assert check_study(tiny, "tiny").has_mean_ranks
