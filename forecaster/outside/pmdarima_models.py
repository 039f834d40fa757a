"""NVIDIA Dynamo's ARIMA predictor: pmdarima's auto_arima without a season.

As its planner runs it: on the rates of its intervals, the next one whatever the window; on log1p
where the search ends with neither a lag nor a moving average.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pmdarima import auto_arima

from forecaster.calendar import DAY_SECONDS
from forecaster.demand import Demand, Ints
from forecaster.forecast import Window
from forecaster.history import Floats
from forecaster.outside.grid import each, factor_for, logs_of, rates_before

INTERVAL_SECONDS = 180
MIN_POINTS = 5


@dataclass(frozen=True, slots=True)
class DynamoArima:
    """Searched once a day on that day; between searches the parameters stay, the data do not."""

    name: str = "dynamo_arima"

    def fit(self, demand: Demand, windows: Sequence[Window]) -> dict[str, Any]:  # noqa: ARG002
        factor = factor_for(demand, INTERVAL_SECONDS)
        count = max(DAY_SECONDS // (factor * demand.step_seconds), MIN_POINTS)
        rates = rates_before(demand, len(demand), factor, count)
        logarithmic = False
        model = None
        if np.ptp(rates) > 0:
            model = _searched(rates)
            logarithmic = model.order[0] == model.order[2] == 0
            model = _searched(np.log1p(rates)) if logarithmic else model
        return {"model": model, "log": logarithmic, "factor": factor, "count": count}

    def locate(
        self, parameters: Any, demand: Demand, windows: Sequence[Window], origins: Ints
    ) -> Floats:
        located = each(origins, windows)
        for row, origin in enumerate(origins):
            rates = rates_before(demand, int(origin), parameters["factor"], parameters["count"])
            located[row] = logs_of(_next(parameters, rates), demand.offset)
        return located


def _searched(values: Floats) -> Any:
    return auto_arima(values, seasonal=False, suppress_warnings=True, error_action="ignore")


def _next(parameters: Any, rates: Floats) -> float:
    """The next interval; the newest where there is no model to apply."""
    model = parameters["model"]
    if model is None or len(rates) < MIN_POINTS:
        return float(rates[-1])
    seen = np.log1p(rates) if parameters["log"] else rates
    ahead = float(model.arima_res_.apply(seen, refit=False).forecast(1)[0])
    return math.expm1(ahead) if parameters["log"] else ahead
