"""Floors: what must be covered whatever the model says of a window.

Knows two: edges that recur by the clock, which a smooth model rounds off, and falls that no
earlier forecast announced, which are more often a failure upstream than a quiet world.
All rates are logs; rows are origins.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from forecaster.features import MIN_EDGE_DAYS, Seen
from forecaster.history import Floats

EDGE_DISTRUST = 0.5
NEAR_DISTRUST, FAR_DISTRUST = 1.0, 2.0
"""Errors of its own by which an earlier forecast must lie above demand before a fall is doubted:
for the nearest of them, and for the others."""
CERTAINTY = 2.0
"""An edge is scheduled where three quarters of past days rose more than the forecast says with at
least this many scales added."""


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
