"""Means over seeds, and their intervals."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.special import stdtrit


def summarise(rows: pd.DataFrame, confidence: float = 0.95) -> pd.DataFrame:
    """Mean over seeds of each loss and metric, with half the width of its Student-t interval.

    For n seeds with standard deviation s (with n - 1 in its denominator), half the width is
    t * s / sqrt(n), where t is the (1 + confidence) / 2 quantile of Student's t distribution with
    n - 1 degrees of freedom.

    Args:
        rows: the rows of the long table of one data set, backbone and protocol, with columns
            "loss", "metric" and "value". Rows without a value (failed runs) do not count.
        confidence: the probability that the interval holds the true mean, if values are normal.

    Returns:
        A table indexed by (loss, metric) with columns "mean", "half_width" and "seeds". The first
        two have the unit of "value"; "half_width" is NaN for one seed.

    >>> rows = pd.DataFrame(
    ...     {"loss": "htl", "metric": "recall@1", "value": [0.50, 0.52, 0.54]}
    ... )
    >>> summarise(rows).round(4)
                   mean  half_width  seeds
    loss metric
    htl  recall@1  0.52      0.0497      3
    """
    values = rows.dropna(subset="value").groupby(["loss", "metric"], sort=False)["value"]
    moments = values.agg(["mean", "std", "count"])
    quantile = stdtrit(moments["count"] - 1, (1 + confidence) / 2)
    half_width = quantile * moments["std"] / np.sqrt(moments["count"])
    return pd.DataFrame(
        {"mean": moments["mean"], "half_width": half_width, "seeds": moments["count"]}
    )
