"""MSTL: seasonal-trend decomposition by loess with a daily and a weekly season.

Source: Bandara, Hyndman and Bergmeir, "MSTL: a seasonal-trend decomposition algorithm for time
series with multiple seasonal patterns", arXiv 2107.13462 (2021). Its newest week goes on, moved to
the present level by an autoregression.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from statsmodels.tsa.seasonal import MSTL

from forecaster import cycle
from forecaster.cycle import LocalMeans, autoregression, local_means
from forecaster.demand import Demand, Ints
from forecaster.forecast import ForecastError, Parameters, Window
from forecaster.history import Floats

MIN_DAYS = 3.0
MIN_WEEKS = 2


@dataclass(frozen=True, slots=True)
class Decomposition:
    """On means of `slot_seconds`: finer ones cost much and show little more."""

    slot_seconds: int = 3600

    @property
    def name(self) -> str:
        return "mstl"

    def fit(self, demand: Demand, windows: Sequence[Window]) -> Parameters:  # noqa: ARG002
        """Parameters: `profile`, the log rate by slot of the local week at the newest level;
        `lags`, weights of the newest deviations from it. Raises ForecastError below three days of
        known history."""
        days = float(np.isfinite(demand.logs).sum()) / demand.steps_per_day
        if days < MIN_DAYS:
            raise ForecastError(
                f"{self.name}: needs {MIN_DAYS:g} days of known history, has {days:.1f}"
            )
        means = local_means(demand, self.slot_seconds)
        values = _imputed(means)
        weekly = len(values) > MIN_WEEKS * means.a_week
        periods = (means.a_day, means.a_week) if weekly else (means.a_day,)
        parts = MSTL(values, periods=periods).fit()
        seasonal = np.asarray(parts.seasonal).reshape(len(values), -1).sum(axis=1)
        newest = _newest_cycle(seasonal, means.first, periods[-1])
        profile = newest[np.arange(means.a_week) % periods[-1]] + parts.trend[-1]
        deviations = means.values - profile[means.slots % means.a_week]
        return {"profile": profile.tolist(), "lags": autoregression(deviations).tolist()}

    def locate(
        self, parameters: Parameters, demand: Demand, windows: Sequence[Window], origins: Ints
    ) -> Floats:
        return cycle.locate(parameters, demand, windows, origins)


def _imputed(means: LocalMeans) -> Floats:
    """Gaps as the mean of their clock time, moved along a line between the deviations beside them:
    MSTL would answer NaN with nothing but NaN."""
    values, clock = means.values, means.slots % means.a_day
    known = np.isfinite(values)
    seen = np.bincount(clock[known], minlength=means.a_day)
    sums = np.bincount(clock[known], weights=values[known], minlength=means.a_day)
    usual = np.where(seen > 0, sums / np.maximum(seen, 1), values[known].mean())[clock]
    places = np.flatnonzero(known)
    moved = np.interp(np.arange(len(values)), places, (values - usual)[known])
    return np.where(known, values, usual + moved)


def _newest_cycle(seasonal: Floats, first: int, period: int) -> Floats:
    """The last `period` values, turned so that the slot 0 of the wall clock comes first."""
    return np.roll(seasonal[-period:], (first + len(seasonal)) % period)
