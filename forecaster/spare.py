"""Spare: what a calibration has found worth keeping beyond what a model says.

Knows four: a fleet for the bursts of the last days, headroom over the present rate, jumps that
come at the same time of some hours, as jobs that are started by the clock make them, and what past
days saw around this time of day, as people make it who are on time by some minutes. Knows nothing
of how one of them is chosen.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from forecaster.compiled import as_python
from forecaster.demand import Demand, Ints, trailing_peaks
from forecaster.features import peak, same_clock
from forecaster.forecast import DAILY_DAYS, HOURLY_SECONDS, Spare, Window
from forecaster.history import Floats

HOUR_SECONDS = 3600
EITHER_SIDE_SECONDS = 15
"""By so much a window is widened when past hours are looked at: no two jobs start alike."""


@dataclass(frozen=True, slots=True, eq=False)
class Recent:
    """What each of many decisions knows of the recent past, in requests a second: the newest rate,
    the highest of so many last seconds, of the order and the hold window the highest jump of past
    hours, and the highest that past days had within so many seconds of the order window."""

    newest: Floats
    highest: dict[int, Floats]
    order_jump: Floats
    hold_jump: Floats
    daily: dict[int, Floats]

    def since(self, first: int) -> Recent:
        highest, daily = (
            {seconds: rates[first:] for seconds, rates in each.items()}
            for each in (self.highest, self.daily)
        )
        jumps = self.order_jump[first:], self.hold_jump[first:]
        return Recent(self.newest[first:], highest, *jumps, daily)

    def spared(
        self, order: Floats, hold: Floats, spare: Spare, margin: float
    ) -> tuple[Floats, Floats]:
        """Rows of both windows (median, scale, floor and the floor's scale), their floors raised
        to what is to be spared."""
        if not spare.factor:
            return order, hold
        highest = (self.daily if spare.daily else self.highest)[spare.seconds]
        order = with_spare(order, kept(spare, self.newest, highest, self.order_jump), margin)
        if "hold" in spare.windows:
            hold = with_spare(hold, kept(spare, self.newest, highest, self.hold_jump), margin)
        return order, hold


def kept(
    spare: Spare, newest: Floats | float, highest: Floats | float, jump: Floats | float
) -> Floats:
    """The rate that is to be covered; a jump is not taken to lead beyond the highest rate."""
    if spare.hourly:
        return np.asarray(np.minimum(newest + spare.factor * jump, highest), dtype=np.float64)
    return np.asarray(spare.factor * highest, dtype=np.float64)


def with_spare(window: Floats, spare: Floats, margin: float) -> Floats:
    """Rows of a window whose floor asks for at least the rate that is to be spared."""
    above = spare > window[:, 2] * np.exp(max(margin, 0.0) * window[:, 3])
    floor, spread = np.where(above, spare, window[:, 2]), np.where(above, 0.0, window[:, 3])
    return np.column_stack([window[:, :2], floor, spread])


def highest_of(
    rates: Floats, spans_seconds: tuple[int, ...], step_seconds: int
) -> dict[int, Floats]:
    """At each step the highest of so many last seconds."""
    return {seconds: trailing_peaks(rates, seconds // step_seconds) for seconds in spans_seconds}


def hourly_jumps(logs: Floats, origins: Ints, step_seconds: int, window: Window) -> Floats:
    """For each origin the most by which the highest rate of a window exceeded the newest one at the
    same time of the hours of three days, the nearest whose window has ended and those before it.

    Requests a second, 0 where nothing is known. `logs` are log rates with any offset, NaN for gaps.
    """
    hour = HOUR_SECONDS // step_seconds
    if not hour:
        return np.zeros(len(origins))
    side = max(1, EITHER_SIDE_SECONDS // step_seconds)
    span = max(0, window.first - side), window.last + side
    hours = HOURLY_SECONDS // HOUR_SECONDS
    return np.asarray(_hourly_jumps(logs, origins, hour, hours, *span), dtype=np.float64)


@as_python
def _hourly_jumps(logs, origins, hour, hours, first, last):  # type: ignore[no-untyped-def]
    """Origins that lie whole hours apart share the jumps between them."""
    jumps, found = np.zeros(len(origins)), np.full(len(logs) + 1, np.nan)
    nearest = -(-last // hour)
    for row in range(len(origins)):
        for back in range(nearest, nearest + hours):
            past = origins[row] - back * hour
            if past < 1:
                break
            if found[past] != found[past]:
                found[past] = _jump(logs, past, first, last)
            jumps[row] = max(jumps[row], found[past])
    return jumps


@as_python
def _jump(logs, origin, first, last):  # type: ignore[no-untyped-def]
    newest, highest = logs[origin - 1], -np.inf
    for step in range(origin + first, origin + last):
        if np.isfinite(logs[step]):
            highest = max(highest, logs[step])
    return np.exp(highest) - np.exp(newest) if highest > newest else 0.0


def daily_peaks(
    demand: Demand, origins: Ints, window: Window, side_seconds: int, reach: int
) -> Floats:
    """For each origin the highest rate that past days had in a window widened by so much on either
    side: days of the same type, or any where none of those is known.

    Requests a second, 0 where nothing is known. Looks at nothing from the origin on, nor at what
    lies more than `reach` steps before it: who has just begun to watch knows no more.
    """
    step = demand.step_seconds
    side = side_seconds // step
    days = min(DAILY_DAYS, (reach - side) // demand.steps_per_day)
    known = demand.logs, demand.local, demand.day_type
    found = _daily_peaks(known, origins, step, days, window.first - side, window.last + side)
    return np.asarray(np.maximum(np.exp(found) - demand.offset, 0.0), dtype=np.float64)


@as_python
def _daily_peaks(known, origins, step_seconds, farthest, first, last):  # type: ignore[no-untyped-def]
    logs, local, day_type = known
    peaks = np.empty(len(origins))
    for row in range(len(origins)):
        origin, same, other = origins[row], -np.inf, -np.inf
        for days in range(1, farthest + 1):
            then = same_clock(local, origin, days, step_seconds)
            if then <= 0:
                break
            highest = peak(logs, then + first, min(then + last, origin))
            if not np.isfinite(highest):
                continue
            if day_type[then - 1] == day_type[origin - 1]:
                same = max(same, highest)
            else:
                other = max(other, highest)
        peaks[row] = same if same > -np.inf else other
    return peaks
