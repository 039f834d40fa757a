"""Calibration: how wide the error is now, and quantiles that keep their promise.

Knows errors of past forecasts and when they became known. The scale of the error varies with time
(a calm night, a ramp, after a burst): a regression on what is seen now, and averages of the errors
that have come in. Quantiles are those of the errors in units of that scale, followed online
(one-sided quantile tracking in log space; Gibbs and Candes 2021, Angelopoulos et al. 2023) with
feedback only when a window has ended.
"""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np

from forecaster.demand import Ints
from forecaster.features import Seen
from forecaster.forecast import Window
from forecaster.history import Floats

LEVELS = (0.05, 0.5, 0.9, 0.95, 0.98, 0.99, 0.999)
"""Quantile levels that every forecast gives."""
REGRESSION = ("low", "high", "mean", "spread", "weights")
LOWEST_LEVEL = LEVELS[0]
"""The lower edge of the band that reports draw."""

FAST_HALF_LIFE_SECONDS = 300.0
SLOW_HALF_LIFE_SECONDS = 86_400.0
HOUR_HALF_LIFE_DAYS = 5.0
SCALE_FLOOR = 0.003
LOG_FLOOR = 0.002
"""Added to an error before its log is regressed on."""
SCALE_PENALTY = 0.05
MAX_CHANGE = 2.0
"""A change of log rate beyond which its size says nothing more."""
TRACKING_RATE = 0.02
MOST_FALL = 0.5
"""Log rate by which a fall counts as an error: one beyond is a failure upstream more often than a
wrong forecast, and would widen all that is said for a day."""
MAX_SCORE = 12.0
"""Tracked quantiles stay within this many scales."""
HOURS = 24
FAST, SLOW, HOUR, SCORE = 0, 1, 2, 2 + HOURS
"""Places in a window's state: the fast and slow mean error, that of hour 0, and the score of the
lowest quantile."""
CERTAIN = SCORE + LEVELS.index(0.98)
STEADY, SHARE = SCORE + len(LEVELS), SCORE + len(LEVELS) + 1
"""The mean square of the scale, and its share in what is said."""
STATE_WIDTH = SHARE + 1
STEADY_SHARES = (0.0, 0.2, 0.5, 1.0)
SHAPE_LEVEL = 0.997
"""Fast and slow mean error, one for each hour of the day, and the quantiles' scores."""


@dataclass(frozen=True, slots=True, eq=False)
class ScaleRegression:
    """log(|error| + floor) of each window on what is seen: rows of `weights` a window."""

    low: Floats
    high: Floats
    mean: Floats
    spread: Floats
    weights: Floats

    def scales(self, seen: Seen) -> Floats:
        """Shape (origins, windows)."""
        layout = seen.layout
        scales = np.empty((len(seen.level), len(self.weights)))
        columns = layout.scale_columns
        _scales(
            seen.features,
            columns,
            layout.recent - 2,
            self.low,
            self.high,
            self.mean,
            self.spread,
            self.weights,
            scales,
        )
        return scales


def scale_design(seen: Seen, low: Floats, high: Floats, mean: Floats, spread: Floats) -> Floats:
    """Recent columns and their absolute values, the clock, the growth of days of this type."""
    layout = seen.layout
    part = seen.features[:, layout.scale_columns]
    standard = (np.clip(part, low, high) - mean) / spread
    standard[standard != standard] = 0.0
    recent = np.abs(part[:, : layout.recent - 2])
    recent[recent != recent] = 0.0
    return np.hstack([standard, np.minimum(recent, MAX_CHANGE), np.ones((len(part), 1))])


@numba.njit(cache=True, nogil=True)
def _scales(features, columns, recent, low, high, mean, spread, weights, out):  # type: ignore[no-untyped-def]
    """exp of the design of `scale_design` times the weights, row by row."""
    width = len(columns)
    for row in range(len(features)):
        for window in range(len(weights)):
            total = weights[window, width + recent]
            for place in range(width):
                value = features[row, columns[place]]
                if value == value:
                    clipped = min(max(value, low[place]), high[place])
                    total += weights[window, place] * (clipped - mean[place]) / spread[place]
                    if place < recent:
                        total += weights[window, width + place] * min(abs(value), MAX_CHANGE)
            out[row, window] = np.exp(total)


