"""The mean of each time of the week: a stand-in for the closed models of the clouds.

Source: what AWS, Google Cloud and Azure publish of predictive scaling: one to two weeks of history,
daily and weekly patterns, hourly values at AWS. The blend is ours: a time of the week counts as
often as it was seen, the same time of any day once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from forecaster.calendar import DAY_SECONDS, WEEK_SECONDS
from forecaster.demand import Demand, Ints
from forecaster.forecast import ForecastError, Parameters, Window
from forecaster.history import Floats
from forecaster.models.peers.blocks import logs_of, rates_of

HISTORY_DAYS = 14


@dataclass(frozen=True, slots=True)
class HourOfWeek:
    """The highest mean of the slots that a window touches. Slots are hours unless said."""

    slot_seconds: int = 3600

    @property
    def name(self) -> str:
        return "hour_of_week" if self.slot_seconds == 3600 else "time_of_week"

    def fit(self, demand: Demand, windows: Sequence[Window]) -> Parameters:  # noqa: ARG002
        """Parameters: `profile`, the rate of each slot of the local week. Raises ForecastError
        below a day of history."""
        if len(demand) < demand.steps_per_day:
            days = len(demand) / demand.steps_per_day
            raise ForecastError(f"{self.name}: needs 1 day of history, has {days:.1f}")
        newest = slice(-HISTORY_DAYS * demand.steps_per_day, None)
        rates, local = rates_of(demand)[newest], demand.local[newest]
        known = np.isfinite(rates)
        if not known.any():
            raise ForecastError(f"{self.name}: the newest {HISTORY_DAYS} days are not known")
        rates, slots = rates[known], self._slots(local[known])
        daily = DAY_SECONDS // self.slot_seconds
        week, seen = _means(slots, rates, WEEK_SECONDS // self.slot_seconds)
        day, on_day = _means(slots % daily, rates, daily)
        day = np.where(on_day > 0, day, rates.mean())
        times = seen * demand.step_seconds / self.slot_seconds
        return {"profile": ((times * week + np.tile(day, 7)) / (times + 1)).tolist()}

    def locate(
        self, parameters: Parameters, demand: Demand, windows: Sequence[Window], origins: Ints
    ) -> Floats:
        profile = np.array(parameters["profile"], dtype=np.float64)
        if not len(demand):
            return np.full((len(origins), len(windows)), np.nan)
        step = demand.step_seconds
        starts = demand.local[np.maximum(origins - 1, 0)] + np.where(origins > 0, step, 0)
        columns = []
        for window in windows:
            ahead = np.arange(window.first, window.last, dtype=np.int64) * step
            slots = self._slots(starts[:, None] + ahead[None, :])
            columns.append(logs_of(profile[slots].max(axis=1), demand))
        return np.column_stack(columns)

    def _slots(self, local: Ints) -> Ints:
        return np.asarray(local % WEEK_SECONDS // self.slot_seconds, dtype=np.int64)


def _means(slots: Ints, rates: Floats, count: int) -> tuple[Floats, Floats]:
    """The mean rate of each slot (0 where none was seen), and how many steps were seen."""
    seen = np.bincount(slots, minlength=count).astype(np.float64)
    sums = np.bincount(slots, weights=rates, minlength=count)
    return sums / np.maximum(seen, 1.0), seen
