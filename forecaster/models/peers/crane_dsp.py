"""Crane's DSP: the last period, smoothed by a Fourier transform, is the next one.

Source: gocrane/crane 2b0ddae (2024-12-19), pkg/prediction/dsp. Two defects of it are not kept: the
frequency of a bin is tested on the one-sided spectrum (as shipped the mirrored bin is tested by its
own index, which halves weak slow components), and what it is told of is the request rate of the
whole fleet. Periods follow the wall clock.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from forecaster.calendar import DAY_SECONDS, WEEK_SECONDS
from forecaster.demand import Demand, Ints
from forecaster.forecast import ForecastError, Parameters, Window
from forecaster.history import Floats
from forecaster.models.peers.blocks import logs_of, rates_of, spread

NAME = "crane_dsp"
HISTORY_SECONDS = 15 * DAY_SECONDS
HOUR_SECONDS = 3600
OUTLIER_PERCENTILES = (0.1, 99.9)
PERMUTATIONS = 100
SLOPE_SECONDS = 4 * HOUR_SECONDS
LARGEST_BINS = 100
LEAST = 0.01
"""What a reconstruction of 0 or less is raised to."""
NEAR_ZERO = 0.001
UNDER_BASE = 1.25

Estimator = Callable[[Floats, int, int], Floats]
"""The next period from whole periods, their length and the steps of an hour."""


@dataclass(frozen=True, slots=True)
class Fourier:
    """Keeps the slow bins and the strong ones. `least_amplitude` is in the metric's own unit."""

    least_bins: int
    least_amplitude: float
    margin: float

    def __call__(self, series: Floats, period: int, hour: int) -> Floats:
        """The last period of the reconstruction, never 0 or less, with the margin."""
        spectrum = np.fft.rfft(series)
        amplitudes = np.abs(spectrum) / len(series)
        frequencies = np.arange(len(spectrum)) / len(series)
        weak = (amplitudes < self._cut_off(amplitudes)) & (frequencies > 1 / hour)
        spectrum[weak] = 0
        last = np.fft.irfft(spectrum, len(series))[-period:]
        return np.where(last <= 0, LEAST, last) * (1 + self.margin)

    def _cut_off(self, amplitudes: Floats) -> float:
        """The 100th largest amplitude, at least the least one, but low enough for so many bins;
        the mean is none of them."""
        ordered = np.sort(amplitudes[1:])[::-1]
        cut = max(float(ordered[min(LARGEST_BINS, len(ordered)) - 1]), self.least_amplitude)
        return min(cut, float(ordered[min(self.least_bins, len(ordered)) - 1]))


@dataclass(frozen=True, slots=True)
class Highest:
    """The highest value of each time of the period, with a margin."""

    margin: float

    def __call__(self, series: Floats, period: int, hour: int) -> Floats:  # noqa: ARG002
        return np.asarray(series.reshape(-1, period).max(axis=0) * (1 + self.margin))


GRID: tuple[Estimator, ...] = tuple(
    Fourier(bins, amplitude, margin)
    for bins, amplitude in ((3, 1.0), (50, 0.05))
    for margin in (0.01, 0.10, 0.15, 0.20)
)


