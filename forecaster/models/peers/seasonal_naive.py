"""Seasonal naive: what was there a day or a week ago, undamped.

The baseline of forecasting; what any predictive scaler is asked to beat.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from forecaster.demand import Demand, Ints
from forecaster.forecast import ForecastError, Parameters, Window
from forecaster.history import Floats


@dataclass(frozen=True, slots=True)
class SeasonalNaive:
    """The peak of the same window `season_days` ago."""

    season_days: int = 1

    @property
    def name(self) -> str:
        return {1: "seasonal_naive_day", 7: "seasonal_naive_week"}.get(
            self.season_days, f"seasonal_naive_{self.season_days}_days"
        )

    def fit(self, demand: Demand, windows: Sequence[Window]) -> Parameters:  # noqa: ARG002
        """Nothing to learn; raises ForecastError below one season of history."""
        season = self.season_days * demand.steps_per_day
        if len(demand) < season:
            days = len(demand) / demand.steps_per_day
            raise ForecastError(f"{self.name}: needs {self.season_days} d, has {days:.1f} d")
        return {}

    def locate(
        self,
        parameters: Parameters,  # noqa: ARG002
        demand: Demand,
        windows: Sequence[Window],
        origins: Ints,
    ) -> Floats:
        season = self.season_days * demand.steps_per_day
        before = origins - season
        located = np.full((len(origins), len(windows)), np.nan)
        for column, window in enumerate(windows):
            if window.last <= season:
                rows = before >= 0
                located[rows, column] = demand.peaks(window, before[rows])
        return located
