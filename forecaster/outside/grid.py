"""Coarser steps for tools that are slow or blind on fine ones, always ending where one stands.

Knows means over blocks and gaps. Knows no tool.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from forecaster.demand import Demand, Ints
from forecaster.forecast import ForecastError, Window
from forecaster.history import Floats


def factor_for(demand: Demand, seconds: int) -> int:
    """Steps a block, so that a block is at least so long."""
    return max(1, -(-seconds // demand.step_seconds))


def blocks_before(values: Floats, origin: int, factor: int, count: int) -> Floats:
    """Means of the last `count` blocks that end at the origin, oldest first; fewer where the
    history is shorter. Gaps are bridged from what is known before the origin.

    Raises ForecastError where nothing is known.
    """
    fitting = min(count, origin // factor)
    part = values[origin - fitting * factor : origin]
    known = np.flatnonzero(np.isfinite(part))
    if not len(known):
        raise ForecastError("the newest steps are all gaps")
    whole = np.interp(np.arange(len(part)), known, part[known])
    return np.asarray(whole.reshape(fitting, factor).mean(axis=1), dtype=np.float64)


def blocks_ahead(windows: Sequence[Window], factor: int) -> int:
    """How many blocks after an origin reach to the end of every window."""
    return max(window.last - 1 for window in windows) // factor + 1


def highest(path: Floats, windows: Sequence[Window], factor: int) -> Floats:
    """The highest of a path of blocks within each window."""
    return np.array(
        [path[w.first // factor : (w.last - 1) // factor + 1].max() for w in windows],
        dtype=np.float64,
    )


def rates_before(demand: Demand, origin: int, factor: int, count: int) -> Floats:
    """Mean requests a second of the blocks before an origin."""
    rates = np.maximum(np.exp(demand.logs[:origin]) - demand.offset, 0.0)
    return blocks_before(rates, origin, factor, count)


def logs_of(rate: float, offset: float) -> float:
    """As the other members see it; a forecast below zero is zero."""
    return math.log(max(rate, 0.0) + offset)


def each(origins: Ints, windows: Sequence[Window]) -> Floats:
    """Room for an answer to every question, NaN until it is given."""
    return np.full((len(origins), len(windows)), np.nan)
