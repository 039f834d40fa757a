"""Demand: what models read, log request rate on a grid with the calendar of each step.

Knows logs, gaps and clock time. Knows no model.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.ndimage import maximum_filter1d

from forecaster.calendar import Calendar
from forecaster.forecast import ForecastError, Window
from forecaster.history import Floats, TrafficHistory

Ints = npt.NDArray[np.int64]

OFFSET_RATIO = 1e-3
"""Of the median rate; added before the log, so that log(0) exists and forecasts are scale-free."""
MOST_EXPECTED, MOST_POSSIBLE = math.log(2.0), math.log(3.0)
"""Log rate by which what is expected, and the highest quantile of it, may exceed all that was seen.
Growths of days that began from nothing, added to a rate that is there already, know no bound."""


@dataclass(frozen=True, slots=True, eq=False)
class Demand:
    """`logs[i]` is log(rate + offset) over step i, NaN for a gap; the arrays are equally long.

    `local` is wall-clock seconds since a Monday 00:00; `day_type` is 0 on working days, 1 on
    days off (weekends of the country, holidays), as `Calendar` says.
    """

    logs: Floats
    local: Ints
    day_type: Ints
    step_seconds: int
    offset: float

    def __len__(self) -> int:
        return len(self.logs)

    @property
    def steps_per_day(self) -> int:
        return 86_400 // self.step_seconds

    def before(self, cut: int) -> Demand:
        """The first `cut` steps."""
        parts = (self.logs[:cut], self.local[:cut], self.day_type[:cut])
        return Demand(*parts, self.step_seconds, self.offset)

    def most_expected(self, origins: Ints) -> Floats:
        """The log rate that nothing which is said from each origin goes beyond."""
        highest: Floats = np.fmax.accumulate(self.logs)[origins - 1]
        return highest + MOST_EXPECTED

    def peaks(self, window: Window, origins: Ints) -> Floats:
        """The highest known log rate of the window after each origin; NaN where it is not known
        whole. An origin i stands between steps i - 1 and i."""
        length = window.last - window.first
        padded = np.concatenate([self.logs, np.full(window.last, np.nan)])
        spans = np.lib.stride_tricks.sliding_window_view(padded, length)
        return np.asarray(spans[origins + window.first].max(axis=1), dtype=np.float64)


def trailing_peaks(values: Floats, width: int) -> Floats:
    """At each place the highest of the newest `width` values, at least that one."""
    size = max(1, min(width, len(values)))
    peaks: Floats = maximum_filter1d(values, size, origin=(size - 1) // 2, mode="nearest")
    return peaks


def log_offset(history: TrafficHistory) -> float:
    """Raises ForecastError where the history holds no traffic."""
    known = history.values[np.isfinite(history.values) & (history.values > 0)]
    if not len(known):
        raise ForecastError("the history holds no traffic")
    return float(np.median(known)) * OFFSET_RATIO


def demand_of(history: TrafficHistory, calendar: Calendar, offset: float | None = None) -> Demand:
    """Raises ForecastError where the history holds no traffic to take a scale from."""
    chosen = log_offset(history) if offset is None else offset
    seconds = history.epoch_seconds()
    local = calendar.local_seconds(seconds)
    logs = np.asarray(np.log(history.values + chosen), dtype=np.float64)
    return Demand(logs, local, calendar.day_types(local), history.step_seconds, chosen)
