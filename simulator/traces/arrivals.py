"""Rates within a step, and the arrivals that they make.

Knows interpolation, Poisson counts and their over-dispersion.
"""

from __future__ import annotations

import numpy as np

from forecaster.history import Floats, TrafficHistory


def rates_by_second(trace: TrafficHistory, dispersion: float = 1.0, seed: int = 0) -> Floats:
    """Mean rate of each second, in requests a second, interpolated between step centres.

    Gaps are bridged, since a replay needs traffic in every second. `dispersion` is the variance
    over the mean of one-second counts: above 1 the rate of each second is Gamma distributed around
    its mean, which makes its Poisson counts that much wider.
    """
    known = np.flatnonzero(np.isfinite(trace.values))
    if not len(known):
        raise ValueError(f"trace {trace.series}: holds no known step")
    seconds = np.arange(len(trace) * trace.step_seconds) + 0.5
    centres = (known + 0.5) * trace.step_seconds
    rates = np.interp(seconds, centres, trace.values[known])
    if dispersion <= 1.0:
        return np.asarray(rates, dtype=np.float64)
    rng = np.random.Generator(np.random.Philox(key=[seed, 1]))
    spread = dispersion - 1.0
    return np.asarray(rng.gamma(rates / spread) * spread, dtype=np.float64)


def poisson_counts(rates: Floats, seed: int) -> Floats:
    """Poisson arrivals of each second."""
    rng = np.random.Generator(np.random.Philox(key=[seed, 0]))
    return np.asarray(rng.poisson(rates), dtype=np.float64)


def on_step(trace: TrafficHistory, step_seconds: int) -> TrafficHistory:
    """The trace on another step: means over a coarser one, interpolated on a finer one.

    Gaps stay gaps. Raises ValueError where neither step is a multiple of the other.
    """
    if step_seconds >= trace.step_seconds:
        return trace.resampled(step_seconds)
    if trace.step_seconds % step_seconds:
        raise ValueError(f"{trace.step_seconds} s is not a multiple of {step_seconds} s")
    fine = trace.step_seconds // step_seconds
    known = np.flatnonzero(np.isfinite(trace.values))
    centres = (np.arange(len(trace) * fine) + 0.5) / fine - 0.5
    values = np.interp(centres, known, trace.values[known]) if len(known) else centres * np.nan
    values[~np.repeat(np.isfinite(trace.values), fine)] = np.nan
    return TrafficHistory(trace.series, trace.start, step_seconds, values)