@dataclass(frozen=True, slots=True)
class CraneDsp:
    """The highest predicted rate within `window_seconds` from now, whatever window is asked for.

    `estimators` compete on the last period. `seed` is that of the permutations that set the
    threshold for periods.
    """

    window_seconds: int = 600
    estimators: tuple[Estimator, ...] = GRID
    seed: int = 0

    @property
    def name(self) -> str:
        return NAME

    def fit(self, demand: Demand, windows: Sequence[Window]) -> Parameters:  # noqa: ARG002
        """Parameters: `pattern` (the rate by time of the period) and `starts` (a local second
        that it begins at). Raises ForecastError where no period of a day or a week is found."""
        step = demand.step_seconds
        series, end = prepared(demand)
        series = whole_periods(series, step)
        rng = np.random.Generator(np.random.Philox(key=self.seed))
        period = found_period(series, step, rng)
        if period not in (DAY_SECONDS // step, WEEK_SECONDS // step) or len(series) < 2 * period:
            raise ForecastError(f"{NAME}: no period of a day or a week")
        series = series[len(series) % period :]
        hour = max(1, HOUR_SECONDS // step)
        best = min(self.estimators, key=lambda estimator: loss_of(estimator, series, period, hour))
        pattern = best(series, period, hour)
        return {"pattern": pattern.tolist(), "starts": float(demand.local[end - 1] + step)}

    def locate(
        self, parameters: Parameters, demand: Demand, windows: Sequence[Window], origins: Ints
    ) -> Floats:
        pattern = np.array(parameters["pattern"], dtype=np.float64)
        if not len(demand):
            return np.full((len(origins), len(windows)), np.nan)
        step, period = demand.step_seconds, len(pattern)
        starts = demand.local[np.maximum(origins - 1, 0)] + np.where(origins > 0, step, 0)
        place = (starts - int(float(str(parameters["starts"])))) // step
        length = max(1, -(-self.window_seconds // step))
        ahead = (place[:, None] + np.arange(length)[None, :]) % period
        return spread(logs_of(pattern[ahead].max(axis=1), demand), len(windows))


def prepared(demand: Demand) -> tuple[Floats, int]:
    """Whole hours of rates without gaps and outliers, and the step that they end before.

    A gap of more than an hour drops what lies before it; smaller ones are interpolated.
    """
    first = max(0, len(demand) - (HISTORY_SECONDS + HOUR_SECONDS) // demand.step_seconds)
    rates = rates_of(demand)[first:]
    known = np.flatnonzero(np.isfinite(rates))
    hour = max(1, HOUR_SECONDS // demand.step_seconds)
    if not len(known):
        raise ForecastError(f"{NAME}: the history holds no rates")
    long_gaps = np.flatnonzero(np.diff(known) > hour)
    if len(long_gaps):
        known = known[long_gaps[-1] + 1 :]
    series = np.interp(np.arange(known[0], known[-1] + 1), known, rates[known])
    series = series[len(series) % hour :]
    if not len(series):
        raise ForecastError(f"{NAME}: needs an hour without a long gap")
    return _without_outliers(series), first + int(known[-1]) + 1


def whole_periods(series: Floats, step_seconds: int) -> Floats:
    """The newest whole weeks where there are two, else the newest whole days."""
    for seconds in (WEEK_SECONDS, DAY_SECONDS):
        period = seconds // step_seconds
        if len(series) >= 2 * period:
            return series[-(len(series) // period) * period :]
    days = len(series) * step_seconds / DAY_SECONDS
    raise ForecastError(f"{NAME}: needs 2 days of history, has {days:.1f}")


def found_period(series: Floats, step_seconds: int, rng: np.random.Generator) -> int | None:
    """Of the periods that stand out in the spectrum and peak in the autocorrelation, that of the
    highest autocorrelation; None where there is none."""
    count = len(series)
    magnitudes = np.abs(np.fft.rfft(series))
    strong = np.flatnonzero(magnitudes > _threshold(series, rng))
    candidates = {count // int(place) for place in strong if place >= 2}
    correlation = autocorrelation(series)
    peaks = [period for period in candidates if _peaks_at(correlation, period, step_seconds)]
    found = max(peaks, key=lambda period: (float(correlation[period]), period), default=None)
    return found if found is not None and correlation[found] > 0 else None


def autocorrelation(series: Floats) -> Floats:
    """By lag, 1 at lag 0; the series is closed to a ring, so that whole periods do not fade."""
    spectrum = np.fft.rfft(series - series.mean())
    raw = np.fft.irfft(np.abs(spectrum) ** 2, len(series))
    return np.asarray(raw / raw[0] if raw[0] > 0 else np.zeros(len(series)), dtype=np.float64)


def loss_of(estimator: Estimator, series: Floats, period: int, hour: int) -> float:
    """Mean relative error on the last period; too little counts more and more the larger it is.

    An under-prediction x counts as -ln(1 - x) / ln(1.25), an over-prediction as it is. The mean
    absolute error where a rate is about 0.
    """
    predicted, actual = estimator(series[:-period], period, hour), series[-period:]
    if (actual < NEAR_ZERO).any():
        return float(np.abs(predicted - actual).mean())
    return float(weighed((predicted - actual) / actual).mean())


def weighed(errors: Floats) -> Floats:
    """Relative errors as losses."""
    under = -np.log1p(np.minimum(errors, 0.0)) / np.log(UNDER_BASE)
    return np.asarray(np.where(errors < 0, under, errors), dtype=np.float64)


def _without_outliers(series: Floats) -> Floats:
    """What lies outside the percentiles takes the value before it."""
    low, high = np.percentile(series, OUTLIER_PERCENTILES)
    kept = np.flatnonzero((series >= low) & (series <= high))
    last = np.searchsorted(kept, np.arange(len(series)), side="right") - 1
    return np.asarray(series[kept[np.maximum(last, 0)]], dtype=np.float64)


def _threshold(series: Floats, rng: np.random.Generator) -> float:
    """The 99th smallest of the largest magnitudes of 100 series in random order."""
    largest = [np.abs(np.fft.rfft(rng.permutation(series)))[1:].max() for _ in range(PERMUTATIONS)]
    return float(np.sort(largest)[98])


def _peaks_at(correlation: Floats, period: int, step_seconds: int) -> bool:
    """Whether the autocorrelation rises to the period and falls from it."""
    reach = min(SLOPE_SECONDS // step_seconds, period // 2)
    before, after = correlation[period - reach : period + 1], correlation[period:][: reach + 1]
    if min(len(before), len(after)) < 2:
        return False
    return _slope(before) > 0 > _slope(after)


def _slope(values: Floats) -> float:
    """Of the least-squares line through values at equal distances."""
    steps = np.arange(len(values)) - (len(values) - 1) / 2
    return float(steps @ values)
