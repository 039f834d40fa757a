"""Seasonal naive with a damped level: last week (or yesterday), moved towards today's level.

The floor of the ladder: it needs one season of history and cannot fail to converge.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from forecaster.calendar import DAY_SECONDS
from forecaster.compiled import as_python
from forecaster.cycle import FIT_DAYS
from forecaster.demand import Demand, Ints
from forecaster.forecast import ForecastError, Parameters, Window
from forecaster.history import Floats

LEVEL_SECONDS = 1800
"""The level of the last half hour is compared with the same half hour of the season before."""
MIN_SEASONS = 1.25
MIN_DAYS_FOR_WEEK = 8
MAX_ROWS = 4_000


@dataclass(frozen=True, slots=True)
class DampedSeasonalNaive:
    @property
    def name(self) -> str:
        return "damped_seasonal_naive"

    def fit(self, demand: Demand, windows: Sequence[Window]) -> Parameters:
        """Parameters: `season_days`; `damping`, by window the share of the log level difference
        that lasts, by least squares. Raises ForecastError below a day and a quarter of history."""
        days = len(demand) / demand.steps_per_day
        if days < MIN_SEASONS:
            raise ForecastError(
                f"{self.name}: needs {MIN_SEASONS:g} days of history, has {days:.1f}"
            )
        season = 7 if days >= MIN_DAYS_FOR_WEEK else 1
        first = max(season * demand.steps_per_day, len(demand) - FIT_DAYS * demand.steps_per_day)
        stride = max(1, (len(demand) - first) // MAX_ROWS)
        origins = np.arange(len(demand), first, -stride, dtype=np.int64)[::-1]
        undamped, moved = (_seen(demand, season, windows, origins, share) for share in (0.0, 1.0))
        missed = np.column_stack([demand.peaks(window, origins) for window in windows]) - undamped
        damping = [_share(moved[:, w] - undamped[:, w], missed[:, w]) for w in range(len(windows))]
        return {"season_days": float(season), "damping": damping}

    def locate(
        self, parameters: Parameters, demand: Demand, windows: Sequence[Window], origins: Ints
    ) -> Floats:
        """NaN where the season before, or half of the last half hour, is not known."""
        season = int(np.asarray(parameters["season_days"], dtype=np.float64))
        damping = np.asarray(parameters["damping"], dtype=np.float64)
        return _seen(demand, season, windows, origins, damping)


def _share(level: Floats, missed: Floats) -> float:
    """What is best taken of a level difference to make up for what was missed, in [0, 1]."""
    known = np.isfinite(level) & np.isfinite(missed)
    square = float((level[known] ** 2).sum())
    if square == 0:
        return 0.0
    return min(max(float((level[known] * missed[known]).sum()) / square, 0.0), 1.0)


def _seen(
    demand: Demand, season: int, windows: Sequence[Window], origins: Ints, damping: Floats | float
) -> Floats:
    located = np.full((len(origins), len(windows)), np.nan)
    _locate(
        demand.logs,
        demand.local,
        origins,
        (season, demand.steps_per_day, max(1, LEVEL_SECONDS // demand.step_seconds)),
        np.array([(window.first, window.last) for window in windows], dtype=np.int64),
        np.full(len(windows), damping),
        located,
    )
    return located


@as_python
def _same_clock(local, origin, days, steps_per_day):  # type: ignore[no-untyped-def]
    """The origin at the same wall-clock time some days before; negative where there is none."""
    back = origin - 1 - days * steps_per_day
    if back < 0:
        return -1
    error = local[back] - (local[origin - 1] - days * DAY_SECONDS)
    back -= error * steps_per_day // DAY_SECONDS
    return back + 1 if 0 <= back < origin - 1 else -1


@as_python
def _level(logs, origin, then, steps):  # type: ignore[no-untyped-def]
    """The mean difference of the newest steps to those before `then`; NaN where fewer than half
    are known on both sides."""
    total = 0.0
    known = 0
    for back in range(1, min(steps, then) + 1):
        difference = logs[origin - back] - logs[then - back]
        if difference == difference:
            total += difference
            known += 1
    return total / known if 2 * known >= steps else np.nan


@as_python
def _locate(logs, local, origins, shape, windows, damping, located):  # type: ignore[no-untyped-def]
    season, steps_per_day, level_steps = shape
    for row in range(len(origins)):
        origin = origins[row]
        then = _same_clock(local, origin, season, steps_per_day)
        if then <= 0:
            continue
        level = _level(logs, origin, then, level_steps)
        for window in range(len(windows)):
            first, last = windows[window]
            seasons = 1 + (last - 1) // (season * steps_per_day)
            start = _same_clock(local, origin, season * seasons, steps_per_day)
            if start <= 0:
                continue
            high = np.nan
            for step in range(start + first, start + last):
                if not logs[step] <= high and logs[step] == logs[step]:
                    high = logs[step]
            located[row, window] = high + damping[window] * level
