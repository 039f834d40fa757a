"""Log errors of a model: what quantiles, skill and trust are measured on.

Knows logs, quantiles and the seasonal naive yardstick. Knows no model.
"""

from __future__ import annotations

from datetime import datetime, timedelta

import numpy as np

from forecaster.calendar import DAY_SECONDS, WEEK_SECONDS
from forecaster.forecast import FittedModel, Forecast, ForecastError, QuantilePath
from forecaster.history import Floats, TrafficHistory

LEVELS = (0.5, 0.9, 0.95, 0.98, 0.99, 0.999)
"""Quantile levels that every model gives."""
LOWEST_LEVEL = 0.05
"""The lower edge of the band that reports draw."""
HOLDOUT_SECONDS = DAY_SECONDS
MAX_INFLATION = 3.0


def log_offset(history: TrafficHistory) -> float:
    """A thousandth of the median rate: lets log(0) be taken and keeps forecasts scale-free."""
    known = history.values[np.isfinite(history.values) & (history.values > 0)]
    if not len(known):
        raise ForecastError("the history holds no traffic")
    return float(np.median(known)) * 1e-3


def log_demand(history: TrafficHistory, offset: float) -> Floats:
    return np.asarray(np.log(history.values + offset), dtype=np.float64)


def holdout_split(history: TrafficHistory) -> tuple[TrafficHistory, TrafficHistory]:
    """All but the last day, and the last day: what a trial fit may see, and what it may not."""
    cut = history.end - timedelta(seconds=HOLDOUT_SECONDS)
    return history.between(history.start, cut), history.between(cut, history.end)


def ahead_errors(residuals: Floats, weights: Floats) -> Floats:
    """Errors of forecasts 1 to H steps ahead, one row an origin; gaps give NaN.

    `weights` has a row a step ahead, over the newest residuals, newest first.
    """
    steps, lags = weights.shape
    origins = len(residuals) - lags - steps + 1
    if origins < 1:
        raise ForecastError("the history is too short to measure errors on")
    windows = np.lib.stride_tricks.sliding_window_view(residuals, lags)[:origins, ::-1]
    actual = np.lib.stride_tricks.sliding_window_view(residuals[lags:], steps)[:origins]
    return np.asarray(actual - windows @ weights.T, dtype=np.float64)


def error_quantiles(errors: Floats) -> Floats:
    """Quantiles at LOWEST_LEVEL and LEVELS for each step ahead, made not to cross."""
    quantiles = np.nanquantile(errors, (LOWEST_LEVEL, *LEVELS), axis=0).T
    if not np.isfinite(quantiles).all():
        raise ForecastError("too many gaps to measure errors on")
    return np.maximum.accumulate(quantiles, axis=1)


def inflation(seen: Floats, unseen: Floats) -> Floats:
    """By step ahead, how much wider the errors are on a day that the model had not seen."""
    inner = np.nanquantile(np.abs(seen), 0.9, axis=0)
    outer = np.nanquantile(np.abs(unseen), 0.9, axis=0)
    ratio = np.nan_to_num(outer / np.maximum(inner, 1e-12), nan=1.0)
    return np.asarray(np.clip(ratio, 1.0, MAX_INFLATION), dtype=np.float64)


def skill_against_naive(
    errors: Floats, history: TrafficHistory, unseen: TrafficHistory, offset: float
) -> float:
    """1 - mean error / mean error of repeating last week (yesterday with less than 8 days)."""
    season = WEEK_SECONDS if history.days >= 8 else DAY_SECONDS
    back = timedelta(seconds=season)
    before = history.between(unseen.start - back, unseen.end - back)
    if len(before) != len(unseen):
        raise ForecastError("the history is shorter than one season")
    naive = float(np.nanmean(np.abs(log_demand(unseen, offset) - log_demand(before, offset))))
    if not np.isfinite(naive) or naive == 0:
        return 0.0
    return 1.0 - float(np.nanmean(np.abs(errors))) / naive


def forecast_from_logs(
    fitted: FittedModel,
    starts_at: datetime,
    issued_at: datetime,
    centre: Floats,
    errors: Floats,
    offset: float,
) -> Forecast:
    """Quantile paths from a log centre and the log error quantiles of each step ahead."""
    paths = np.maximum(np.exp(centre[:, None] + errors) - offset, 0.0)
    if not np.isfinite(paths).all():
        raise ForecastError(f"{fitted.model}: the forecast is not finite")
    levels = (LOWEST_LEVEL, *LEVELS)
    return Forecast(
        issued_at=issued_at,
        starts_at=starts_at,
        step_seconds=fitted.step_seconds,
        quantiles=tuple(
            QuantilePath(level, tuple(paths[:, column].tolist()))
            for column, level in enumerate(levels)
        ),
        model=fitted.model,
        fitted_at=fitted.fitted_at,
        history_end=fitted.history_end,
        skill=fitted.skill,
        trusted=fitted.trusted,
        failures=fitted.failures,
    )
