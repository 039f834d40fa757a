"""Nixtla's statsforecast: MSTL, AutoETS and AutoARIMA, tuned as their documentation advises.

Fitted on logs, so that seasons multiply. A fit lasts a day; from each origin the fitted parameters
are applied to the newest steps (`forward`), so that none of them is behind the times.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from statsforecast.models import AutoARIMA, AutoETS
from statsforecast.mstl import mstl

from forecaster.calendar import DAY_SECONDS, WEEK_SECONDS
from forecaster.demand import Demand, Ints
from forecaster.forecast import ForecastError, Window
from forecaster.history import Floats
from forecaster.outside.grid import blocks_ahead, blocks_before, each, factor_for, highest

STEP_SECONDS = 300
"""Finer steps are averaged: the tools take minutes on them, and gain nothing."""
LONGEST_SEASON = 24
"""Of exponential smoothing and of ARIMA: hours of a day; finer days are beyond them."""
JUMPS = {"seasonal_jump": 10, "trend_jump": 30, "low_pass_jump": 30}
"""STL's smoothing at every so many steps, interpolated between: twenty times as fast."""


@dataclass(frozen=True, slots=True)
class _Classical:
    """A model of one season at most, on as many steps as its documentation advises."""

    days: int
    quick_days: int

    def _made(self, season: int) -> Any:
        raise NotImplementedError

    def fit(self, demand: Demand, windows: Sequence[Window]) -> dict[str, Any]:  # noqa: ARG002
        factor = factor_for(demand, STEP_SECONDS)
        season = DAY_SECONDS // (factor * demand.step_seconds)
        seasonal = season <= LONGEST_SEASON
        days = self.days if seasonal else self.quick_days
        blocks = blocks_before(demand.logs, len(demand), factor, days * season)
        if len(blocks) < 2 * season:
            raise ForecastError("needs two days of history")
        model = self._made(season if seasonal else 1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of candidates that it tries and drops
            model.fit(blocks)
        return {"model": model, "factor": factor, "blocks": days * season}

    def locate(
        self, parameters: Any, demand: Demand, windows: Sequence[Window], origins: Ints
    ) -> Floats:
        factor, count = parameters["factor"], parameters["blocks"]
        ahead = blocks_ahead(windows, factor)
        located = each(origins, windows)
        for row, origin in enumerate(origins):
            newest = blocks_before(demand.logs, int(origin), factor, count)
            path = parameters["model"].forward(y=newest, h=ahead)["mean"]
            located[row] = highest(path, windows, factor)
        return located


@dataclass(frozen=True, slots=True)
class AutoEts(_Classical):
    """Exponential smoothing in state space form, chosen by AICc; a season on hourly steps."""

    days: int = 28
    quick_days: int = 7
    name: str = "statsforecast_autoets"

    def _made(self, season: int) -> Any:
        return AutoETS(season_length=season)


@dataclass(frozen=True, slots=True)
class AutoArima(_Classical):
    """Hyndman and Khandakar's stepwise search; a season on hourly steps."""

    days: int = 14
    quick_days: int = 4
    name: str = "statsforecast_autoarima"

    def _made(self, season: int) -> Any:
        return AutoARIMA(season_length=season, approximation=True)


@dataclass(frozen=True, slots=True)
class Mstl:
    """Day and week taken off by repeated STL (Bandara, Hyndman, Bergmeir 2021); what is left is
    forecast by AutoETS, and the last season is repeated."""

    name: str = "statsforecast_mstl"

    def fit(self, demand: Demand, windows: Sequence[Window]) -> dict[str, Any]:
        factor = factor_for(demand, STEP_SECONDS)
        seconds = factor * demand.step_seconds
        blocks = blocks_before(demand.logs, len(demand), factor, len(demand))
        seasons = [
            period // seconds
            for period in (DAY_SECONDS, WEEK_SECONDS)
            if len(blocks) >= 2 * (period // seconds)
        ]
        if not seasons:
            raise ForecastError("needs two days of history")
        parts = mstl(blocks, period=seasons, stl_kwargs=JUMPS if seconds < 3600 else {})
        trend = AutoETS(model="ZZN")
        trend.fit((parts["trend"] + parts["remainder"]).to_numpy())
        ahead = 2 * DAY_SECONDS // seconds + blocks_ahead(windows, factor)
        known = parts.filter(regex="seasonal").to_numpy().T
        return {
            "trend": trend,
            "factor": factor,
            "season": sum(map(_repeated, known, seasons, [ahead] * len(seasons))),
            "ends": int(demand.local[-1]),
            "known": len(blocks),
        }

    def locate(
        self, parameters: Any, demand: Demand, windows: Sequence[Window], origins: Ints
    ) -> Floats:
        factor = parameters["factor"]
        per_day = DAY_SECONDS // (factor * demand.step_seconds)
        ended = int(np.searchsorted(demand.local, parameters["ends"], side="right"))
        located = each(origins, windows)
        for row, origin in enumerate(origins):
            newest = blocks_before(demand.logs, int(origin), factor, 2 * per_day)
            # Where the origin stands among the blocks of the fit, in fractions of a block.
            place = parameters["known"] + (int(origin) - ended) / factor
            past = place - len(newest) + np.arange(len(newest))
            adjusted = newest - _at(parameters["season"], past)
            path = parameters["trend"].forward(y=adjusted, h=blocks_ahead(windows, factor))["mean"]
            for column, window in enumerate(windows):
                steps = np.arange(window.first, window.last)
                season = _at(parameters["season"], place + (steps + 0.5) / factor - 0.5)
                located[row, column] = (path[steps // factor] + season).max()
        return located


def _repeated(known: Floats, season: int, ahead: int) -> Floats:
    """A seasonal part continued by its last season."""
    later = np.resize(known[-season:], ahead)
    return np.concatenate([known, later])


def _at(values: Floats, places: Floats) -> Floats:
    return np.interp(places, np.arange(len(values)), values)
