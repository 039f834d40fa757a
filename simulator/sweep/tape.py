"""Tape: what a forecaster says along a run, made once for all settings.

A forecast of demand does not depend on how the fleet is sized, so settings that differ only in
their knob share it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial

import numpy as np
import numpy.typing as npt

from forecaster.combine import Combined, Rehearsal
from forecaster.forecast import (
    FittedModel,
    Forecaster,
    ForecastError,
    Window,
    WindowForecast,
)
from forecaster.history import Floats, TrafficHistory
from forecaster.trust import Gated

OnFit = Callable[[int, Rehearsal], None]
"""Told the row of each fit and what the model would have said before."""


@dataclass(frozen=True, slots=True, eq=False)
class Tape:
    """A row for each step that the history grows by: median, scale, floor and the floor's scale of
    the order and the hold window; `trusted` is False where there was no forecast to go by."""

    order: Floats
    hold: Floats
    trusted: npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Walk:
    """How a forecaster goes through a run: its windows, how far back it reads, how far behind
    the newest step that it knows lies, and how often it is fitted anew."""

    windows: Sequence[Window]
    history_steps: int
    lag_seconds: float
    refit_seconds: float = 86_400.0

    def lag_steps(self, step_seconds: int) -> int:
        """Steps of a history that are not known yet where a decision falls on its grid."""
        return math.ceil(self.lag_seconds / step_seconds)

    def rows(self, ticks: int, tick_seconds: float, step_seconds: int) -> npt.NDArray[np.int64]:
        """The row of the tape that each decision of a run reads."""
        known = (np.arange(ticks) * tick_seconds - self.lag_seconds) // step_seconds
        return known.astype(np.int64) + self.lag_steps(step_seconds)


def record(
    forecaster: Combined,
    demand: TrafficHistory,
    starts_at: datetime,
    walk: Walk,
    on_fit: OnFit = lambda _, __: None,
) -> Tape:
    """Every row that a decision from `starts_at` on may read."""
    step = demand.step_seconds
    first = round((starts_at - demand.start).total_seconds()) // step
    count = len(demand) - first + 1
    tape = Tape(np.zeros((count, 4)), np.zeros((count, 4)), np.zeros(count, dtype=np.bool_))
    fitted: FittedModel | None = None
    gated = Gated(forecaster)
    every = round(walk.refit_seconds / step)
    for row in range(count):
        known = max(0, first + row - walk.lag_steps(step))
        history = demand.steps(max(0, known - walk.history_steps), known)
        now = starts_at + timedelta(seconds=row * step)
        if row % every == 0:
            fitted = _fit(forecaster, history, now, walk, partial(on_fit, row)) or fitted
        if fitted is not None:
            _say(gated, fitted, history, now, tape, row)
    return tape


def _fit(
    forecaster: Combined,
    history: TrafficHistory,
    now: datetime,
    walk: Walk,
    tell: Callable[[Rehearsal], None],
) -> FittedModel | None:
    try:
        fitted, rehearsal = forecaster.rehearse(history, now, walk.windows)
    except ForecastError:
        return None
    tell(rehearsal)
    return fitted


def _say(
    forecaster: Forecaster,
    fitted: FittedModel,
    history: TrafficHistory,
    now: datetime,
    tape: Tape,
    row: int,
) -> None:
    try:
        forecast = forecaster.predict(fitted, history, now)
    except ForecastError:
        return
    order, hold = forecast.window("order"), forecast.window("hold")
    if forecast.trusted and order is not None and hold is not None:
        tape.trusted[row] = True
        tape.order[row], tape.hold[row] = _figures(order), _figures(hold)


def _figures(window: WindowForecast) -> tuple[float, float, float, float]:
    return window.median_qps, window.scale, window.floor_qps, window.floor_scale
