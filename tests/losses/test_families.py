"""Each loss of the package says of which family it is, in the header of its file."""

from dmlbench.losses import list_losses
from dmlbench.losses._catalogue import NO_FAMILY, loss_family

FAMILIES = {"pairs", "ranking", "proxies", "classification", "tree"}


def test_each_loss_names_a_family_that_others_name_too():
    assert {loss_family(name) for name in list_losses()} == FAMILIES


def test_a_loss_that_names_none_or_is_not_here_any_more_has_none():
    assert loss_family("pml.CircleLoss") == NO_FAMILY
    assert loss_family("gone_package.losses.Gone") == NO_FAMILY
