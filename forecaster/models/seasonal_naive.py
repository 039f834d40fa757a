"""Seasonal naive with a damped level: last week (or yesterday), moved to today's level.

The floor of the ladder: it needs one season of history and cannot fail to converge.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import numpy as np

from forecaster.calendar import DAY_SECONDS, WEEK_SECONDS
from forecaster.errors import error_quantiles, forecast_from_logs, log_demand, log_offset
from forecaster.forecast import FittedModel, Forecast, ForecastError
from forecaster.history import Floats, TrafficHistory

NAME = "seasonal_naive"
LEVEL_SECONDS = 1800
"""The level of the last half hour is compared with the same half hour of the season before."""
DAMPING = 0.9
"""Share of the log level difference that is carried forward."""
MIN_SEASONS = 1.25


@dataclass(frozen=True, slots=True)
class SeasonalNaive:
    @property
    def name(self) -> str:
        return NAME

    def fit(self, history: TrafficHistory, fitted_at: datetime, horizon_steps: int) -> FittedModel:
        """Parameters: `season_steps`, `template` (log demand of the last season and its level
        window), `errors`, `offset`. Raises ForecastError below a day and a quarter of history."""
        season_seconds = WEEK_SECONDS if history.days >= 8 else DAY_SECONDS
        season = season_seconds // history.step_seconds
        window = max(1, LEVEL_SECONDS // history.step_seconds)
        if len(history) < MIN_SEASONS * season:
            raise ForecastError(
                f"{NAME}: needs {MIN_SEASONS:g} days of history, has {history.days:.1f}"
            )
        offset = log_offset(history)
        logs = log_demand(history, offset)
        difference = logs[season:] - logs[:-season]
        level = _trailing_mean(difference, window)
        ahead = [
            difference[window + step :] - DAMPING * level[window - 1 : -step - 1]
            for step in range(horizon_steps)
        ]
        shortest = min(len(column) for column in ahead)
        errors = error_quantiles(np.column_stack([column[:shortest] for column in ahead]))
        return FittedModel(
            model=NAME,
            fitted_at=fitted_at,
            history_end=history.end,
            step_seconds=history.step_seconds,
            horizon_steps=horizon_steps,
            parameters={
                "offset": offset,
                "season_steps": float(season),
                "errors": errors.tolist(),
            },
            skill=0.0,
        )

    def predict(
        self, fitted: FittedModel, history: TrafficHistory, issued_at: datetime
    ) -> Forecast:
        """Raises ForecastError where the season before, or the last half hour, is missing."""
        offset = float(str(fitted.parameters["offset"]))
        season = int(float(str(fitted.parameters["season_steps"])))
        window = max(1, LEVEL_SECONDS // history.step_seconds)
        if len(history) < season + window:
            raise ForecastError(f"{NAME}: the history is shorter than one season")
        logs = log_demand(history.last(season + window), offset)
        difference = logs[season:] - logs[:window]
        if np.isfinite(difference).mean() < 0.5:
            raise ForecastError(f"{NAME}: the last {window} steps have too many gaps")
        template = _filled(logs[window : window + fitted.horizon_steps])
        centre = template + DAMPING * float(np.nanmean(difference))
        errors = np.array(fitted.parameters["errors"], dtype=np.float64)
        return forecast_from_logs(fitted, history.end, issued_at, centre, errors, offset)


def _trailing_mean(values: Floats, window: int) -> Floats:
    """Mean of the known values among the newest `window`, at each position."""
    known = np.isfinite(values)
    sums = np.cumsum(np.where(known, values, 0.0))
    counts = np.cumsum(known)
    sums[window:] -= sums[:-window].copy()
    counts[window:] -= counts[:-window].copy()
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)


def _filled(template: Floats) -> Floats:
    known = np.flatnonzero(np.isfinite(template))
    if not len(known):
        raise ForecastError(f"{NAME}: the season before has no values here")
    return np.interp(np.arange(len(template)), known, template[known])
