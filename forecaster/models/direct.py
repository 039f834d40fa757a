"""Direct robust regression for the peak of a window.

Knows what the next peak depends on: recent levels, and what the same clock time did on past days.
One regression a window, on the log growth from the present level to the window's peak: ridge on
standardised, winsorised features, Huber weights by a few reweighted passes, newer days weigh more.
`ShortTrend` is the same regression on the recent columns alone, for when past days mislead.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from forecaster.calendar import DAY_SECONDS
from forecaster.compiled import as_python
from forecaster.demand import Demand, Ints
from forecaster.features import Layout, Seen, layout_for, seen_from
from forecaster.forecast import ForecastError, Parameters, Window
from forecaster.history import Floats

MIN_DAYS = 1.2
MIN_ROWS = 400
MAX_ROWS = 40_320
"""Four weeks at one minute."""
WINSOR = 0.002
WINSOR_ROWS = 5_000
AGE_HALF_LIFE_DAYS = 14.0
PENALTY = 0.05
SHORT_PENALTY = 0.005
HUBER_PASSES = 3
NO_ERROR = 1e-12
"""Of log rate: where nothing varies every row is as good as another."""
HUBER_SIGMAS = 3.0
SIGMA_OVER_MAD = 1 / 0.6745


@dataclass(frozen=True, slots=True)
class Direct:
    """All features, or only the recent ones (`past_days` False)."""

    past_days: bool = True

    @property
    def name(self) -> str:
        return "direct" if self.past_days else "short_trend"

    def fit(self, demand: Demand, windows: Sequence[Window]) -> Parameters:
        origins = training_origins(demand)
        seen = seen_from(demand, layout_for(demand.step_seconds, windows), origins)
        return self.fit_seen(demand, windows, origins, seen)[0]

    def fit_seen(
        self, demand: Demand, windows: Sequence[Window], origins: Ints, seen: Seen
    ) -> tuple[Parameters, Floats]:
        """Parameters: `low`, `high`, `mean` by feature column; a row of `weights` and an
        `intercept` a window. Beside them, shape (origins, windows), what each day's windows look
        like to a regression that has not seen that day; NaN where it says nothing. `seen` may be
        laid out for more windows than are fitted. Raises ForecastError below 1.2 days of history
        or 400 usable rows.
        """
        if len(demand) < MIN_DAYS * demand.steps_per_day:
            raise ForecastError(f"{self.name}: needs {MIN_DAYS:g} days of history")
        layout = seen.layout
        days = origins * demand.step_seconds // DAY_SECONDS
        columns = _Columns.of(seen)
        standard = columns.standardised(seen.features)
        weights = np.zeros((len(windows), layout.width))
        intercepts = np.zeros(len(windows))
        unseen = np.full((len(origins), len(windows)), np.nan)
        for number, window in enumerate(windows):
            growth = demand.peaks(window, origins) - seen.level
            rows = np.isfinite(growth)
            if rows.sum() < MIN_ROWS:
                raise ForecastError(
                    f"{self.name}: {rows.sum()} usable rows for the window {window.name}, "
                    f"needs {MIN_ROWS}"
                )
            chosen = self._columns(layout, number)
            fitted = _regress(
                standard[np.ix_(rows, chosen)], growth[rows], days[rows], self._penalty
            )
            weights[number, chosen] = fitted.weights
            intercepts[number] = fitted.intercept
            unseen[rows, number] = fitted.unseen + seen.level[rows]
            open_ended = standard[np.ix_(~rows, chosen)] @ fitted.weights + fitted.intercept
            unseen[~rows, number] = open_ended + seen.level[~rows]
        parameters: Parameters = {
            "low": columns.low.tolist(),
            "high": columns.high.tolist(),
            "mean": columns.mean.tolist(),
            "weights": (weights / columns.spread).tolist(),
            "intercept": intercepts.tolist(),
        }
        return parameters, unseen

    def locate(
        self, parameters: Parameters, demand: Demand, windows: Sequence[Window], origins: Ints
    ) -> Floats:
        seen = seen_from(demand, layout_for(demand.step_seconds, windows), origins)
        return self.locate_seen(parameters, seen)

    def locate_seen(self, parameters: Parameters, seen: Seen) -> Floats:
        """As `locate`, from features that are at hand already."""
        located = np.empty((len(seen.level), len(np.asarray(parameters["intercept"]))))
        low, high, mean, weights, intercept = (
            np.asarray(parameters[name], dtype=np.float64)
            for name in ("low", "high", "mean", "weights", "intercept")
        )
        located_from(seen.features, seen.level, low, high, mean, weights, intercept, located)
        return located

    @property
    def _penalty(self) -> float:
        return PENALTY if self.past_days else SHORT_PENALTY

    def _columns(self, layout: Layout, window: int) -> Ints:
        return layout.columns(window) if self.past_days else np.arange(layout.recent)


def training_origins(demand: Demand) -> Ints:
    """Every minute of the newest four weeks, or every step where steps are longer."""
    stride = max(1, 60 // demand.step_seconds)
    first = max(stride, len(demand) - MAX_ROWS * stride)
    return np.arange(len(demand), first, -stride, dtype=np.int64)[::-1]


@dataclass(frozen=True, slots=True, eq=False)
class _Columns:
    """How each feature column is winsorised, filled and standardised."""

    low: Floats
    high: Floats
    mean: Floats
    spread: Floats

    @classmethod
    def of(cls, seen: Seen) -> _Columns:
        sample = seen.features[:: max(1, len(seen.features) // WINSOR_ROWS)]
        known = np.isfinite(sample).any(axis=0)
        sample = np.where(known, sample, 0.0)
        ordered = np.sort(sample, axis=0)  # NaN last
        count = np.isfinite(sample).sum(axis=0)
        places = np.arange(sample.shape[1])
        low = ordered[np.floor(WINSOR * (count - 1)).astype(np.int64), places]
        high = ordered[np.ceil((1 - WINSOR) * (count - 1)).astype(np.int64), places]
        clipped = np.clip(sample, low, high)
        mean = np.nanmean(clipped, axis=0)
        spread = np.nanstd(clipped, axis=0)
        return cls(low, high, mean, np.where(spread > 1e-9, spread, np.inf))

    def standardised(self, features: Floats) -> Floats:
        standard = (np.clip(features, self.low, self.high) - self.mean) / self.spread
        return np.asarray(np.nan_to_num(standard, nan=0.0), dtype=np.float64)


@dataclass(frozen=True, slots=True, eq=False)
class _Fitted:
    weights: Floats
    intercept: float
    unseen: Floats


def _regress(standard: Floats, growth: Floats, days: Ints, penalty: float) -> _Fitted:
    age = (len(growth) - 1 - np.arange(len(growth))) / len(growth) * (days[-1] - days[0] + 1)
    recency = 0.5 ** (age / AGE_HALF_LIFE_DAYS)
    design = np.hstack([standard, np.ones((len(growth), 1))])
    robust = np.ones(len(growth))
    for _ in range(HUBER_PASSES):
        beta = _solve(*_gram(design, growth, recency * robust), penalty)
        error = np.abs(growth - design @ beta)
        sigma = max(float(np.median(error)) * SIGMA_OVER_MAD, NO_ERROR)
        robust = np.minimum(1.0, HUBER_SIGMAS * sigma / np.maximum(error, NO_ERROR))
    return _by_days(design, growth, recency * robust, days, penalty)


def _by_days(design: Floats, growth: Floats, weight: Floats, days: Ints, penalty: float) -> _Fitted:
    """The fit on all days, and each day as a fit on the others sees it: sums over a day are
    taken out of the sums over all, which costs one small equation a day."""
    bounds = [0, *(np.flatnonzero(np.diff(days)) + 1).tolist(), len(days)]
    spans = [slice(first, last) for first, last in pairwise(bounds)]
    parts = [_gram(design[span], growth[span], weight[span]) for span in spans]
    gram = np.sum([part[0] for part in parts], axis=0)
    moment = np.sum([part[1] for part in parts], axis=0)
    unseen = np.empty(len(growth))
    for span, (day_gram, day_moment) in zip(spans, parts, strict=True):
        beta = _solve(gram - day_gram, moment - day_moment, penalty)
        unseen[span] = design[span] @ beta
    beta = _solve(gram, moment, penalty)
    return _Fitted(beta[:-1], float(beta[-1]), unseen)


def _gram(design: Floats, growth: Floats, weight: Floats) -> tuple[Floats, Floats]:
    weighted = design * weight[:, None]
    return weighted.T @ design, weighted.T @ growth


def _solve(gram: Floats, moment: Floats, penalty: float) -> Floats:
    """Ridge; the intercept, which is the last column, bears no penalty."""
    ridge = np.full(len(gram), penalty * gram[-1, -1])
    ridge[-1] = 1e-12
    return np.asarray(np.linalg.solve(gram + np.diag(ridge), moment), dtype=np.float64)


@as_python
def located_from(features, level, low, high, mean, weights, intercept, out):  # type: ignore[no-untyped-def]
    """One order of summation for one origin or many: the same bits either way."""
    for row in range(len(level)):
        for window in range(len(intercept)):
            total = level[row] + intercept[window]
            for column in range(len(low)):
                weight = weights[window, column]
                if weight != 0.0:
                    value = features[row, column]
                    if value == value:
                        value = min(max(value, low[column]), high[column])
                        total += weight * (value - mean[column])
            out[row, window] = total
