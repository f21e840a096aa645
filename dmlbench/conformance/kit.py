"""All checks of a loss, one line each and a lesson where one fails."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from dmlbench.conformance import (
    arithmetic,
    declaration,
    degenerate,
    execution,
    invariance,
    parameters,
)
from dmlbench.conformance.check import Result
from dmlbench.conformance.subject import Subject, find

CHECKS = (
    arithmetic.call,
    *(declaration.header, declaration.options, declaration.search_space),
    *(arithmetic.gradient, arithmetic.precision, arithmetic.autocast, arithmetic.divergence),
    *(degenerate.no_positives, degenerate.one_class, degenerate.duplicates),
    *(degenerate.one_point, degenerate.zero_vectors),
    *(invariance.order, invariance.numbering, invariance.length),
    *(parameters.moves, parameters.param_groups, parameters.refresh),
    *(parameters.device, parameters.state, parameters.statistics, parameters.batches),
    *(execution.host, execution.compiles, execution.learns),
)


def check_loss(asked: str, given: Mapping[str, Any]) -> bool:
    """Run all checks on the loss `asked`, by name or file, and print what comes of them. Whether
    none failed.

    Raises:
        UnusableLoss: there is no such loss, or the options `given` do not fit.
    """
    subject = find(asked, given)
    options = "".join(f", {name} {value}" for name, value in subject.options.items())
    print(f"{subject.title}: {type(subject.create()).__name__}, {subject.kind}{options}\n")
    verdicts: Counter[str] = Counter()
    for result in results(subject):
        print(result, flush=True)
        verdicts[result.verdict] += 1
    print(f"\n{summary(verdicts)}")
    if skipped := len(CHECKS) - verdicts.total():
        print(f"The other {skipped} checks were skipped: they need a loss that can be called.")
    return not verdicts["FAILED"]


def results(subject: Subject) -> Iterator[Result]:
    """What comes of each check; of the first alone where the loss cannot even be called."""
    for check in CHECKS:
        result = check(subject)
        yield result
        if check is arithmetic.call and result.verdict != "ok":
            return


def summary(verdicts: Mapping[str, int]) -> str:
    words = {"ok": "ok", "declared": "declared", "-": "not for it", "warning": "warnings"}
    parts: Iterable[str] = (f"{verdicts[v]} {word}" for v, word in words.items() if verdicts[v])
    return ", ".join([f"{verdicts['FAILED']} failed", *parts])
