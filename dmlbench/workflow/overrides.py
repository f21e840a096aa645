"""The settings that `snakemake --config key=value` overrides."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from dmlbench.utils.errors import StudyError, UnreadableYaml
from dmlbench.utils.yaml_text import read_yaml


def check_overrides(arguments: Sequence[str]) -> None:
    """Refuse overrides that Snakemake would read as something else.

    Args:
        arguments: those of Snakemake's command line.

    Raises:
        StudyError: a key is given twice, or a value is not YAML that everybody reads alike.

    >>> check_overrides(["-n", "--config", "study=mine", "recipe={lr: 0.1}"])
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--config", "-C", nargs="*", default=[])
    problems = []
    keys = set()
    for entry in parser.parse_known_args(arguments)[0].config:
        key, _, value = entry.partition("=")
        if key in keys:
            problems.append(f"{key}: it is given twice. Remove one of them.")
        keys.add(key)
        try:
            read_yaml(value)
        except UnreadableYaml as error:
            problems += [f"{key}: {problem}" for problem in error.problems]
    if problems:
        raise StudyError("--config", problems)
