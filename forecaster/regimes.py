"""Regimes: what traffic was doing at a target, since a good average can hide a bad ramp.

Knows ramps, plateaus, nights and days off, as one sees them afterwards. Knows no model.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from forecaster.calendar import WEEK_SECONDS, Calendar
from forecaster.demand import Ints
from forecaster.evaluation import Judged, RollingOrigin, covered
from forecaster.history import Floats, TrafficHistory

REGIMES = ("ramp up", "plateau", "ramp down", "night", "day off")
RAMP_SHARE = 0.2
"""Of the targets on working days the fifth that rises most is ramp up, the fifth that falls most
ramp down."""
HALF_HOUR_SECONDS = 1800
HOURS_OF_WEEK = 168
MIN_APART_SECONDS = 6 * 3600


@dataclass(frozen=True, slots=True)
class RegimeScore:
    """`coverage` is the share of targets at or below the quantile, NaN without points."""

    regime: str
    coverage: float
    points: int


def regimes(plan: RollingOrigin, judged: Judged, calendar: Calendar) -> npt.NDArray[np.str_]:
    """The regime of each target, from the half hours before and after it.

    Days off stand apart. Ramps are told by the change between the two half hours; the rest by
    level, plateau above the median and night below it.
    """
    at = judged.origins + judged.window.first
    before, after = _around(plan.history, at)
    local = calendar.local_seconds(_epochs(plan.history, at))
    off = calendar.day_types(local) == 1
    change = after - before
    known = np.isfinite(change) & ~off
    if not known.any():
        return np.where(off, "day off", "plateau")
    falling, rising = np.quantile(change[known], (RAMP_SHARE, 1 - RAMP_SHARE))
    level = np.nanmedian(judged.target_qps[known])
    found = np.where(judged.target_qps >= level, "plateau", "night")
    found = np.where(change >= rising, "ramp up", np.where(change <= falling, "ramp down", found))
    return np.asarray(np.where(off, "day off", found))


def by_regime(judged: Judged, named: npt.NDArray[np.str_]) -> list[RegimeScore]:
    """Coverage of the first level in each regime."""
    upper = judged.upper_qps[:, 0]
    known = np.isfinite(judged.target_qps) & np.isfinite(upper)
    within = covered(judged.target_qps, upper)
    found = []
    for regime in REGIMES:
        there = known & (named == regime)
        points = int(there.sum())
        found.append(RegimeScore(regime, float(within[there].mean()) if points else np.nan, points))
    return found


def error_by_hour(plan: RollingOrigin, judged: Judged, calendar: Calendar) -> Floats:
    """WAPE of the median in each hour of the local week from Monday 00:00; NaN without points."""
    at = _epochs(plan.history, judged.origins + judged.window.first)
    hour = calendar.local_seconds(at) % WEEK_SECONDS // 3600
    known = np.isfinite(judged.target_qps) & np.isfinite(judged.median_qps)
    missed = np.abs(judged.target_qps - judged.median_qps)[known]
    errors = np.bincount(hour[known], missed, HOURS_OF_WEEK)
    totals = np.bincount(hour[known], judged.target_qps[known], HOURS_OF_WEEK)
    return np.where(totals > 0, errors / np.where(totals > 0, totals, 1.0), np.nan)


def worst_misses(plan: RollingOrigin, judged: Judged, count: int) -> list[int]:
    """The targets that lie furthest above the quantile, at least six hours from each other."""
    short = judged.target_qps - judged.upper_qps[:, 0]
    ranked = np.argsort(-np.where(np.isfinite(short), short, -np.inf))
    apart = MIN_APART_SECONDS // plan.history.step_seconds
    chosen: list[int] = []
    for index in ranked.tolist():
        if len(chosen) == count or not short[index] > 0:
            break
        if all(abs(judged.origins[index] - judged.origins[one]) >= apart for one in chosen):
            chosen.append(index)
    return chosen


def _around(history: TrafficHistory, at: Ints) -> tuple[Floats, Floats]:
    """Mean rates of the half hours (or single steps) before and after a step, without it."""
    steps = max(1, HALF_HOUR_SECONDS // history.step_seconds)
    edge = np.full(steps, np.nan)
    padded = np.concatenate([edge, history.values, edge])
    means = np.lib.stride_tricks.sliding_window_view(padded, steps).mean(axis=1)
    return means[at], means[at + steps + 1]


def _epochs(history: TrafficHistory, at: Ints) -> Ints:
    first = round(history.start.timestamp())
    return np.asarray(first + history.step_seconds * at, dtype=np.int64)
