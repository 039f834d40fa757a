"""Floors: what must be covered whatever the model says of a window.

Knows three: edges that recur by the clock, which a smooth model rounds off; rises that no forecast
announced, which a model that has seen few of them takes for noise; and falls that no earlier
forecast announced, which are more often a failure upstream than a quiet world.
All rates are logs; rows are origins.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from forecaster.calendar import DAY_SECONDS
from forecaster.compiled import as_python
from forecaster.demand import Ints
from forecaster.features import MIN_EDGE_DAYS, Seen
from forecaster.history import Floats

EDGE_DISTRUST = 0.5
NEAR_DISTRUST, FAR_DISTRUST = 1.0, 2.0
"""Errors of its own by which an earlier forecast must lie above demand before a fall is doubted:
for the nearest of them, and for the others."""
COLLAPSE, COLLAPSE_ERRORS = 0.7, 4.0
"""Demand has collapsed where it lies so much log rate, which is half of it, and so many errors of
its own below what the farthest of them expected."""
CERTAINTY = 2.0
"""An edge is scheduled where three quarters of past days rose more than the forecast says with at
least this many scales added, or all of the same weekday's with twice as many."""
WEEKLY_RISE = 0.2
"""Log rate from which on what few weeks have seen is an edge and no chance."""
RISE_SECONDS = 15
"""Means over this long are compared, twice in a row: a jump alone is no rise that goes on."""
STEEP_LEVEL = 0.997
"""A rise is as steep as the steepest few in a thousand moments of the history."""
NEVER_STEEP = 1e9
"""What no growth of log rate exceeds, for where there is nothing to go by."""
ANNOUNCED = 2.0
"""Scales of error above a forecast within which what comes was announced by it."""
MOST_RISE = 0.3
"""Log rate by which a rise may be expected to go beyond anything seen in `RISE_PEAK_SECONDS`."""
RISE_PEAK_SECONDS = 3 * DAY_SECONDS


@dataclass(frozen=True, slots=True)
class Floor:
    """A log rate to be covered, the scale of its own spread, and what it comes from."""

    log: float
    scale: float
    reason: str


NO_FLOOR = Floor(-np.inf, 0.0, "")


def edge_floor(
    seen: Seen, located: Floats, scale: Floats, certain: float, own_error: Floats
) -> tuple[Floats, Floats]:
    """Log floor and its spread, from the median growth of past days at this clock; each has a
    value a row."""
    floors = _edge_floors(seen.edges, seen.level, located, scale, certain, own_error)
    return np.asarray(floors[0]), np.asarray(floors[1])


@as_python
def _edge_floors(edges, level, located, scale, certain, own_error):  # type: ignore[no-untyped-def]
    floors = np.empty((2, len(located)))
    for row in range(len(located)):
        floors[:, row] = edge_at(
            edges[row], level[row], located[row], scale[row], certain, own_error[row]
        )
    return floors


@as_python
def edge_at(edges, level, located, scale, certain, own_error):  # type: ignore[no-untyped-def]
    """One row: in full, with its spread, where the lower quartile of past days lies `certain`
    scales above the forecast, or the least of the same weekday's twice as many; less half its own
    mean error elsewhere; minus infinity with under three days."""
    growth, low, spread, days = edges[0], edges[1], edges[2], edges[3]
    weekly, highest = edges[4], edges[5]
    beyond = max(certain, CERTAINTY) * scale
    scheduled = level + low > located + beyond and days >= MIN_EDGE_DAYS
    if not scheduled and weekly > WEEKLY_RISE and level + weekly > located + 2.0 * beyond:
        return level + highest, highest - weekly
    floor = level + growth - (0.0 if scheduled else EDGE_DISTRUST * own_error)
    if days < MIN_EDGE_DAYS or not np.isfinite(floor):
        return -np.inf, 0.0
    return floor, spread if scheduled else 0.0


def expected_floor(expected: Floats, own_error: Floats, present: Floats) -> tuple[Floats, Floats]:
    """What earlier forecasts said of now, less their own mean error: shape (rows, forecasts),
    the nearest first, beside the present level; the highest that is known, else minus infinity.
    With its spread, which is nothing but in a collapse."""
    floors = _expected_floors(expected, own_error, present)
    return np.asarray(floors[0]), np.asarray(floors[1])