def fit_scale(seen: Seen, errors: Floats) -> ScaleRegression:
    """`errors` has shape (origins, windows), NaN where not known."""
    part = seen.features[:, seen.layout.scale_columns]
    known = np.isfinite(part)
    filled = np.where(known, part, 0.0)
    low, high = np.quantile(filled, (0.002, 0.998), axis=0)
    clipped = np.clip(filled, low, high)
    mean, spread = clipped.mean(axis=0), clipped.std(axis=0)
    spread = np.where(spread > 1e-9, spread, 1e9)
    design = scale_design(seen, low, high, mean, spread)
    weights = np.zeros((errors.shape[1], design.shape[1]))
    for window in range(errors.shape[1]):
        rows = np.isfinite(errors[:, window])
        size = np.abs(errors[rows, window])
        weights[window] = _ridge(design[rows], np.log(size + LOG_FLOOR))
        ratio = size.mean() / np.exp(design[rows] @ weights[window]).mean()
        weights[window, -1] += np.log(max(ratio, 1e-3))
    return ScaleRegression(low, high, mean, spread, weights)


def _ridge(design: Floats, target: Floats) -> Floats:
    gram = design.T @ design
    penalty = np.full(len(gram), SCALE_PENALTY * len(design))
    penalty[-1] = 1e-9
    solved = np.linalg.solve(gram + np.diag(penalty), design.T @ target)
    return np.asarray(solved, dtype=np.float64)


@dataclass(frozen=True, slots=True)
class Rates:
    """How fast the averages forget, for rows so many seconds apart."""

    fast: float
    slow: float
    hour: float

    @property
    def values(self) -> tuple[float, float, float]:
        return self.fast, self.slow, self.hour

    @classmethod
    def every(cls, seconds: float) -> Rates:
        def rate(half_life_rows: float) -> float:
            return 1.0 - float(0.5 ** (1.0 / max(half_life_rows, 2.0)))

        return cls(
            rate(FAST_HALF_LIFE_SECONDS / seconds),
            rate(SLOW_HALF_LIFE_SECONDS / seconds),
            rate(HOUR_HALF_LIFE_DAYS * max(3600 / seconds, 1.0)),
        )


def initial_state(errors: Floats) -> Floats:
    """Averages at the mean error of each window; scores of a normal distribution.

    A window so far ahead that nothing has come of it yet is taken to err as the worst of the
    others.
    """
    state = np.empty((errors.shape[1], STATE_WIDTH))
    known = np.isfinite(errors)
    total = np.where(known, np.abs(errors), 0.0).sum(axis=0)
    mean = total / np.maximum(known.sum(axis=0), 1)
    state[:, : 2 + HOURS] = np.where(known.any(axis=0), mean, mean.max())[:, None]
    state[:, SCORE:STEADY] = (-2.0, 0.0, 1.6, 2.1, 2.6, 2.9, 3.9)
    state[:, STEADY:] = 0.0
    return state


def shape(errors: Floats, scales: Floats, levels: Floats, state: Floats) -> None:
    """Choose for each window how far its scale follows the moment and how far it stays the same:
    whichever covers most errors at the least cost, weighed by log rate. Changes scales and state.

    Where errors come out of calm, a margin that follows the calm costs more than a steady one.
    """
    for window in range(errors.shape[1]):
        known = np.isfinite(errors[:, window])
        square = scales[:, window] ** 2
        steady = float(square[known].mean())
        weight = np.exp(levels[known, window] - np.nanmax(levels[:, window]))
        costs = []
        for share in STEADY_SHARES:
            mixed = np.sqrt((1 - share) * square[known] + share * steady)
            margin = np.quantile(errors[known, window] / mixed, SHAPE_LEVEL) * mixed
            costs.append(float((np.expm1(np.minimum(margin, 20.0)) * weight).sum()))
        share = STEADY_SHARES[int(np.argmin(costs))]
        state[window, STEADY:] = steady, share
        scales[:, window] = np.sqrt((1 - share) * square + share * steady)


