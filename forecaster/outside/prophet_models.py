"""Meta's Prophet: as its documentation advises for daily and weekly traffic, and as Dynamo runs it.

Prophet is a curve over time: between fits it learns nothing of the newest steps.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from forecaster.calendar import DAY_SECONDS
from forecaster.demand import Demand, Ints
from forecaster.forecast import ForecastError, Window
from forecaster.history import Floats
from forecaster.outside.grid import each, factor_for, logs_of, rates_before

# It would complain of drawing tools that nobody asked for.
logging.getLogger("prophet.plot").setLevel(logging.CRITICAL)

from prophet import Prophet as Curve  # noqa: E402

# Its compiler speaks up at every fit, and sets its own level when it is imported.
logging.getLogger("cmdstanpy").disabled = True

STEP_SECONDS = 900
DAILY_ORDER, WEEKLY_ORDER = 12, 10
TREND_FLEXIBILITY = 0.01
"""changepoint_prior_scale; with its default the trend runs after every dip, and away from it."""
MONDAY = pd.Timestamp("1970-01-05")
MIN_POINTS = 5
DYNAMO_WINDOW = 50
DYNAMO_INTERVAL_SECONDS = 180
DYNAMO_START = pd.Timestamp("2024-01-01")


@dataclass(frozen=True, slots=True)
class Prophet:
    """On logs, so that seasons multiply; with a daily season of its own for days off, a level for
    them, and a weekly season from two weeks of history on."""

    name: str = "prophet"

    def fit(self, demand: Demand, windows: Sequence[Window]) -> dict[str, Any]:  # noqa: ARG002
        frame = _frame(demand)
        if len(frame) < 2 * DAY_SECONDS // max(STEP_SECONDS, demand.step_seconds):
            raise ForecastError("needs two days of history")
        curve = Curve(
            changepoint_prior_scale=TREND_FLEXIBILITY,
            daily_seasonality=False,
            weekly_seasonality=WEEKLY_ORDER if len(demand) >= 14 * demand.steps_per_day else False,
            yearly_seasonality=False,
            uncertainty_samples=0,
        )
        for condition in ("working", "off"):
            if frame[condition].any():
                curve.add_seasonality(
                    f"daily_{condition}", 1, DAILY_ORDER, condition_name=condition
                )
        if 0 < frame["off"].sum() < len(frame):
            curve.add_regressor("level_off")
        curve.fit(frame)
        return {"curve": curve}

    def locate(
        self, parameters: Any, demand: Demand, windows: Sequence[Window], origins: Ints
    ) -> Floats:
        reach = max(window.last for window in windows)
        later = demand.local[-1] + demand.step_seconds * np.arange(1, reach + 1)
        local = np.concatenate([demand.local, later])
        wanted = np.unique(
            np.concatenate(
                [(origins[:, None] + np.arange(w.first, w.last)).ravel() for w in windows]
            )
        )
        days = local[wanted] // DAY_SECONDS % 7 >= 5
        said = parameters["curve"].predict(_dated(local[wanted], np.asarray(days)))
        path = np.full(len(local), np.nan)
        path[wanted] = said["yhat"].to_numpy()
        return np.column_stack(
            [path[origins[:, None] + np.arange(w.first, w.last)].max(axis=1) for w in windows]
        )


@dataclass(frozen=True, slots=True)
class DynamoProphet:
    """NVIDIA Dynamo's predictor: a new Prophet with its defaults at each forecast, on the rates of
    the last 50 intervals, their dates made up; the next interval, whatever the window."""

    name: str = "dynamo_prophet"

    def fit(self, demand: Demand, windows: Sequence[Window]) -> dict[str, Any]:  # noqa: ARG002
        return {}

    def locate(
        self,
        parameters: Any,  # noqa: ARG002
        demand: Demand,
        windows: Sequence[Window],
        origins: Ints,
    ) -> Floats:
        factor = factor_for(demand, DYNAMO_INTERVAL_SECONDS)
        interval = pd.Timedelta(seconds=factor * demand.step_seconds)
        located = each(origins, windows)
        for row, origin in enumerate(origins):
            rates = rates_before(demand, int(origin), factor, DYNAMO_WINDOW)
            if len(rates) < MIN_POINTS:
                continue
            dates = DYNAMO_START + interval * np.arange(len(rates) + 1)
            # Only the point forecast is used; sampling its interval would cost most of the time.
            curve = Curve(uncertainty_samples=0)
            curve.fit(pd.DataFrame({"ds": dates[:-1], "y": rates}))
            said = curve.predict(pd.DataFrame({"ds": dates[-1:]}))["yhat"]
            located[row] = logs_of(float(said.iloc[0]), demand.offset)
        return located


def _frame(demand: Demand) -> pd.DataFrame:
    """Every step, or means over a quarter of an hour; gaps are left out, which Prophet takes."""
    factor = factor_for(demand, STEP_SECONDS)
    count = len(demand) // factor
    skipped = len(demand) - count * factor
    blocks = demand.logs[skipped:].reshape(count, factor)
    known = np.isfinite(blocks).all(axis=1)
    frame = _dated(
        demand.local[skipped:].reshape(count, factor)[known, 0],
        demand.day_type[skipped:].reshape(count, factor)[known, 0] == 1,
    )
    frame["y"] = blocks[known].mean(axis=1)
    return frame


def _dated(local: Ints, off: Any) -> pd.DataFrame:
    dates = MONDAY + pd.to_timedelta(local, unit="s")
    return pd.DataFrame(
        {"ds": dates, "working": ~off, "off": off, "level_off": off.astype(np.float64)}
    )
