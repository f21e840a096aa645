"""`snakemake --config key=value` does not lose or misread a value in silence."""

import re

import pytest

from dmlbench.utils.errors import StudyError
from dmlbench.workflow.overrides import check_overrides


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["-n", "--configfile", "a.yaml", "b.yaml"],
        ["--config", "study=a", "recipe={lr: 0.1, epochs: 3}", "tracking=false", "--cores", "2"],
        ["-C", "study=a=b", "plan={'seeds': [0, 1]}"],
        ["--config=study=a", "--resources", "gpu=010"],
        ["--config", "study="],
    ],
)
def test_overrides_that_are_read_as_they_are_written_pass(arguments):
    check_overrides(arguments)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--config", "study=a", "study=b"], "study: it is given twice. Remove one of them."),
        (["-C", "recipe={lr: 1, lr: 2}"], "recipe: the key `lr` is twice in the mapping"),
        (["-n", "--config", "runs_per_gpu=010"], "runs_per_gpu: line 1: YAML reads `010` as 8."),
        (["--config=runs_per_gpu=1_0"], "runs_per_gpu: line 1: YAML reads `1_0` as 10."),
        (["--config", "recipe={lr: 1"], "recipe: this is not YAML: line 1: "),
    ],
)
def test_overrides_that_would_be_lost_or_misread_are_refused(arguments, problem):
    message = f"--config: the study cannot be run:\n  {problem}"
    with pytest.raises(StudyError, match=f"^{re.escape(message)}"):
        check_overrides(arguments)
