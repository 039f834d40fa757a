"""Double seasonal exponential smoothing with an autoregressive error, on log demand.

Source: Taylor, "Short-term electricity demand forecasting using double seasonal exponential
smoothing", Journal of the Operational Research Society 54 (2003), without trend: a level, a day and
a week each follow the newest error, of which a share lasts. Errors are clipped before anything
follows them (Gelper, Fried and Croux, Journal of Forecasting 29, 2010), so that an outage bends the
states little.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from forecaster.calendar import DAY_SECONDS, WEEK_SECONDS
from forecaster.compiled import as_python
from forecaster.cycle import FIT_DAYS
from forecaster.demand import Demand, Ints
from forecaster.forecast import ForecastError, Parameters, Window
from forecaster.history import Floats

SLOT_SECONDS = 600
MIN_DAYS = 2.0
CLIP_SIGMAS = 3.0
SIGMA_OVER_MAD = 1 / 0.6745
LEAST_CLIP = 1e-6
"""Traffic that stands still would let nothing be followed."""
REPLAYED_DAYS = 2
"""Beside the longest look ahead: the stored states are so old, and what came since is replayed."""
LEVEL_RATES = (0.0, 0.005, 0.02, 0.1)
SEASON_RATES = (0.0, 0.05, 0.15, 0.3)
LASTING = (0.5, 0.8, 0.9, 0.95, 0.98)
CANDIDATES = np.array(list(product(LEVEL_RATES, SEASON_RATES, SEASON_RATES, LASTING)))
"""Rates at which level, day and week follow an error, and the share of it that lasts a slot."""
LEVEL, ERROR = 0, 1


@dataclass(frozen=True, slots=True)
class DoubleSeasonal:
    @property
    def name(self) -> str:
        return "double_seasonal"

    def fit(self, demand: Demand, windows: Sequence[Window]) -> Parameters:
        """Parameters: `rates` of level, day and week and the share that lasts; `clip`, the largest
        error that is followed; the states `now` (level and error), `day` and `week` before the
        local second `since`. Raises ForecastError below two days of known history.

        Of the candidates those rates are taken whose squared one-step errors sum to the least over
        the second half of four weeks; the first half gives the states to start from.
        """
        days = float(np.isfinite(demand.logs).sum()) / demand.steps_per_day
        if days < MIN_DAYS:
            raise ForecastError(
                f"{self.name}: needs {MIN_DAYS:g} days of known history, has {days:.1f}"
            )
        newest = slice(-FIT_DAYS * demand.steps_per_day, None)
        local, length = demand.local[newest], _slot_seconds(demand.step_seconds)
        means, slots, _ = _slot_means(demand.logs[newest], local, length)
        known = np.flatnonzero(np.isfinite(means))
        half = int(known[len(known) // 2])
        day, week = _seasons(means[:half], slots[:half], length)
        now = np.array([np.nanmean(means[:half]), 0.0])
        clip = _largest_followed(means)
        losses = _losses(means, slots, half, CANDIDATES, clip, now, day, week)
        rates = CANDIDATES[int(np.argmin(losses))]
        reach = REPLAYED_DAYS + max(window.last for window in windows) // demand.steps_per_day
        since = int(local[-1] // DAY_SECONDS - reach) * DAY_SECONDS
        before = int(np.argmax(slots * length >= since))
        _follow_all(means[:before], slots[:before], rates, clip, now, day, week)
        return {
            "rates": rates.tolist(),
            "clip": clip,
            "now": now.tolist(),
            "day": day.tolist(),
            "week": week.tolist(),
            "since": float(slots[before] * length),
        }

    def locate(
        self, parameters: Parameters, demand: Demand, windows: Sequence[Window], origins: Ints
    ) -> Floats:
        """Silent about origins before the stored states."""
        located = np.full((len(origins), len(windows)), np.nan)
        later = demand.local >= np.asarray(parameters["since"], dtype=np.float64)
        if not later.any():
            return located
        start = int(np.argmax(later))
        rates, now, day, week = (
            np.array(parameters[name], dtype=np.float64) for name in ("rates", "now", "day", "week")
        )
        length = _slot_seconds(demand.step_seconds)
        means, slots, ends = _slot_means(demand.logs[start:], demand.local[start:], length)
        _locate(
            demand.logs,
            demand.local,
            (start, length // demand.step_seconds, demand.step_seconds),
            (means, slots, ends + start),
            (rates, float(np.asarray(parameters["clip"], dtype=np.float64))),
            (now, day, week),
            np.argsort(origins, kind="stable"),
            origins,
            np.array([(window.first, window.last) for window in windows], dtype=np.int64),
            located,
        )
        return located


def _slot_seconds(step_seconds: int) -> int:
    return max(1, SLOT_SECONDS // step_seconds) * step_seconds


def _largest_followed(means: Floats) -> float:
    changes = np.abs(np.diff(means[np.isfinite(means)]))
    return CLIP_SIGMAS * SIGMA_OVER_MAD * float(np.median(changes)) + LEAST_CLIP


def _seasons(means: Floats, slots: Ints, length: int) -> tuple[Floats, Floats]:
    """Mean deviations by time of the day, and what is left by time of the week, which is drawn
    to zero as if seen once more."""
    known = np.isfinite(means)
    left, slots = means[known] - means[known].mean(), slots[known]
    seasons = []
    for seconds, doubt in ((DAY_SECONDS, 0.0), (WEEK_SECONDS, 1.0)):
        count = seconds // length
        seen = np.bincount(slots % count, minlength=count) + doubt
        season = np.bincount(slots % count, weights=left, minlength=count) / np.maximum(seen, 1.0)
        left = left - season[slots % count]
        seasons.append(season)
    return seasons[0], seasons[1]


@as_python
def _slot_means(logs, local, length):  # type: ignore[no-untyped-def]
    """Mean log rate (NaN for none), number and end (a step) of each slot, in the order of time."""
    means = np.empty(len(logs))
    slots = np.empty(len(logs), dtype=np.int64)
    ends = np.empty(len(logs), dtype=np.int64)
    count = 0
    total = 0.0
    known = 0
    for i in range(len(logs)):
        if logs[i] == logs[i]:
            total += logs[i]
            known += 1
        slot = local[i] // length
        if i + 1 == len(logs) or local[i + 1] // length != slot:
            means[count] = total / known if known > 0 else np.nan
            slots[count] = slot
            ends[count] = i + 1
            count += 1
            total = 0.0
            known = 0
    return means[:count], slots[:count], ends[:count]


@as_python
def _innovation(deviation, error, lasting, clip):  # type: ignore[no-untyped-def]
    """What is new about a deviation from the states, clipped; nothing where it is not known."""
    if deviation != deviation:
        return 0.0
    return min(max(deviation - lasting * error, -clip), clip)


@as_python
def _follow(mean, slot, rates, clip, now, day, week):  # type: ignore[no-untyped-def]
    """Move the states on by one slot; returns its one-step error."""
    in_day, in_week = slot % len(day), slot % len(week)
    deviation = mean - now[LEVEL] - day[in_day] - week[in_week]
    new = _innovation(deviation, now[ERROR], rates[3], clip)
    error = rates[3] * now[ERROR] + new
    if deviation == deviation:
        now[LEVEL] += rates[0] * error
        day[in_day] += rates[1] * error
        week[in_week] += rates[2] * error
    now[ERROR] = error
    return new


@as_python
def _follow_all(means, slots, rates, clip, now, day, week):  # type: ignore[no-untyped-def]
    for k in range(len(means)):
        _follow(means[k], slots[k], rates, clip, now, day, week)


@as_python
def _losses(means, slots, scored, candidates, clip, now, day, week):  # type: ignore[no-untyped-def]
    losses = np.zeros(len(candidates))
    for candidate in range(len(candidates)):
        rates = candidates[candidate]
        own_now, own_day, own_week = now.copy(), day.copy(), week.copy()
        for k in range(len(means)):
            new = _follow(means[k], slots[k], rates, clip, own_now, own_day, own_week)
            if k >= scored:
                losses[candidate] += new * new
    return losses


@as_python
def _season_at(day, week, at):  # type: ignore[no-untyped-def]
    """On straight lines between the middles of slots, `at` in slots."""
    low = int(np.floor(at - 0.5))
    share = at - 0.5 - low
    before = day[low % len(day)] + week[low % len(week)]
    after = day[(low + 1) % len(day)] + week[(low + 1) % len(week)]
    return before * (1.0 - share) + after * share


@as_python
def _locate(  # type: ignore[no-untyped-def]
    logs, local, shape, seen, learned, states, order, origins, windows, located
):
    """Origins in the order of time; the slot that ends at an origin is the last that is followed,
    wherever the clock's own slots end."""
    start, size, step = shape
    means, slots, ends = seen
    rates, clip = learned
    now, day, week = states
    length = size * step
    slot = 0
    for row in order:
        origin = origins[row]
        if origin <= start:
            continue
        while slot < len(ends) and ends[slot] <= origin - size:
            _follow(means[slot], slots[slot], rates, clip, now, day, week)
            slot += 1
        total = 0.0
        known = 0
        for i in range(max(origin - size, 0), origin):
            if logs[i] == logs[i]:
                at = (local[i] + 0.5 * step) / length
                total += logs[i] - now[LEVEL] - _season_at(day, week, at)
                known += 1
        deviation = total / known if known > 0 else np.nan
        error = rates[3] * now[ERROR] + _innovation(deviation, now[ERROR], rates[3], clip)
        level = now[LEVEL] + rates[0] * error
        for window in range(len(windows)):
            high = -np.inf
            for ahead in range(windows[window, 0], windows[window, 1]):
                at = (local[origin - 1] + (ahead + 1.5) * step) / length
                lasts = error * rates[3] ** (ahead // size + 1)
                high = max(high, level + _season_at(day, week, at) + lasts)
            located[row, window] = high
