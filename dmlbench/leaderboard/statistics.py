"""Means and intervals over seeds."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.special import stdtrit


def summarise(rows: pd.DataFrame, confidence: float = 0.95) -> pd.DataFrame:
    """Mean over seeds, half the width of its Student-t interval (NaN for one seed) and number of
    seeds, indexed by (loss, metric).

    `rows` are the long table's of one data set, backbone and protocol; failed runs have no part.
    """
    values = rows.dropna(subset="value").groupby(["loss", "metric"], sort=False)["value"]
    found = values.agg(["mean", "std", "count"])
    quantile = stdtrit(found["count"] - 1, (1 + confidence) / 2)
    half_width = quantile * found["std"] / np.sqrt(found["count"])
    return pd.DataFrame({"mean": found["mean"], "half_width": half_width, "seeds": found["count"]})
