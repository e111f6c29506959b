# SPDX-License-Identifier: Apache-2.0
"""Medians and means with confidence intervals, and percentiles."""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Sequence

RESAMPLES = 2000
MANY = 200  # from so many values on, the median's interval is read off the ordered values
Interval = tuple[float, float]


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which `share` (0..1) of the values lie, nearest rank; NaN of nothing."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("nan")


def median_interval(values: Sequence[float], seed: int = 1) -> Interval:
    """The 95 % interval of the median: by order statistics (binomial) of many values, by bootstrap of few."""
    if len(values) >= MANY:
        ordered, half = sorted(values), 0.98 * math.sqrt(len(values))
        return ordered[math.floor(len(values) / 2 - half)], ordered[math.ceil(len(values) / 2 + half)]
    dice = random.Random(seed)
    medians = sorted(statistics.median(dice.choices(values, k=len(values))) for _ in range(RESAMPLES))
    return medians[int(0.025 * RESAMPLES)], medians[int(0.975 * RESAMPLES)]


def mean_interval(values: Sequence[float]) -> Interval:
    """The 95 % interval of the mean of many values (normal approximation)."""
    mean, half = statistics.fmean(values), 1.96 * statistics.stdev(values) / math.sqrt(len(values))
    return mean - half, mean + half
