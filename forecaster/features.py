"""Features: what a forecast of the next peak looks at, compiled.

From an origin (a boundary between known and unknown steps) they are the recent levels against the
present one, how restless the last hour was, the clock, and what the same clock time did on past
days. All are differences of logs, so that a scale common to all demand cancels. Knows no model.

Gaps are NaN and stay NaN where a feature stands on them alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from forecaster.compiled import as_python
from forecaster.demand import Demand, Ints
from forecaster.forecast import Window
from forecaster.history import Floats

LAG_SECONDS = np.array([60, 120, 240, 420, 660, 960, 1440, 2400, 3600])
LAG_UNITS = np.array([1, 2, 3, 4, 6, 8, 12])
PAST_DAYS = np.array([1, 2, 3, 7, 14])
EDGE_DAYS = np.array([1, 2, 3, 4, 5, 6, 7, 14])
SAME_TYPE_DAYS = 7
CLOCK_HARMONICS = 6
DAY_OFF_HARMONICS = 3
SLOPE_SECONDS = 1800
VOLATILITY_HALF_LIFE_SECONDS = 600
VOLATILITY_FLOOR = 1e-4
EDGE_WEEKS, MIN_EDGE_WEEKS = 3, 2
EDGE_FIGURES, WEEKLY_EDGES = 6, slice(4, 6)
MIN_EDGE_DAYS = 3


@dataclass(frozen=True, eq=False)
class Layout:
    """Where each feature stands, for one step length and one set of windows.

    Columns: `recent` ones first, then past days, clock, and `own` columns for each window.
    """

    step_seconds: int
    windows: tuple[Window, ...]
    unit: int
    lags: Ints
    short: int
    hour: int
    slope: int
    decay: float

    @cached_property
    def shape(self) -> tuple[int, int, int, int, float, int]:
        return self.unit, self.short, self.hour, self.slope, self.decay, self.step_seconds

    @cached_property
    def recent(self) -> int:
        """Columns that need no past day: lags, newest, two maxima, mean, volatility, level."""
        return len(self.lags) + 6

    @cached_property
    def common(self) -> int:
        clock = 2 * (CLOCK_HARMONICS + DAY_OFF_HARMONICS) + 1
        return self.recent + 2 * len(PAST_DAYS) + clock

    @cached_property
    def own(self) -> int:
        return len(PAST_DAYS) + 2

    @cached_property
    def width(self) -> int:
        return self.common + self.own * len(self.windows)

    @cached_property
    def bounds(self) -> tuple[Ints, Ints]:
        """First and last step of each window."""
        firsts = np.array([window.first for window in self.windows], dtype=np.int64)
        return firsts, np.array([window.last for window in self.windows], dtype=np.int64)

    @cached_property
    def scale_columns(self) -> Ints:
        """What the scale of the error is regressed on: recent ones, the clock, and how far the
        first window rose on days of this type."""
        clock = np.arange(self.recent + 2 * len(PAST_DAYS), self.common)
        own = np.arange(self.common + self.own - 2, self.common + self.own)
        return np.concatenate([np.arange(self.recent), clock, own])

    def columns(self, window: int) -> Ints:
        """The columns that a window's regression reads."""
        first = self.common + window * self.own
        return np.concatenate([np.arange(self.common), np.arange(first, first + self.own)])


