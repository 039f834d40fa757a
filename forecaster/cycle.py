"""Cycle: log demand as a profile of the local week, and how deviations from it are carried on.

Knows the wall clock, coarse grids and gaps. Knows no way to find a profile.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from forecaster.calendar import DAY_SECONDS, WEEK_SECONDS
from forecaster.compiled import as_python
from forecaster.demand import Demand, Ints
from forecaster.forecast import Parameters, Window
from forecaster.history import Floats

LAGS = 12
FIT_DAYS = 28
WINSOR = 0.001
LARGEST_ROOT = 0.999
"""A deviation may last, not grow."""


@dataclass(frozen=True, slots=True, eq=False)
class LocalMeans:
    """`values[k]` is the mean log rate in slot first + k of the wall clock, NaN where not known.

    Slots are `seconds` long and counted as `Demand.local` is. The hour that autumn repeats is the
    mean of both, the one that spring skips is not known.
    """

    values: Floats
    first: int
    seconds: int

    @property
    def slots(self) -> Ints:
        return self.first + np.arange(len(self.values), dtype=np.int64)

    @property
    def a_day(self) -> int:
        return DAY_SECONDS // self.seconds

    @property
    def a_week(self) -> int:
        return WEEK_SECONDS // self.seconds


def local_means(demand: Demand, seconds: int) -> LocalMeans:
    """Of the newest four weeks, in slots of so many seconds or of one step where that is longer."""
    length = max(1, seconds // demand.step_seconds) * demand.step_seconds
    newest = slice(-FIT_DAYS * demand.steps_per_day, None)
    logs, slots = demand.logs[newest], demand.local[newest] // length
    known = np.isfinite(logs)
    places = slots[known] - slots[0]
    count = int(slots.max() - slots[0]) + 1
    seen = np.bincount(places, minlength=count)
    sums = np.bincount(places, weights=logs[known], minlength=count)
    values = np.where(seen > 0, sums / np.maximum(seen, 1), np.nan)
    return LocalMeans(values, int(slots[0]), length)


def autoregression(deviations: Floats) -> Floats:
    """Weights of the newest lags, newest first, by least squares; gaps are bridged.

    Shrunk where the deviation would grow from step to step.
    """
    known = np.flatnonzero(np.isfinite(deviations))
    bridged = np.interp(np.arange(len(deviations)), known, deviations[known])
    clipped = np.clip(bridged, *np.quantile(bridged, (WINSOR, 1 - WINSOR)))
    if len(clipped) < 4 * LAGS or np.ptp(clipped) < 1e-9:
        return np.zeros(LAGS)
    spans = np.lib.stride_tricks.sliding_window_view(clipped, LAGS + 1)
    solved = np.linalg.lstsq(spans[:, -2::-1], spans[:, -1], rcond=None)[0]
    lags = np.asarray(solved, dtype=np.float64)
    companion = np.eye(LAGS, k=-1)
    companion[0] = lags
    root = float(np.abs(np.linalg.eigvals(companion)).max())
    shrunk: Floats = lags * min(1.0, LARGEST_ROOT / root) ** np.arange(1, LAGS + 1)
    return shrunk


def locate(
    parameters: Parameters, demand: Demand, windows: Sequence[Window], origins: Ints
) -> Floats:
    """The highest log rate of each window's centre path, shape (origins, windows).

    The path is `profile` (log rates of equal slots of the local week) and the deviations of the
    newest slots, of which `lags` carries on what lasts. NaN where none of those is known. Clocks
    are taken to run on evenly within a window.
    """
    profile, lags = (np.asarray(parameters[name], np.float64) for name in ("profile", "lags"))
    step = demand.step_seconds
    size = max(1, round(WEEK_SECONDS / len(profile) / step))
    firsts = np.array([window.first for window in windows], dtype=np.int64)
    lasts = np.array([window.last for window in windows], dtype=np.int64)
    ahead = _ahead_weights(lags, (int(lasts.max()) - 1) // size + 1)
    located = np.full((len(origins), len(windows)), np.nan)
    _locate(
        demand.logs, demand.local, origins, (size, step), profile, ahead, firsts, lasts, located
    )
    return located


@as_python
def profile_at(profile, local):  # type: ignore[no-untyped-def]
    """The profile at a local second, on straight lines between the middles of its slots."""
    slots = len(profile)
    at = local % WEEK_SECONDS * slots / WEEK_SECONDS - 0.5
    low = int(np.floor(at))
    share = at - low
    return profile[low % slots] * (1.0 - share) + profile[(low + 1) % slots] * share


@as_python
def _ahead_weights(lags, slots):  # type: ignore[no-untyped-def]
    """Row h maps the newest deviations, newest first, to what is expected in slot h."""
    count = len(lags)
    rows = np.zeros((slots, count))
    for ahead in range(slots):
        for lag in range(count):
            back = ahead - 1 - lag
            if back < 0:
                rows[ahead, -back - 1] += lags[lag]
            else:
                rows[ahead] += lags[lag] * rows[back]
    return rows


@as_python
def _newest(logs, local, origin, shape, profile, found):  # type: ignore[no-untyped-def]
    """Mean deviations of the newest slots, newest first; an unknown one is as the known ones are
    on average. False where none is known."""
    size, step = shape
    total = 0.0
    known = 0
    for lag in range(len(found)):
        sum_ = 0.0
        seen = 0
        for i in range(max(origin - (lag + 1) * size, 0), max(origin - lag * size, 0)):
            if logs[i] == logs[i]:
                sum_ += logs[i] - profile_at(profile, local[i] + 0.5 * step)
                seen += 1
        found[lag] = sum_ / seen if seen > 0 else np.nan
        if seen > 0:
            total += found[lag]
            known += 1
    for lag in range(len(found)):
        if found[lag] != found[lag] and known > 0:
            found[lag] = total / known
    return known > 0


@as_python
def _locate(  # type: ignore[no-untyped-def]
    logs, local, origins, shape, profile, ahead, firsts, lasts, located
):
    """One order of summation for one origin or many: the same bits either way."""
    size, step = shape
    newest = np.empty(ahead.shape[1])
    for row in range(len(origins)):
        origin = origins[row]
        if not _newest(logs, local, origin, shape, profile, newest):
            continue
        for window in range(len(firsts)):
            high = -np.inf
            carried_slot = -1
            carried = 0.0
            for steps in range(firsts[window], lasts[window]):
                if steps // size != carried_slot:
                    carried_slot = steps // size
                    carried = 0.0
                    for lag in range(len(newest)):
                        carried += ahead[carried_slot, lag] * newest[lag]
                then = local[origin - 1] + (steps + 1.5) * step
                high = max(high, profile_at(profile, then) + carried)
            located[row, window] = high
