"""Which model speaks: the best that can be fitted, with what was passed over and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import numpy as np

from forecaster.forecast import FittedModel, Forecast, Forecaster, ForecastError
from forecaster.history import TrafficHistory
from forecaster.models.harmonic import Harmonic
from forecaster.models.seasonal_naive import SeasonalNaive


@dataclass(frozen=True, slots=True)
class Ladder:
    """Models in order of preference; a failure steps down and leaves its reason in the data."""

    rungs: Sequence[Forecaster]

    @property
    def name(self) -> str:
        return "combined"

    def fit(self, history: TrafficHistory, fitted_at: datetime, horizon_steps: int) -> FittedModel:
        """Raises ForecastError with every model's reason where none can be fitted."""
        failures: list[str] = []
        for rung in self.rungs:
            try:
                fitted = rung.fit(history, fitted_at, horizon_steps)
            except ForecastError as error:
                failures.append(str(error))
            except (ValueError, ArithmeticError, np.linalg.LinAlgError) as error:
                # A library's own failure on odd data must cost the model, never the loop.
                failures.append(f"{rung.name}: {error}")
            else:
                return replace(fitted, failures=(*failures, *fitted.failures))
        raise ForecastError("; ".join(failures))

    def predict(
        self, fitted: FittedModel, history: TrafficHistory, issued_at: datetime
    ) -> Forecast:
        """Raises ForecastError where the fitted model is unknown or gives no usable forecast."""
        for rung in self.rungs:
            if rung.name == fitted.model:
                return rung.predict(fitted, history, issued_at)
        raise ForecastError(f"the stored model {fitted.model!r} is not known here")


def default_forecaster(time_zone: str) -> Forecaster:
    return Ladder((Harmonic(time_zone), SeasonalNaive()))
