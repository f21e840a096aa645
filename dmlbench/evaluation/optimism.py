"""How much better a run would look if its epoch were chosen by its test score.

Nothing is chosen by these numbers. They say how much a table gains that reports the best epoch on
the test classes, as many papers do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

METRICS = ("map@r", "recall@1", "verification_accuracy")
"""The metrics by which an epoch is chosen, each by itself, if the protocol has them."""


def optimism(scores: Mapping[int, Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """The best epoch by each metric, and what it gains over the last epoch.

    Args:
        scores: epoch -> its rows of `evaluate`. The largest epoch is the one that counts as the
            result. An epoch without a row of a metric is not the best one.

    Returns:
        Rows {"protocol", "metric", "best_epoch", "best", "last", "gap"}: the first epoch with the
        largest value, this value, that of the last epoch, and `best` - `last`.

    >>> values = {1: 0.2, 2: 0.5, 3: 0.5, 4: 0.375}
    >>> scores = {
    ...     epoch: [{"protocol": "zero_shot", "metric": "map@r", "value": value}]
    ...     for epoch, value in values.items()
    ... }
    >>> optimism(scores)[0]["best_epoch"], optimism(scores)[0]["gap"]
    (2, 0.125)
    """
    by_metric: dict[tuple[str, str], dict[int, float]] = {}
    for epoch in sorted(scores):
        for row in scores[epoch]:
            if row["metric"] in METRICS:
                values = by_metric.setdefault((row["protocol"], row["metric"]), {})
                values[epoch] = row["value"]
    last = max(scores, default=0)
    rows = []
    for (protocol, metric), values in by_metric.items():
        if last in values:
            best = max(values, key=lambda epoch: (values[epoch], -epoch))
            rows.append(
                {
                    "protocol": protocol,
                    "metric": metric,
                    "best_epoch": best,
                    "best": values[best],
                    "last": values[last],
                    "gap": values[best] - values[last],
                }
            )
    return rows
