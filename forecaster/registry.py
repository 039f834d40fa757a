"""Forecasters by the name that policies and backtests use."""

from __future__ import annotations

from collections.abc import Callable

from forecaster.calendar import Calendar
from forecaster.combine import NAME, Combined
from forecaster.member import Member
from forecaster.models.baselines import LastValue, Trend
from forecaster.models.direct import Direct
from forecaster.models.double_seasonal import DoubleSeasonal
from forecaster.models.harmonic import Harmonic
from forecaster.models.mstl import Decomposition
from forecaster.models.peers.crane_dsp import CraneDsp
from forecaster.models.peers.dynamo import Constant, Kalman
from forecaster.models.peers.holt_winters import HoltWinters
from forecaster.models.peers.hour_of_week import HourOfWeek
from forecaster.models.peers.seasonal_naive import SeasonalNaive
from forecaster.models.seasonal_naive import DampedSeasonalNaive

MEMBERS: dict[str, Callable[[], Member]] = {
    "direct": Direct,
    "short_trend": lambda: Direct(past_days=False),
    "harmonic": Harmonic,
    "double_seasonal": DoubleSeasonal,
    "mstl": Decomposition,
    "damped_seasonal_naive": DampedSeasonalNaive,
    "last_value": LastValue,
    "trend": Trend,
    "seasonal_naive_day": lambda: SeasonalNaive(1),
    "seasonal_naive_week": lambda: SeasonalNaive(7),
    "crane_dsp": CraneDsp,
    "phpa_holt_winters": HoltWinters,
    "dynamo_constant": Constant,
    "dynamo_kalman": Kalman,
    "hour_of_week": HourOfWeek,
    "time_of_week": lambda: HourOfWeek(slot_seconds=300),
}


def combined(calendar: Calendar) -> Combined:
    """Ours."""
    return Combined(calendar)


def forecaster(name: str, calendar: Calendar) -> Combined:
    """Ours by the name `combined`, else one member alone; raises KeyError for an unknown name."""
    if name == NAME:
        return combined(calendar)
    return Combined(calendar, (MEMBERS[name](),), (), name, guarded=False)
