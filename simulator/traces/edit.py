"""What-ifs: a trace with something changed. Every function returns a new trace."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import datetime, timedelta

import numpy as np

from forecaster.history import Floats, TrafficHistory
from simulator.traces.trace_file import MAX_STEPS


def scaled(trace: TrafficHistory, factor: float) -> TrafficHistory:
    return replace(trace, values=trace.values * factor)


def scaled_to_peak(trace: TrafficHistory, peak_qps: float) -> TrafficHistory:
    """The trace times a factor, so that its highest step is the peak.

    Raises ValueError where the trace holds no traffic.
    """
    highest = float(np.nanmax(trace.values, initial=0.0))
    if highest <= 0:
        raise ValueError(f"trace {trace.series}: holds no traffic to scale to a peak")
    return scaled(trace, peak_qps / highest)


def cut(trace: TrafficHistory, start: datetime | None, end: datetime | None) -> TrafficHistory:
    """The steps within [start, end); raises ValueError where none is left."""
    first, last = start or trace.start, end or trace.end
    kept = trace.between(first, last)
    if not len(kept):
        raise ValueError(
            f"trace {trace.series}: nothing between {first.isoformat()} and {last.isoformat()}; "
            f"it spans "
            f"{trace.start.isoformat()} to {trace.end.isoformat()}"
        )
    return kept


def spliced(first: TrafficHistory, second: TrafficHistory) -> TrafficHistory:
    """The second trace right after the first, whatever its own dates; steps must be equal."""
    if first.step_seconds != second.step_seconds:
        raise ValueError(
            f"cannot splice steps of {first.step_seconds} s and {second.step_seconds} s; "
            f"resample one of them"
        )
    return replace(first, values=np.concatenate([first.values, second.values]))


def stretched(trace: TrafficHistory, factor: float) -> TrafficHistory:
    """The same curve over `factor` times the time, on the same step; gaps stay gaps. Raises
    ValueError where the factor is not above 0, or nothing of the trace is known."""
    if not factor > 0:
        raise ValueError(f"a trace can be stretched by a positive factor only, got {factor}")
    steps = max(2, round(len(trace) * factor))
    if steps > MAX_STEPS:
        raise ValueError(f"a trace has at most {MAX_STEPS:,} steps, got {steps:,} after stretching")
    places = np.linspace(0, len(trace) - 1, steps)
    there = np.isfinite(trace.values)
    known = np.flatnonzero(there)
    if not len(known):
        raise ValueError(f"trace {trace.series}: holds no known step")
    values = np.interp(places, known, trace.values[known])
    values[~there[np.rint(places).astype(np.int64)]] = np.nan
    return replace(trace, values=values)


def with_surge(
    trace: TrafficHistory, at: datetime, rise_minutes: float, fade_minutes: float, ratio: float
) -> TrafficHistory:
    """A flash crowd: up to `ratio` times within the rise, then fading away."""
    rise = np.linspace(0, 1, _steps(trace, rise_minutes, fewest=0) + 1)[1:]
    fade = np.linspace(1, 0, _steps(trace, fade_minutes, fewest=0))
    if not len(rise) + len(fade):
        raise ValueError("a surge that neither rises nor fades for a while changes nothing")
    return _multiplied(trace, at, 1 + (ratio - 1) * np.concatenate([rise, fade]))


def with_outage(
    trace: TrafficHistory, at: datetime, minutes: float, remaining_ratio: float = 0.0
) -> TrafficHistory:
    """Demand falls to a share of itself for a while, and is back at once."""
    return _multiplied(trace, at, np.full(_steps(trace, minutes), remaining_ratio))


def with_launch(
    trace: TrafficHistory, at: datetime, ratio: float, ramp_minutes: float = 60.0
) -> TrafficHistory:
    """A level shift that stays: `ratio` times from the end of the ramp on."""
    first = _index(trace, at)
    ramp = np.linspace(1, ratio, _steps(trace, ramp_minutes, fewest=0))
    shape = np.full(max(0, len(trace) - first), ratio)
    shape[: len(ramp)] = ramp[: len(shape)]
    return _multiplied(trace, at, shape)


def with_holiday(trace: TrafficHistory, day: datetime, ratio: float) -> TrafficHistory:
    """A day on which most users stay away, fading in and out over two hours."""
    steps, edge = _nearest_steps(trace, 1440), _nearest_steps(trace, 120)
    shape = np.full(steps, ratio)
    shape[:edge] = np.linspace(1, ratio, edge)
    shape[-edge:] = np.linspace(ratio, 1, edge)
    return _multiplied(trace, day, shape)


def with_clock_change(trace: TrafficHistory, at: datetime, hours: float) -> TrafficHistory:
    """From `at` on users come `hours` earlier by UTC, as when clocks go forward; later where they
    are negative.

    What lies beyond an end of the trace is taken from the same clock time of the week (else day)
    next to it.
    """
    shift = _steps(trace, abs(hours) * 60) * (1 if hours > 0 else -1)
    first = _index(trace, at)
    places = np.arange(first, len(trace)) + shift
    if places[0] < 0 or places[-1] >= len(trace):
        season = _season(trace)
        places[places < 0] += season
        places[places >= len(trace)] -= season
    values = trace.values.copy()
    values[first:] = trace.values[places]
    return replace(trace, values=values)


def _season(trace: TrafficHistory) -> int:
    week, day = (_nearest_steps(trace, 7 * 1440), _nearest_steps(trace, 1440))
    season = week if len(trace) > week else day
    if len(trace) < season:
        raise ValueError(f"trace {trace.series}: is shorter than a day")
    return season


def _multiplied(trace: TrafficHistory, at: datetime, shape: Floats) -> TrafficHistory:
    first = _index(trace, at)
    values = trace.values.copy()
    part = values[first : first + len(shape)]
    part *= shape[: len(part)]
    return replace(trace, values=values)


def _index(trace: TrafficHistory, at: datetime) -> int:
    if not trace.start <= at < trace.end:
        raise ValueError(
            f"{at.isoformat()} is outside the trace, which spans {trace.start.isoformat()} to "
            f"{trace.end.isoformat()}"
        )
    return int((at - trace.start) / timedelta(seconds=trace.step_seconds))


def _steps(trace: TrafficHistory, minutes: float, fewest: int = 1) -> int:
    """Raises ValueError where the minutes are no whole number of steps, or fewer than these."""
    steps = minutes * 60 / trace.step_seconds
    whole = round(steps)
    if whole < fewest or not math.isclose(steps, whole, abs_tol=1e-6):
        raise ValueError(
            f"expected a whole number of steps of {trace.step_seconds} s, at least {fewest}, got "
            f"{minutes:g} minutes"
        )
    return whole


def _nearest_steps(trace: TrafficHistory, minutes: float) -> int:
    return max(1, round(minutes * 60 / trace.step_seconds))