@as_python
def _expected_floors(expected, own_error, present):  # type: ignore[no-untyped-def]
    floors = np.empty((2, len(expected)))
    for row in range(len(expected)):
        floors[:, row] = expected_at(expected[row], own_error[row], present[row])
    return floors


@as_python
def expected_at(expected, own_error, present):  # type: ignore[no-untyped-def]
    """One row of `expected_floor`.

    In a collapse the farthest forecast, which was made before it for hours yet, is believed in
    full, with its own error as the spread: what comes back may come at once, and whole.
    """
    floor, spread = -np.inf, 0.0
    for place in range(len(expected)):
        distrust = NEAR_DISTRUST if place == 0 else FAR_DISTRUST
        level = expected[place] - distrust * own_error[place]
        if np.isfinite(level):
            floor = max(floor, level)
    if len(expected) > 0:
        last, error = expected[-1], own_error[-1]
        if last - present > max(COLLAPSE, COLLAPSE_ERRORS * error) and last >= floor:
            floor, spread = last, error
    return floor, spread


def announced_until(located: Floats | float, scale: Floats | float, edge: Floats | float) -> Floats:
    """The log rate up to which what comes was announced, by a forecast and the edge floor on it."""
    return np.asarray(np.maximum(located + ANNOUNCED * scale, edge), dtype=np.float64)


def steep_rise(logs: Floats, step_seconds: int) -> float:
    """The growth a step from which on a rise is steep for this history."""
    growth = _growths(logs, step_seconds)
    known = growth[np.isfinite(growth)]
    return float(np.quantile(known, STEEP_LEVEL)) if len(known) else NEVER_STEEP


def rise_floor(
    logs: Floats, origins: Ints, step_seconds: int, last: int, steep: float, announced: Floats
) -> Floats:
    """A steep rise that was not announced, taken to go on to the end of a window.

    `last` is the window's end in steps after the origin, `announced` the log rate up to which
    demand was announced for now, NaN where nothing was said of it. Minus infinity where nothing
    rises. Reads `RISE_PEAK_SECONDS` of logs before an origin, NaN for gaps.
    """
    return np.asarray(_rise_floors(logs, origins, step_seconds, last, steep, announced))


@as_python
def _rise_floors(logs, origins, step_seconds, last, steep, announced):  # type: ignore[no-untyped-def]
    floors = np.empty(len(origins))
    for row in range(len(origins)):
        floors[row] = rise_at(logs, origins[row], step_seconds, last, steep, announced[row])
    return floors


@as_python
def rise_at(logs, origin, step_seconds, last, steep, announced):  # type: ignore[no-untyped-def]
    """One row of `rise_floor`."""
    width = max(1, RISE_SECONDS // step_seconds)
    if not _growth(logs, origin, width) > max(steep, 0.0):
        return -np.inf
    present = _mean(logs, origin - width, width)
    # The newest growth alone: the rise may have begun within the means before.
    growth = (present - _mean(logs, origin - 2 * width, width)) / width
    if present <= announced:
        return -np.inf
    most = present + MOST_RISE
    for step in range(max(0, origin - RISE_PEAK_SECONDS // step_seconds), origin):
        if np.isfinite(logs[step]):
            most = max(most, logs[step])
    return min(present + growth * (last + (width - 1) / 2), most)


@as_python
def _growths(logs, step_seconds):  # type: ignore[no-untyped-def]
    growths = np.empty(len(logs) + 1)
    for boundary in range(len(growths)):
        growths[boundary] = _growth(logs, boundary, max(1, RISE_SECONDS // step_seconds))
    return growths


@as_python
def _growth(logs, boundary, width):  # type: ignore[no-untyped-def]
    """What a step has grown by before a boundary, the less of the newest two times; NaN where one
    is not known."""
    if boundary < 3 * width:
        return np.nan
    earlier = _mean(logs, boundary - 3 * width, width)
    before = _mean(logs, boundary - 2 * width, width)
    present = _mean(logs, boundary - width, width)
    growth = min(present - before, before - earlier) / width
    return growth if np.isfinite(earlier + before + present) else np.nan


@as_python
def _mean(logs, first, width):  # type: ignore[no-untyped-def]
    """NaN where one of them is not known."""
    total = 0.0
    for step in range(first, first + width):
        total += logs[step]
    return total / width
