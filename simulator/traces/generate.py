"""Generated traffic: the days of a service that does not exist, the same for the same seed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime

import numpy as np

from forecaster.history import TrafficHistory


@dataclass(frozen=True, slots=True)
class Diurnal:
    """A generated service: two humps a day, quieter nights and weekends, wandering level.

    `night_ratio` and `weekend_ratio` are relative to the weekday peak; `noise` is the standard
    deviation of the wandering log level, which keeps `persistence` of itself from minute to
    minute.
    """

    peak_qps: float = 200_000.0
    night_ratio: float = 0.18
    weekend_ratio: float = 0.75
    noise: float = 0.02
    persistence: float = 0.97


def generate(shape: Diurnal, start: datetime, days: int, seed: int) -> TrafficHistory:
    """Minutes of a diurnal trace from `start` on, by its clock; same arguments, same trace."""
    minutes = np.arange(days * 1440) + 60 * start.hour + start.minute
    rng = np.random.Generator(np.random.Philox(key=seed))
    hour = minutes / 60 % 24
    # A steep start of the working day is what a cold start cannot follow.
    morning = 1 / (1 + np.exp(-(hour - 8.2) / 0.35))
    evening = 1 / (1 + np.exp((hour - 20.5) / 0.8))
    lunch = 1 - 0.12 * np.exp(-(((hour - 12.6) / 0.7) ** 2))
    day = shape.night_ratio + (1 - shape.night_ratio) * morning * evening * lunch
    weekday = (start.weekday() + minutes // 1440) % 7
    level = np.where(weekday >= 5, shape.weekend_ratio, 1.0)
    shocks = rng.standard_normal(len(minutes)) * shape.noise * math.sqrt(1 - shape.persistence**2)
    wander = np.zeros(len(minutes))
    for minute in range(1, len(minutes)):
        wander[minute] = shape.persistence * wander[minute - 1] + shocks[minute]
    return TrafficHistory("diurnal", start, 60, shape.peak_qps * day * level * np.exp(wander))