def steady_scores(scores: Floats, state: Floats) -> None:
    """Put the empirical quantiles of past scores into the state; the newest half counts twice."""
    for window in range(len(state)):
        known = scores[:, window]
        known = known[np.isfinite(known)]
        if len(known) >= 50:
            twice = np.concatenate([known, known[len(known) // 2 :]])
            found = np.clip(np.quantile(twice, LEVELS), -MAX_SCORE, MAX_SCORE)
            state[window, SCORE:STEADY] = np.maximum.accumulate(found)


def blended(said: Floats, weights: Floats) -> Floats:
    """Members' log locations, shape (members, origins, windows), averaged by their weights, shape
    (members, windows); where a member says nothing the others speak for it."""
    blend = np.empty(said.shape[1:])
    _blend(said, weights, blend)
    return blend


@numba.njit(cache=True, nogil=True)
def _blend(said, weights, out):  # type: ignore[no-untyped-def]
    for row in range(out.shape[0]):
        for window in range(out.shape[1]):
            total = 0.0
            share = 0.0
            for member in range(len(weights)):
                value = said[member, row, window]
                if value == value:
                    total += weights[member, window] * value
                    share += weights[member, window]
            out[row, window] = total / share if share > 0 else np.nan


@numba.njit(cache=True, nogil=True)
def scale_now(state, hour, regression):  # type: ignore[no-untyped-def]
    """Root mean square of what errors have been and what the regression says of now."""
    fast, slow, hourly = state[0], state[1], state[2 + hour]
    seen = (fast * fast + slow * slow + hourly * hourly) / 3.0
    now = max(SCALE_FLOOR * SCALE_FLOOR, (seen + regression * regression) / 2.0)
    return np.sqrt((1.0 - state[SHARE]) * now + state[SHARE] * state[STEADY])


def quantiles_now(state: Floats, located: float, scale: float, offset: float) -> list[float]:
    """Rates at each of `LEVELS` of one window, none below the one before it."""
    rates = np.empty(len(LEVELS))
    _quantiles(state[SCORE:STEADY], located, scale, offset, rates)
    quantiles: list[float] = rates.tolist()
    return quantiles


@numba.njit(cache=True, nogil=True)
def _quantiles(scores, located, scale, offset, rates):  # type: ignore[no-untyped-def]
    highest = 0.0
    for place in range(len(scores)):
        highest = max(highest, np.exp(located + scores[place] * scale) - offset)
        rates[place] = highest


@numba.njit(cache=True, nogil=True)
def feed(state, error, scale, hour, rates, tracking):  # type: ignore[no-untyped-def]
    """One window's error has become known: `scale` is what was said of it then."""
    size = max(error, min(-error, MOST_FALL))
    state[0] += rates[0] * (size - state[0])
    state[1] += rates[1] * (size - state[1])
    state[2 + hour] += rates[2] * (size - state[2 + hour])
    score = error / scale
    for k in range(len(LEVELS)):
        over = 1.0 if score > state[SCORE + k] else 0.0
        moved = state[SCORE + k] + tracking * (over - (1.0 - LEVELS[k]))
        state[SCORE + k] = min(max(moved, -MAX_SCORE), MAX_SCORE)


@numba.njit(cache=True, nogil=True)
def advance(  # type: ignore[no-untyped-def]
    logs,
    known,
    origins,
    hours,
    firsts,
    lasts,
    located,
    said,
    state,
    rates,
    tracking,
    fed,
    scales,
    means,
    first_row,
    last_row,
):
    """Rows in their order: feed what has ended by a row's origin, then say the scale there; at
    last feed what has ended by the end of what is known.

    Shapes: origins and hours (rows), located, said and scales (rows, windows); `state`, `fed`
    (the next row to be fed, by window), `scales` and `means` (the mean error of about a day) are
    changed in place.
    """
    for window in range(located.shape[1]):
        for row in range(first_row, last_row):
            _feed_until(
                logs,
                origins[row],
                origins,
                hours,
                firsts[window],
                lasts[window],
                located[:, window],
                state[window],
                rates,
                tracking,
                fed,
                window,
                row,
                scales[:, window],
            )
            scales[row, window] = scale_now(state[window], hours[row], said[row, window])
            means[row, window] = state[window, SLOW]
        _feed_until(
            logs,
            known,
            origins,
            hours,
            firsts[window],
            lasts[window],
            located[:, window],
            state[window],
            rates,
            tracking,
            fed,
            window,
            last_row,
            scales[:, window],
        )


@numba.njit(cache=True, nogil=True)
def _feed_until(  # type: ignore[no-untyped-def]
    logs,
    known,
    origins,
    hours,
    first,
    last,
    located,
    state,
    rates,
    tracking,
    fed,
    window,
    last_row,
    scales,
):
    row = fed[window]
    while row < last_row and origins[row] + last <= known:
        high = -np.inf
        for step in range(origins[row] + first, origins[row] + last):
            # NaN comes and stays: a window that is not known whole is no lesson.
            if high == high and not logs[step] <= high:
                high = logs[step]
        error = high - located[row]
        if error == error:
            feed(state, error, scales[row], hours[row], rates, tracking)
        row += 1
    fed[window] = row


def feedback_lasts(windows: tuple[Window, ...]) -> Ints:
    """When each window ends, and after them that of past days' edges, which is the first's."""
    return np.array([*(window.last for window in windows), windows[0].last], dtype=np.int64)
