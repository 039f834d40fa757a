"""Baselines that need no fitting: what any model must beat at short leads.

Known in the field as persistence: the future is the newest value, or goes on as it was going.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from forecaster.demand import Demand, Ints
from forecaster.forecast import Parameters, Window
from forecaster.history import Floats

MIN_SLOPE_STEPS = 5


@dataclass(frozen=True, slots=True)
class LastValue:
    """The newest known rate, whatever the window."""

    @property
    def name(self) -> str:
        return "last_value"

    def fit(self, demand: Demand, windows: Sequence[Window]) -> Parameters:  # noqa: ARG002
        return {}

    def locate(
        self,
        parameters: Parameters,  # noqa: ARG002
        demand: Demand,
        windows: Sequence[Window],
        origins: Ints,
    ) -> Floats:
        return np.repeat(_carried(demand.logs, origins)[:, None], len(windows), axis=1)


@dataclass(frozen=True, slots=True)
class Trend:
    """The newest rate moved on along a straight line, fitted by least squares over as much of the
    past as the forecast looks ahead (at least five steps); never below the last day's lowest."""

    @property
    def name(self) -> str:
        return "trend"

    def fit(self, demand: Demand, windows: Sequence[Window]) -> Parameters:  # noqa: ARG002
        return {}

    def locate(
        self,
        parameters: Parameters,  # noqa: ARG002
        demand: Demand,
        windows: Sequence[Window],
        origins: Ints,
    ) -> Floats:
        rates = np.exp(_filled(demand.logs))
        newest = np.where(origins > 0, rates[np.maximum(origins - 1, 0)], np.nan)
        lowest = _lowest(rates, origins, demand.steps_per_day)
        columns = []
        for window in windows:
            rise = _slope(rates, origins, max(window.last, MIN_SLOPE_STEPS))
            # A line is highest at one of its ends; its first step ahead is one slope on.
            steps = np.where(rise > 0, window.last, window.first + 1)
            columns.append(np.log(np.maximum(newest + steps * rise, lowest)))
        return np.column_stack(columns)


def _carried(logs: Floats, origins: Ints) -> Floats:
    """The newest known value before each origin; NaN where there is none."""
    return np.where(origins > 0, _filled(logs)[np.maximum(origins - 1, 0)], np.nan)


def _filled(values: Floats) -> Floats:
    """Gaps as the newest value known before them."""
    places = np.maximum.accumulate(np.where(np.isfinite(values), np.arange(len(values)), 0))
    return np.asarray(values[places], dtype=np.float64)


def _lowest(values: Floats, origins: Ints, steps: int) -> Floats:
    """The lowest of the `steps` before each origin, or of as many as there are."""
    padded = np.concatenate([np.full(steps, np.inf), values])
    views = np.lib.stride_tricks.sliding_window_view(padded, steps)
    return np.asarray(views[origins].min(axis=1), dtype=np.float64)


def _slope(values: Floats, origins: Ints, steps: int) -> Floats:
    """Least-squares slope a step over the `steps` before each origin; NaN where there are fewer."""
    weights = np.arange(steps) - (steps - 1) / 2
    weights /= (weights**2).sum()
    slopes = np.full(len(origins), np.nan)
    enough = origins >= steps
    starts = origins[enough] - steps
    views = np.lib.stride_tricks.sliding_window_view(values, steps)
    slopes[enough] = views[starts] @ weights
    return slopes
