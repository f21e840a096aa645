"""Run all checks on a loss, and print a line for each, with a lesson if the loss fails it."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from dmlbench.conformance import (
    arithmetic,
    coverage,
    declaration,
    degenerate,
    execution,
    growth,
    invariance,
    parameters,
    precision,
    purity,
    repeats,
)
from dmlbench.conformance.check import Result
from dmlbench.conformance.subject import Subject, find_loss
from dmlbench.losses._usage import UnpreparedLoss

CHECKS = (
    arithmetic.call,
    # Early, since what counts calls in a global variable may be done with its count later
    repeats.repeats,
    purity.random,
    purity.inputs,
    declaration.header,
    declaration.options,
    declaration.search_space,
    arithmetic.gradient,
    precision.precision,
    precision.autocast,
    arithmetic.divergence,
    degenerate.no_positives,
    degenerate.one_class,
    degenerate.duplicates,
    degenerate.one_point,
    degenerate.zero_vectors,
    invariance.order,
    invariance.numbering,
    invariance.length,
    growth.growth,
    coverage.dimensions,
    coverage.many_classes,
    parameters.moves,
    parameters.param_groups,
    parameters.refresh,
    parameters.device,
    parameters.state,
    parameters.statistics,
    parameters.batches,
    execution.host,
    execution.compiles,
    execution.learns,
)


def check_loss(loss: str, options: Mapping[str, Any]) -> bool:
    """Run all checks on a loss and print their results, as `dmlbench check` does.

    Args:
        loss: the path of a file, which ends in .py; or a name, as `create_loss` takes it.
        options: options of the loss; what is left out has its default.

    Returns:
        whether no check failed.

    Raises:
        UnusableLoss: there is no such loss, or the options do not fit.

    A loss that cannot be called is not checked further:

    >>> from pathlib import Path
    >>> code = '''
    ... from dmlbench.losses.base import Loss
    ...
    ... class LogLoss(Loss):
    ...     def __init__(self, num_classes, embedding_dim, parents):
    ...         super().__init__()
    ...
    ...     def compute(self, embeddings, labels):
    ...         return embeddings.log().mean()
    ... '''
    >>> Path("log_loss.py").write_text(code) > 0
    True
    >>> check_loss("log_loss.py", {})  # doctest: +ELLIPSIS
    log_loss.py: LogLoss, own
    <BLANKLINE>
    FAILED    call           embeddings (N, D) and labels (N,) give one finite number, ...
              Did: A new loss was called: loss(embeddings, labels), float32 embeddings (20, 12), ...
              Saw: It returned nan.
    ...
    1 failed
    The other 31 checks were skipped: they need a loss that can be called.
    False
    """
    subject = find_loss(loss, options)
    shown = "".join(f", {name} {value}" for name, value in subject.options.items())
    print(f"{subject.title}: {type(subject.create()).__name__}, {subject.kind}{shown}\n")
    verdicts: Counter[str] = Counter()
    for result in run_checks(subject):
        print(result, flush=True)
        verdicts[result.verdict] += 1
    print(f"\n{summary(verdicts)}")
    if skipped := len(CHECKS) - verdicts.total():
        print(f"The other {skipped} checks were skipped: they need a loss that can be called.")
    return not verdicts["FAILED"]


def run_checks(subject: Subject) -> Iterator[Result]:
    """The result of each check; only that of the first one if the loss cannot be called."""
    for check in CHECKS:
        with warnings.catch_warnings():
            # the checks also call a loss before its first epoch
            warnings.simplefilter("ignore", UnpreparedLoss)
            result = check(subject)
        yield result
        if check is arithmetic.call and result.verdict != "ok":
            return


def summary(verdicts: Mapping[str, int]) -> str:
    """The counts of verdicts in words.

    >>> summary(Counter({"ok": 31, "warning": 1}))
    '0 failed, 31 ok, 1 with a warning'
    """
    words = {"ok": "ok", "declared": "declared", "-": "not checked", "warning": "with a warning"}
    parts: Iterable[str] = (f"{verdicts[v]} {word}" for v, word in words.items() if verdicts[v])
    return ", ".join([f"{verdicts['FAILED']} failed", *parts])
