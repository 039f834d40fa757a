"""Spare: what a calibration has found worth keeping beyond what a model says.

Knows three: a fleet for the bursts of the last days, headroom over the present rate, and jumps
that come at the same time of some hours, as jobs that are started by the clock make them. Knows
nothing of how one of them is chosen.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from forecaster.compiled import as_python
from forecaster.demand import Ints, trailing_peaks
from forecaster.forecast import HOURLY_SECONDS, Spare, Window
from forecaster.history import Floats

HOUR_SECONDS = 3600
EITHER_SIDE_SECONDS = 15
"""By so much a window is widened when past hours are looked at: no two jobs start alike."""


@dataclass(frozen=True, slots=True, eq=False)
class Recent:
    """What each of many decisions knows of the recent past, in requests a second: the newest rate,
    the highest of so many last seconds, and of the order and the hold window the highest jump of
    past hours."""

    newest: Floats
    highest: dict[int, Floats]
    order_jump: Floats
    hold_jump: Floats

    def since(self, first: int) -> Recent:
        highest = {seconds: rates[first:] for seconds, rates in self.highest.items()}
        return Recent(self.newest[first:], highest, self.order_jump[first:], self.hold_jump[first:])

    def spared(
        self, order: Floats, hold: Floats, spare: Spare, margin: float
    ) -> tuple[Floats, Floats]:
        """Rows of both windows (median, scale, floor and the floor's scale), their floors raised
        to what is to be spared."""
        if not spare.factor:
            return order, hold
        highest = self.highest[spare.seconds]
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
