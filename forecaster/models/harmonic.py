"""Harmonic regression on log demand with autoregressive errors.

Knows daily and weekly cycles of the local clock and how the remainder decays. Robust regression
(Huber) on 5-minute means finds the cycles, so that an outage in the history bends them little; an
autoregression on the full grid carries the present deviation forward; the quantiles are those of
the model's own errors at each step ahead, widened where newer days that it had not seen show
larger ones.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import numpy.typing as npt
from statsmodels.robust.norms import HuberT
from statsmodels.robust.robust_linear_model import RLM
from statsmodels.tsa.ar_model import AutoReg

from forecaster.calendar import DAY_SECONDS, WEEK_SECONDS, fourier, local_seconds
from forecaster.errors import (
    ahead_errors,
    error_quantiles,
    forecast_from_logs,
    holdout_split,
    inflation,
    log_demand,
    log_offset,
    skill_against_naive,
)
from forecaster.forecast import FittedModel, Forecast, ForecastError
from forecaster.history import Floats, TrafficHistory

NAME = "harmonic"
TRAIN_STEP_SECONDS = 300
DAILY_HARMONICS = 12
WEEKLY_HARMONICS = 24
LAGS = 12
MIN_DAYS = 2.0
MIN_DAYS_FOR_WEEK = 14.0
ERROR_DAYS = 14


@dataclass(frozen=True, slots=True)
class Harmonic:
    """The model for one time zone."""

    time_zone: str = "UTC"

    @property
    def name(self) -> str:
        return NAME

    def fit(self, history: TrafficHistory, fitted_at: datetime, horizon_steps: int) -> FittedModel:
        """Parameters: `cycle` (regression weights), `weekly` (1 with weekly terms), `ar` (lag
        weights, newest first), `errors` (quantiles of the log error by step ahead), `offset`.

        Raises ForecastError below two days of history or where half of it is missing.
        """
        if history.days * history.known_ratio < MIN_DAYS:
            raise ForecastError(
                f"{NAME}: needs {MIN_DAYS:g} days of known history, has "
                f"{history.days * history.known_ratio:.1f}"
            )
        offset = log_offset(history)
        weekly = history.days >= MIN_DAYS_FOR_WEEK
        seen, unseen = holdout_split(history)
        trial = self._estimate(seen, offset, weekly)
        cycle, lags = self._estimate(history, offset, weekly)
        trial_errors = self._errors(unseen, trial, offset, weekly, horizon_steps)
        errors = self._errors(
            history.last(ERROR_DAYS * DAY_SECONDS // history.step_seconds),
            (cycle, lags),
            offset,
            weekly,
            horizon_steps,
        )
        skill = skill_against_naive(trial_errors[:, -1], history, unseen, offset)
        quantiles = error_quantiles(errors) * inflation(errors, trial_errors)[:, None]
        return FittedModel(
            model=NAME,
            fitted_at=fitted_at,
            history_end=history.end,
            step_seconds=history.step_seconds,
            horizon_steps=horizon_steps,
            parameters={
                "offset": offset,
                "weekly": float(weekly),
                "cycle": cycle.tolist(),
                "ar": lags.tolist(),
                "errors": quantiles.tolist(),
            },
            skill=skill,
            trusted=skill > 0,
            failures=() if skill > 0 else (f"{NAME}: no better than the seasonal naive forecast",),
        )

    def predict(
        self, fitted: FittedModel, history: TrafficHistory, issued_at: datetime
    ) -> Forecast:
        """From the newest known step on; raises ForecastError where too many of the steps just
        before it are missing, since the deviation to carry forward is then unknown."""
        offset = float(_number(fitted, "offset"))
        cycle, lags = _vector(fitted, "cycle"), _vector(fitted, "ar")
        weekly = bool(_number(fitted, "weekly"))
        tail = _known_tail(history, len(lags))
        residuals = _bridged(
            log_demand(tail, offset) - self._cycle_at(tail.epoch_seconds(), cycle, weekly)
        )
        ahead = tail.epoch_seconds()[-1] + history.step_seconds * (
            1 + np.arange(fitted.horizon_steps, dtype=np.int64)
        )
        carried = _ahead_weights(lags, fitted.horizon_steps) @ residuals[::-1]
        centre = self._cycle_at(ahead, cycle, weekly) + carried
        errors = np.array(fitted.parameters["errors"], dtype=np.float64)
        return forecast_from_logs(fitted, tail.end, issued_at, centre, errors, offset)

    def _estimate(
        self, history: TrafficHistory, offset: float, weekly: bool
    ) -> tuple[Floats, Floats]:
        step = max(TRAIN_STEP_SECONDS, history.step_seconds)
        coarse = history.resampled(step) if step % history.step_seconds == 0 else history
        known = np.isfinite(coarse.values)
        design = self._design(coarse.epoch_seconds()[known], weekly)
        logs = log_demand(coarse, offset)[known]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a few reweighted passes are enough by intent
            fit = RLM(logs, design, M=HuberT()).fit(maxiter=4)
        cycle = np.asarray(fit.params, dtype=np.float64)
        residuals = log_demand(history, offset) - self._cycle_at(
            history.epoch_seconds(), cycle, weekly
        )
        return cycle, _autoregression(residuals)

    def _errors(
        self,
        history: TrafficHistory,
        estimate: tuple[Floats, Floats],
        offset: float,
        weekly: bool,
        horizon_steps: int,
    ) -> Floats:
        cycle, lags = estimate
        residuals = log_demand(history, offset) - self._cycle_at(
            history.epoch_seconds(), cycle, weekly
        )
        return ahead_errors(residuals, _ahead_weights(lags, horizon_steps))

    def _cycle_at(
        self, epoch_seconds: npt.NDArray[np.int64], cycle: Floats, weekly: bool
    ) -> Floats:
        return self._design(epoch_seconds, weekly) @ cycle

    def _design(self, epoch_seconds: npt.NDArray[np.int64], weekly: bool) -> Floats:
        local = local_seconds(epoch_seconds, self.time_zone)
        blocks = [
            np.ones((len(local), 1)),
            fourier(local, DAY_SECONDS, np.arange(1, DAILY_HARMONICS + 1)),
        ]
        if weekly:
            harmonics = np.arange(1, WEEKLY_HARMONICS + 1)
            blocks.append(fourier(local, WEEK_SECONDS, harmonics[harmonics % 7 != 0]))
        return np.hstack(blocks)


def _autoregression(residuals: Floats) -> Floats:
    """Weights of the newest lags, newest first; gaps count as no deviation."""
    filled = np.clip(np.nan_to_num(residuals, nan=0.0), *np.nanquantile(residuals, [0.001, 0.999]))
    if np.ptp(filled) < 1e-9:
        return np.zeros(LAGS)
    fit = AutoReg(filled, lags=LAGS, trend="n").fit()
    weights = np.asarray(fit.params, dtype=np.float64)
    if not np.isfinite(weights).all():
        raise ForecastError(f"{NAME}: the autoregression did not converge")
    return weights


def _ahead_weights(lags: Floats, horizon_steps: int) -> Floats:
    """Row h - 1 maps the newest residuals (newest first) to their forecast h steps ahead."""
    count = len(lags)
    state = np.eye(count)
    rows = np.empty((horizon_steps, count))
    for ahead in range(horizon_steps):
        newest = lags @ state
        rows[ahead] = newest
        state = np.vstack([newest, state[:-1]])
    return rows


def _known_tail(history: TrafficHistory, steps: int) -> TrafficHistory:
    """The steps up to the newest known one, of which at most a quarter may be missing."""
    end = history.last(4 * steps).last_known_end
    tail = history.between(history.start, end).last(steps) if end else history.last(0)
    if len(tail) < steps or tail.known_ratio < 0.75:
        raise ForecastError(f"{NAME}: the newest {steps} steps have too many gaps")
    return tail


def _bridged(values: Floats) -> Floats:
    known = np.flatnonzero(np.isfinite(values))
    return np.interp(np.arange(len(values)), known, values[known])


def _vector(fitted: FittedModel, name: str) -> Floats:
    return np.array(fitted.parameters[name], dtype=np.float64)


def _number(fitted: FittedModel, name: str) -> float:
    value = fitted.parameters[name]
    if not isinstance(value, float):
        raise ForecastError(f"{fitted.model}: stored parameter {name} is not a number")
    return value
