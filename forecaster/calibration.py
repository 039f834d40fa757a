"""Calibration: how wide the error is now, and quantiles that keep their promise.

Knows errors of past forecasts and when they became known. The scale of the error varies with time
(a calm night, a ramp, after a burst): a regression on what is seen now, and averages of the errors
that have come in. Quantiles are those of the errors in units of that scale, or of what is usual at
that minute of the hour where jobs are started by the clock, followed online (one-sided quantile
tracking in log space; Gibbs and Candes 2021, Angelopoulos et al. 2023) with feedback only when a
window has ended.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from forecaster.compiled import as_python
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
MINUTE_HALF_LIFE_DAYS = 5.0
SCALE_FLOOR = 0.003
LOG_FLOOR = 0.002
"""Added to an error before its log is regressed on."""
SCALE_PENALTY = 0.05
MAX_CHANGE = 2.0
"""A change of log rate beyond which its size says nothing more."""
TRACKING_RATE = 0.02
OVERLAPPING_ROWS = 100.0
"""Rows that are asked before the first of them has ended; of more than so many all err by the same
event, and what they teach together is bounded."""
MOST_FALL = 0.5
"""Log rate by which a fall counts as an error: one beyond is a failure upstream more often than a
wrong forecast, and would widen all that is said for a day."""
MAX_SCORE = 12.0
"""Tracked quantiles stay within this many scales."""
MIN_SCORED = 50
"""Errors below which quantiles stay those of a normal distribution."""
HOURS, MINUTES = 24, 60
DAY_MINUTES = HOURS * MINUTES
FAST, SLOW, HOUR, SCORE = 0, 1, 2, 2 + HOURS
"""Places in a window's state: the fast and slow mean error, that of hour 0, and the score of the
lowest quantile."""
STEADY, SHARE = SCORE + len(LEVELS), SCORE + len(LEVELS) + 1
"""The mean square of the scale, and its share in what is said."""
CERTAIN, CERTAIN_LEVEL = SHARE + 1, LEVELS.index(0.98)
"""The score of what is all but certain, whatever the quantiles are measured in."""
MINUTE, MIX = CERTAIN + 1, CERTAIN + 1 + MINUTES
"""The mean square error of minute 0 of the hour, and its share in the lowest quantile."""
STATE_WIDTH = MIX + len(LEVELS)
STEADY_SHARES = (0.0, 0.2, 0.5, 1.0)
SHAPE_LEVEL = 0.997
MINUTE_SHARES = (0.0, 0.5, 1.0)
LEAST_GAIN = 0.10
"""By which share a quantile must lose less for the minute of the hour to have a part in it."""


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
        scales_from(seen.features, columns, layout.recent - 2, *self.figures, scales)
        return scales

    @property
    def figures(self) -> tuple[Floats, Floats, Floats, Floats, Floats]:
        return self.low, self.high, self.mean, self.spread, self.weights


def scale_design(seen: Seen, low: Floats, high: Floats, mean: Floats, spread: Floats) -> Floats:
    """Recent columns and their absolute values, the clock, the growth of days of this type."""
    layout = seen.layout
    part = seen.features[:, layout.scale_columns]
    standard = (np.clip(part, low, high) - mean) / spread
    standard[standard != standard] = 0.0
    recent = np.abs(part[:, : layout.recent - 2])
    recent[recent != recent] = 0.0
    return np.hstack([standard, np.minimum(recent, MAX_CHANGE), np.ones((len(part), 1))])


@as_python
def scales_from(features, columns, recent, low, high, mean, spread, weights, out):  # type: ignore[no-untyped-def]
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
    minute: float

    @property
    def values(self) -> tuple[float, float, float, float]:
        return self.fast, self.slow, self.hour, self.minute

    @classmethod
    def every(cls, seconds: float) -> Rates:
        def rate(half_life_rows: float) -> float:
            return 1.0 - float(0.5 ** (1.0 / max(half_life_rows, 2.0)))

        return cls(
            rate(FAST_HALF_LIFE_SECONDS / seconds),
            rate(SLOW_HALF_LIFE_SECONDS / seconds),
            rate(HOUR_HALF_LIFE_DAYS * max(3600 / seconds, 1.0)),
            rate(MINUTE_HALF_LIFE_DAYS * HOURS),
        )


def initial_state(errors: Floats) -> Floats:
    """Averages at the mean error of each window; scores of a normal distribution.

    A window so far ahead that nothing has come of it yet is taken to err as the worst of the
    others.
    """
    state = np.zeros((errors.shape[1], STATE_WIDTH))
    known = np.isfinite(errors)
    count = np.maximum(known.sum(axis=0), 1)
    size = np.where(known, np.abs(errors), 0.0)
    mean, square = size.sum(axis=0) / count, (size**2).sum(axis=0) / count
    state[:, : 2 + HOURS] = np.where(known.any(axis=0), mean, mean.max())[:, None]
    state[:, MINUTE:MIX] = np.where(known.any(axis=0), square, square.max())[:, None]
    state[:, SCORE:STEADY] = (-2.0, 0.0, 1.6, 2.1, 2.6, 2.9, 3.9)
    state[:, CERTAIN] = state[:, SCORE + CERTAIN_LEVEL]
    return state


def stored_state(stored: Floats) -> Floats:
    """A copy to go on with. One that was stored before minutes had a part in it gives them none."""
    state = np.zeros((len(stored), STATE_WIDTH))
    state[:, : stored.shape[1]] = stored
    if stored.shape[1] < STATE_WIDTH:
        state[:, CERTAIN] = state[:, SCORE + CERTAIN_LEVEL]
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
        state[window, [STEADY, SHARE]] = steady, share
        scales[:, window] = np.sqrt((1 - share) * square + share * steady)


def mix(errors: Floats, scales: Floats, usual: Floats, levels: Floats, state: Floats) -> None:
    """Choose for each window and quantile what share the usual error at this minute of the hour
    has in its width, by pinball loss in rates: shape (rows, windows) each. Changes the state.

    Where jobs are started by the clock, only some minutes need a wide band.
    """
    for window in range(errors.shape[1]):
        known = np.isfinite(errors[:, window])
        error, level = errors[known, window], levels[known, window]
        if not len(error):
            continue
        losses = np.empty((len(MINUTE_SHARES), len(LEVELS)))
        for place, share in enumerate(MINUTE_SHARES):
            width = _mixed(scales[known, window], usual[known, window], share)
            _losses(error, width, level - level.max(), _scores(error / width), losses[place])
        losses[0] *= 1.0 - LEAST_GAIN
        state[window, MIX:] = np.array(MINUTE_SHARES)[losses.argmin(axis=0)]


@as_python
def _losses(error, width, level, scores, out):  # type: ignore[no-untyped-def]
    out[:] = 0.0
    for row in range(len(error)):
        peak = np.exp(level[row] + min(error[row], MAX_CHANGE))
        for k in range(len(scores)):
            short = peak - np.exp(level[row] + scores[k] * width[row])
            out[k] += max(LEVELS[k] * short, (LEVELS[k] - 1.0) * short)


@as_python
def _mixed(scale, usual, share):  # type: ignore[no-untyped-def]
    return scale ** (1.0 - share) * usual**share


def steady_scores(errors: Floats, scales: Floats, usual: Floats, state: Floats) -> None:
    """Put the empirical quantiles of past errors, in units of what was said, into the state."""
    for window in range(len(state)):
        known = np.isfinite(errors[:, window])
        if known.sum() < MIN_SCORED:
            continue
        error, scale, often = (each[known, window] for each in (errors, scales, usual))
        shares = state[window, MIX:]
        found = {
            share: _scores(error / _mixed(scale, often, share)) for share in {0.0, *shares.tolist()}
        }
        state[window, SCORE:STEADY] = [found[share][k] for k, share in enumerate(shares)]
        state[window, CERTAIN] = found[0.0][CERTAIN_LEVEL]


def _scores(scores: Floats) -> Floats:
    """Quantiles at each of `LEVELS`; the newest half counts twice."""
    twice = np.concatenate([scores, scores[len(scores) // 2 :]])
    found = np.clip(np.quantile(twice, LEVELS), -MAX_SCORE, MAX_SCORE)
    return np.asarray(np.maximum.accumulate(found), dtype=np.float64)


@as_python
def scale_now(state, clock, regression):  # type: ignore[no-untyped-def]
    """Root mean square of what errors have been and what the regression says of now, at a minute
    of the day."""
    fast, slow, hourly = state[FAST], state[SLOW], state[HOUR + clock // MINUTES]
    seen = (fast * fast + slow * slow + hourly * hourly) / 3.0
    now = max(SCALE_FLOOR * SCALE_FLOOR, (seen + regression * regression) / 2.0)
    return np.sqrt((1.0 - state[SHARE]) * now + state[SHARE] * state[STEADY])


@as_python
def usual_now(state, clock):  # type: ignore[no-untyped-def]
    """Root mean square of the errors at this minute of the hour."""
    return np.sqrt(max(SCALE_FLOOR * SCALE_FLOOR, state[MINUTE + clock % MINUTES]))


@as_python
def quantiles_at(state, located, scale, clock, most, offset, rates):  # type: ignore[no-untyped-def]
    """Rates at each of `LEVELS` of one window, none below the one before it or above the log rate
    `most`."""
    usual = usual_now(state, clock)
    highest = 0.0
    for k in range(len(rates)):
        share = state[MIX + k]
        width = _mixed(scale, usual, share) if share > 0.0 else scale
        said = min(located + state[SCORE + k] * width, most)
        highest = max(highest, np.exp(said) - offset)
        rates[k] = highest


@as_python
def feed(state, error, scale, usual, clock, rates, tracking):  # type: ignore[no-untyped-def]
    """One window's error has become known: `scale` and `usual` are what was said of it then, at a
    minute of the day."""
    hour, minute = HOUR + clock // MINUTES, MINUTE + clock % MINUTES
    size = max(error, min(-error, MOST_FALL))
    state[FAST] += rates[0] * (size - state[FAST])
    state[SLOW] += rates[1] * (size - state[SLOW])
    state[hour] += rates[2] * (size - state[hour])
    state[minute] += rates[3] * (size * size - state[minute])
    if tracking == 0.0:
        return
    plain = error / scale
    for k in range(len(LEVELS)):
        share = state[MIX + k]
        score = error / _mixed(scale, usual, share) if share > 0.0 else plain
        _follow(state, SCORE + k, score, LEVELS[k], tracking)
    _follow(state, CERTAIN, plain, LEVELS[CERTAIN_LEVEL], tracking)


@as_python
def _follow(state, place, score, level, tracking):  # type: ignore[no-untyped-def]
    over = 1.0 if score > state[place] else 0.0
    moved = state[place] + tracking * (over - (1.0 - level))
    state[place] = min(max(moved, -MAX_SCORE), MAX_SCORE)


@as_python
def advance(  # type: ignore[no-untyped-def]
    logs,
    known,
    origins,
    clock,
    firsts,
    lasts,
    located,
    said,
    state,
    rates,
    tracking,
    fed,
    scales,
    usual,
    means,
    first_row,
    last_row,
):
    """Rows in their order: feed what has ended by a row's origin, then say the scale there; at
    last feed what has ended by the end of what is known.

    Shapes: origins and clock, the minute of the local day (rows), located, said and scales (rows,
    windows); `state`, `fed` (the next row to be fed, by window), `scales`, `usual` (the usual error
    at this minute of the hour) and `means` (that of about a day) are changed in place.
    """
    stride = origins[1] - origins[0] if len(origins) > 1 else 1
    for window in range(located.shape[1]):
        followed = tracking * min(1.0, OVERLAPPING_ROWS * stride / lasts[window])
        for row in range(first_row, last_row):
            _feed_until(
                logs,
                origins[row],
                origins,
                clock,
                firsts[window],
                lasts[window],
                located[:, window],
                state[window],
                rates,
                followed,
                fed,
                window,
                row,
                scales[:, window],
                usual[:, window],
            )
            scales[row, window] = scale_now(state[window], clock[row], said[row, window])
            usual[row, window] = usual_now(state[window], clock[row])
            means[row, window] = state[window, SLOW]
        _feed_until(
            logs,
            known,
            origins,
            clock,
            firsts[window],
            lasts[window],
            located[:, window],
            state[window],
            rates,
            followed,
            fed,
            window,
            last_row,
            scales[:, window],
            usual[:, window],
        )


@as_python
def _feed_until(  # type: ignore[no-untyped-def]
    logs,
    known,
    origins,
    clock,
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
    usual,
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
            feed(state, error, scales[row], usual[row], clock[row], rates, tracking)
        row += 1
    fed[window] = row


def clock_of(local: Ints) -> Ints:
    """The minute of the local day."""
    return np.asarray(local // 60 % DAY_MINUTES, dtype=np.int64)


def feedback_lasts(windows: tuple[Window, ...]) -> Ints:
    """When each window ends, and after them that of past days' edges, which is the first's."""
    return np.array([*(window.last for window in windows), windows[0].last], dtype=np.int64)
