"""Schedules for the policies that go by the clock, as one writes them who has read the history.

For each hour of working days, and each of weekends, the highest rate that it has seen.
"""

from __future__ import annotations

import math

import numpy as np

from forecaster.calendar import DAY_SECONDS, Calendar
from forecaster.history import TrafficHistory
from policies.schedule import Schedule

WEEK = (("1-5", "2-6"), ("0,6", "0,1"))
"""Cron's days of working days and of weekends, and those on which their last hours end."""


def hourly_schedules(history: TrafficHistory, qps_per_replica: float) -> tuple[Schedule, ...]:
    """In UTC; an hour that the history does not hold takes the highest rate of all. Raises
    ValueError for a history without a rate."""
    known = np.isfinite(history.values)
    if not known.any():
        raise ValueError("a schedule needs a history with traffic")
    calendar = Calendar()
    local = calendar.local_seconds(history.epoch_seconds())
    kinds, hours = calendar.day_types(local), local % DAY_SECONDS // 3600
    found = []
    for kind, (days, next_days) in enumerate(WEEK):
        for hour in range(24):
            own = known & (kinds == kind) & (hours == hour)
            rate = history.values[own if own.any() else known].max()
            end = f"0 {hour + 1} * * {days}" if hour < 23 else f"0 0 * * {next_days}"
            replicas = math.ceil(rate / qps_per_replica)
            found.append(Schedule(f"0 {hour} * * {days}", end, replicas))
    return tuple(found)
