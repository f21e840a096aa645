"""The command `check`: the conformance kit on one loss."""

from __future__ import annotations

import argparse

from dmlbench.cli.arguments import AddCommand, use_threads
from dmlbench.utils.errors import UnreadableYaml, UnusableLoss
from dmlbench.utils.yaml_text import read_yaml


def add_commands(add_command: AddCommand) -> None:
    check = add_command("check", _check, "run the conformance kit on a loss")
    check.add_argument(
        "loss",
        help="Python file with a loss, or a name: rll, pml.CircleLoss, my_package.my_module.MyLoss",
    )
    check.add_argument(
        "--option",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="an option of the loss, as in a study; may be repeated",
    )


def _check(options: argparse.Namespace) -> int:
    given = {}
    for option in options.option:
        key, equals, value = option.partition("=")
        if not equals:
            raise UnusableLoss(f"--option {option}: it has the form key=value.")
        try:
            given[key] = read_yaml(value)
        except UnreadableYaml as error:
            raise UnusableLoss(f"--option {option}: {error}") from None
    use_threads(1)  # the batches are small
    from dmlbench.utils.gpu_lease import lease_gpu

    with lease_gpu():
        from dmlbench.conformance.kit import check_loss

        return 0 if check_loss(options.loss, given) else 1
