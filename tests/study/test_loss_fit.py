"""Options of a loss that contradict each other, or the batches of the recipe."""

import pytest

from dmlbench.study.loss_fit import loss_misfits
from dmlbench.study.study import check_study

MISFITS = {
    "an option of another base": (
        {"type": "hpl", "temperature": 0.1},
        {},
        ".temperature: 0.1 is not used with base: proxy_anchor, only with normalized_softmax or "
        "proxynca_pp. Leave it out.",
    ),
    "groups of k-means that are given": (
        {"type": "hpl", "hierarchy": "given", "coarse_proxies": 5},
        {},
        ".coarse_proxies: 5 is not used with hierarchy: given, only with kmeans. Leave it out.",
    ),
    "the rate of what does not learn": (
        {"type": "margin", "learn_beta": False, "beta_lr_factor": 3},
        {},
        ".beta_lr_factor: 3.0 is not used with learn_beta: False, only with True. Leave it out.",
    ),
    "all images are anchors": (
        {"type": "group_loss", "anchors": 4},
        {},
        ".anchors: 4 must be less than recipe.images_per_class: 4.",
    ),
    "a list as long as the batch": (
        {"type": "recall_at_k", "largest_k": 80},
        {},
        ".largest_k: 80 must be less than recipe.batch_size: 80.",
    ),
    "a memory that does not hold a batch": (
        {"type": "contrastive", "memory": 79},
        {},
        ".memory: 79 must be recipe.batch_size: 80 or more.",
    ),
    "no pairs": (
        {"type": "triplet"},
        {"images_per_class": 1},
        ": it compares images of the same class, and a batch has 1 of each. Take "
        "recipe.images_per_class: 2 or more, or null.",
    ),
}


def misfits(options, recipe, letters):
    letters["losses"]["mine"] = options
    letters["plan"] |= {"losses": ["mine"], "controls": []}
    letters["recipe"] |= recipe
    (run, *_) = check_study(letters, "my.yaml").runs.values()
    return [*loss_misfits(run)]


@pytest.mark.parametrize("case", MISFITS)
def test_what_does_not_fit_is_named_with_its_option_and_the_fix(case, letters):
    options, recipe, message = MISFITS[case]
    assert misfits(options, recipe, letters) == [message]


@pytest.mark.parametrize(
    ("options", "recipe"),
    [
        ({"type": "hpl", "base": "proxynca_pp", "temperature": 0.1}, {}),
        ({"type": "hpl", "base": "softtriple", "alpha": 32.0}, {}),  # its default
        ({"type": "group_loss", "anchors": 3}, {}),
        ({"type": "group_loss", "anchors": 4}, {"images_per_class": None}),
        ({"type": "recall_at_k", "largest_k": 79}, {}),
        ({"type": "contrastive", "memory": 80}, {}),
        ({"type": "triplet"}, {"images_per_class": 2}),
        ({"type": "triplet"}, {"images_per_class": None}),
        ({"type": "softtriple"}, {"images_per_class": 1}),
        ({"type": "pml.TripletMarginLoss"}, {"images_per_class": 1}),
    ],
)
def test_what_fits_is_accepted(options, recipe, letters):
    assert misfits(options, recipe, letters) == []


def test_unit_vectors_of_several_models_have_no_hyperbolic_distance(letters):
    letters["protocol"] = "reality_check"
    (problem,) = misfits({"type": "hyp"}, {}, letters)
    assert problem == (
        ": it ranks by hyperbolic distance, and protocol: reality_check puts unit vectors of "
        "several models side by side. Leave mine out, or set `protocol: standard`."
    )
    assert misfits({"type": "supcon"}, {}, letters) == []
