"""Floors: what must be covered whatever the model says of a window.

Knows three: edges that recur by the clock, which a smooth model rounds off; rises that no forecast
announced, which a model that has seen few of them takes for noise; and falls that no earlier
forecast announced, which are more often a failure upstream than a quiet world.
All rates are logs; rows are origins.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from forecaster.calendar import DAY_SECONDS
from forecaster.demand import Ints, trailing_peaks
from forecaster.features import MIN_EDGE_DAYS, Seen
from forecaster.history import Floats

EDGE_DISTRUST = 0.5
NEAR_DISTRUST, FAR_DISTRUST = 1.0, 2.0
"""Errors of its own by which an earlier forecast must lie above demand before a fall is doubted:
for the nearest of them, and for the others."""
CERTAINTY = 2.0
"""An edge is scheduled where three quarters of past days rose more than the forecast says with at
least this many scales added."""
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
    seen: Seen,
    located: Floats,
    scale: Floats | float,
    certain: Floats | float,
    own_error: Floats | float,
) -> tuple[Floats, Floats]:
    """Log floor and its spread, from the median growth of past days at this clock.

    In full, with its spread, where the lower quartile of past days lies `certain` scales above
    the forecast; less half its own mean error elsewhere; minus infinity with under three days.
    """
    growth, low, spread, days = seen.edges.T
    scheduled = seen.level + low > located + np.maximum(certain, CERTAINTY) * scale
    level = seen.level + growth - np.where(scheduled, 0.0, EDGE_DISTRUST * own_error)
    known = (days >= MIN_EDGE_DAYS) & np.isfinite(level)
    floor = np.where(known, level, -np.inf)
    return floor, np.where(known & scheduled, spread, 0.0)


def expected_floor(expected: Floats, own_error: Floats) -> Floats:
    """What earlier forecasts said of now, less their own mean error: shape (rows, forecasts),
    the nearest first; the highest that is known, else minus infinity."""
    distrust = np.full(expected.shape[1], FAR_DISTRUST)
    distrust[:1] = NEAR_DISTRUST
    level = expected - distrust * own_error
    return np.asarray(np.where(np.isfinite(level), level, -np.inf).max(axis=1, initial=-np.inf))


def announced_until(located: Floats, scale: Floats | float, edge: Floats) -> Floats:
    """The log rate up to which what comes was announced, by a forecast and the edge floor on it."""
    return np.asarray(np.maximum(located + ANNOUNCED * scale, edge), dtype=np.float64)


def steep_rise(logs: Floats, step_seconds: int) -> float:
    """The growth a step from which on a rise is steep for this history."""
    growth = _growth(_trailing_means(logs, _width(step_seconds)), _width(step_seconds))
    known = growth[np.isfinite(growth)]
    return float(np.quantile(known, STEEP_LEVEL)) if len(known) else NEVER_STEEP


def rise_floor(
    logs: Floats, origins: Ints, step_seconds: int, last: int, steep: float, announced: Floats
) -> Floats:
    """A steep rise that was not announced, taken to go on to the end of a window.

    `last` is the window's end in steps after the origin, `announced` the log rate up to which
    demand was announced for now, NaN where nothing was said of it. Minus infinity where nothing
    rises. Reads `RISE_PEAK_SECONDS` of logs before an origin, NaN for gaps; without most of them
    it still tells where demand rises.
    """
    width = _width(step_seconds)
    means = _trailing_means(logs, width)
    present, growth = means[origins], _growth(means, width)[origins]
    rising = (growth > max(steep, 0.0)) & ~(present <= announced)
    floor = np.full(len(origins), -np.inf)
    if rising.any():
        known = np.where(np.isfinite(logs), logs, -np.inf)
        peaks = trailing_peaks(known, RISE_PEAK_SECONDS // step_seconds)[origins[rising] - 1]
        most = np.maximum(present[rising] + MOST_RISE, peaks)
        ahead = last + (width - 1) / 2
        floor[rising] = np.minimum(present[rising] + growth[rising] * ahead, most)
    return floor


def _width(step_seconds: int) -> int:
    return max(1, RISE_SECONDS // step_seconds)


def _growth(means: Floats, width: int) -> Floats:
    """What a step has grown by at each boundary, the less of the newest two times; NaN where one
    is not known."""
    growth = np.full(len(means), np.nan)
    change = (means[width:] - means[:-width]) / width
    growth[2 * width :] = np.minimum(change[width:], change[:-width])
    return growth


def _trailing_means(values: Floats, width: int) -> Floats:
    """At each boundary the mean of the newest `width` values; NaN where one is not known."""
    means = np.full(len(values) + 1, np.nan)
    if width == 1:
        means[1:] = values
    elif len(values) >= width:
        means[width:] = sliding_window_view(values, width).mean(axis=1)
    return means