def layout_for(step_seconds: int, windows: Sequence[Window]) -> Layout:
    unit = max(1, 60 // step_seconds)
    unit_seconds = unit * step_seconds
    lags = np.unique(np.maximum(1, LAG_SECONDS // unit_seconds))
    if unit_seconds > 60:
        lags = np.unique(np.concatenate([lags, LAG_UNITS]))
    half_life = max(VOLATILITY_HALF_LIFE_SECONDS / step_seconds, 2.0)
    return Layout(
        step_seconds,
        tuple(windows),
        unit,
        lags.astype(np.int64),
        max(600 // step_seconds, 3),
        max(3600 // step_seconds, 6),
        max(SLOPE_SECONDS // step_seconds, 1),
        0.5 ** (1.0 / half_life),
    )


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """What was seen from each origin: `level` is the present log rate (NaN where not known),
    `features` has a row an origin, `edges` holds median, lower quartile and spread of the first
    window's growth on past days, how many days there were, and the least and the most of its growth
    on the same weekday of past weeks (NaN under two)."""

    layout: Layout
    level: Floats
    features: Floats
    edges: Floats


def seen_from(demand: Demand, layout: Layout, origins: Ints) -> Seen:
    count = len(origins)
    level = np.empty(count)
    features = np.empty((count, layout.width))
    edges = np.empty((count, EDGE_FIGURES))
    firsts, lasts = layout.bounds
    features_from(
        demand.logs,
        demand.local,
        demand.day_type,
        origins,
        layout.shape,
        layout.lags,
        firsts,
        lasts,
        level,
        features,
        edges,
    )
    return Seen(layout, level, features, edges)


@as_python
def _mean(logs, first, last):  # type: ignore[no-untyped-def]
    total = 0.0
    known = 0
    for i in range(max(first, 0), min(last, len(logs))):
        if logs[i] == logs[i]:
            total += logs[i]
            known += 1
    return total / known if known > 0 else np.nan


@as_python
def peak(logs, first, last):  # type: ignore[no-untyped-def]
    """The highest of the steps first .. last - 1; NaN where none is known."""
    high = np.nan
    for i in range(max(first, 0), min(last, len(logs))):
        if not logs[i] <= high and logs[i] == logs[i]:
            high = logs[i]
    return high


@as_python
def _level(logs, origin, unit):  # type: ignore[no-untyped-def]
    """Mean log rate of the newest minute, or of the newest of four that is known at all."""
    for back in range(4):
        mean = _mean(logs, origin - (back + 1) * unit, origin - back * unit)
        if mean == mean:
            return mean
    return np.nan


@as_python
def _volatility(logs, origin, hour, decay):  # type: ignore[no-untyped-def]
    weight = 1.0
    total = 0.0
    weights = 0.0
    for i in range(origin - 1, max(origin - hour, 0), -1):
        change = logs[i] - logs[i - 1]
        if change == change:
            total += weight * abs(change)
            weights += weight
        weight *= decay
    return total / weights if weights > 0 else np.nan


@as_python
def same_clock(local, origin, days, step_seconds):  # type: ignore[no-untyped-def]
    """The origin at the same wall-clock time some days before; negative where there is none.

    The origin's own clock is that of the newest known step, one step before it.
    """
    newest = origin - 1
    back = newest - days * 86400 // step_seconds
    if back < 0:
        return -1
    error = local[back] - (local[newest] - days * 86400)
    back -= error // step_seconds
    if back < 0 or back >= newest:
        return -1
    return back + 1


@as_python
def features_from(  # type: ignore[no-untyped-def]
    logs, local, day_type, origins, shape, lags, firsts, lasts, level, features, edges
):
    unit, short, hour, slope, decay, step_seconds = shape
    days = PAST_DAYS
    growths = np.empty(len(EDGE_DAYS))
    for row in range(len(origins)):
        origin = origins[row]
        out = features[row]
        present = _level(logs, origin, unit)
        level[row] = present
        column = 0
        for lag in lags:
            out[column] = _mean(logs, origin - (lag + 1) * unit, origin - lag * unit) - present
            column += 1
        out[column] = (logs[origin - 1] if origin > 0 else np.nan) - present
        out[column + 1] = peak(logs, origin - short, origin) - present
        out[column + 2] = peak(logs, origin - hour, origin) - present
        out[column + 3] = _mean(logs, origin - hour, origin) - present
        out[column + 4] = np.log(_volatility(logs, origin, hour, decay) + VOLATILITY_FLOOR)
        out[column + 5] = present
        column += 6
        for d in range(len(days)):
            then = same_clock(local, origin, days[d], step_seconds)
            was = _level(logs, then, unit) if then > 0 else np.nan
            out[column] = was - present
            before = _mean(logs, then - slope - unit, then - slope) if then > 0 else np.nan
            out[column + 1] = was - before
            column += 2
        newest = max(origin - 1, 0)
        phase = 2 * np.pi * (local[newest] % 86400) / 86400
        off = day_type[newest]
        for k in range(1, CLOCK_HARMONICS + 1):
            out[column] = np.sin(k * phase)
            out[column + 1] = np.cos(k * phase)
            column += 2
        for k in range(1, DAY_OFF_HARMONICS + 1):
            out[column] = off * np.sin(k * phase)
            out[column + 1] = off * np.cos(k * phase)
            column += 2
        out[column] = off
        column += 1
        for w in range(len(firsts)):
            first = firsts[w]
            last = lasts[w]
            for d in range(len(days)):
                out[column] = _growth(logs, local, origin, days[d], first, last, unit, step_seconds)
                column += 1
            _same_type(logs, local, day_type, origin, first, last, unit, step_seconds, out, column)
            column += 2
        _edge(
            logs,
            local,
            day_type,
            origin,
            firsts[0],
            lasts[0],
            unit,
            step_seconds,
            growths,
            edges[row],
        )


@as_python
def _growth(logs, local, origin, days, first, last, unit, step_seconds):  # type: ignore[no-untyped-def]
    """How far the window's peak stood above the level at this clock time, some days ago; NaN
    where that window has not ended yet."""
    then = same_clock(local, origin, days, step_seconds)
    if then <= 0 or then + last > origin:
        return np.nan
    return peak(logs, then + max(first, -unit), then + last) - _level(logs, then, unit)


@as_python
def _same_type(  # type: ignore[no-untyped-def]
    logs, local, day_type, origin, first, last, unit, step_seconds, out, column
):
    total = 0.0
    known = 0
    high = np.nan
    for days in range(1, SAME_TYPE_DAYS + 1):
        then = same_clock(local, origin, days, step_seconds)
        if then <= 0 or day_type[then - 1] != day_type[origin - 1]:
            continue
        growth = _growth(logs, local, origin, days, first, last, unit, step_seconds)
        if growth == growth:
            total += growth
            known += 1
            if not growth <= high:
                high = growth
    out[column] = total / known if known > 0 else np.nan
    out[column + 1] = high


@as_python
def _edge(  # type: ignore[no-untyped-def]
    logs, local, day_type, origin, first, last, unit, step_seconds, growths, out
):
    """Median, lower quartile and spread of past growths at this clock: days of the same type,
    all days where those are fewer than three. Beside them the least and the most of the same
    weekday's: what comes on some working days only is no edge of most of them."""
    _same_weekday(logs, local, origin, first, last, unit, step_seconds, out)
    known = 0
    for strict in range(2):
        known = _collect(
            logs, local, day_type, origin, first, last, unit, step_seconds, strict == 0, growths
        )
        if known >= MIN_EDGE_DAYS:
            break
    out[:3] = np.nan
    out[3] = known
    if known == 0:
        return
    out[1] = _quantile(np.sort(growths[:known]), 0.25)
    known = _collect(
        logs,
        local,
        day_type,
        origin,
        first - unit,
        last + unit,
        unit,
        step_seconds,
        strict == 0,
        growths,
    )
    if known > 0:
        out[0] = _quantile(np.sort(growths[:known]), 0.5)
        out[2] = np.std(growths[:known])


@as_python
def _same_weekday(logs, local, origin, first, last, unit, step_seconds, out):  # type: ignore[no-untyped-def]
    known = 0
    least, most = np.inf, -np.inf
    for weeks in range(1, EDGE_WEEKS + 1):
        growth = _growth(
            logs, local, origin, 7 * weeks, first - unit, last + unit, unit, step_seconds
        )
        if growth == growth:
            known += 1
            least, most = min(least, growth), max(most, growth)
    out[4], out[5] = (least, most) if known >= MIN_EDGE_WEEKS else (np.nan, np.nan)


@as_python
def _collect(  # type: ignore[no-untyped-def]
    logs, local, day_type, origin, first, last, unit, step_seconds, same_type, growths
):
    known = 0
    for d in range(len(EDGE_DAYS)):
        then = same_clock(local, origin, EDGE_DAYS[d], step_seconds)
        if then <= 0 or (same_type and day_type[then - 1] != day_type[origin - 1]):
            continue
        growth = _growth(logs, local, origin, EDGE_DAYS[d], first, last, unit, step_seconds)
        if growth == growth:
            growths[known] = growth
            known += 1
    return known


@as_python
def _quantile(ordered, level):  # type: ignore[no-untyped-def]
    at = level * (len(ordered) - 1)
    low = int(at)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (at - low) * (ordered[high] - ordered[low])
