"""Forecast: quantiles of the request rate over a horizon, and what a forecaster is.

Knows the shape of a forecast and of a fitted model. Knows no model; imports no pandas, since
policies read forecasts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from forecaster.history import TrafficHistory


class ForecastError(Exception):
    """No usable model or no usable forecast; the message says why."""


@dataclass(frozen=True, slots=True)
class QuantilePath:
    """One quantile along the horizon: `values[i]` in requests a second, `level` in (0, 1)."""

    level: float
    values: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Forecast:
    """Quantiles of the mean request rate for each step of the horizon.

    Step i covers [starts_at + i * step, starts_at + (i + 1) * step). `skill` is
    1 - error / error of the seasonal naive forecast at the operating lead, on days that the
    model had not seen (None where it could not be measured). `trusted` is False where the
    forecast must not order capacity; `failures` says why, and which models were passed over.
    Raises ValueError where quantiles cross, differ in length, are negative or not finite.
    """

    issued_at: datetime
    starts_at: datetime
    step_seconds: int
    quantiles: tuple[QuantilePath, ...]
    model: str
    fitted_at: datetime
    history_end: datetime
    skill: float | None = None
    trusted: bool = True
    failures: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.quantiles or not self.quantiles[0].values:
            raise ValueError("a forecast needs at least one quantile over at least one step")
        previous = self.quantiles[0]
        for path in self.quantiles:
            if not all(math.isfinite(value) and value >= 0 for value in path.values):
                raise ValueError(f"quantile {path.level} of {self.model} is negative or not finite")
            if len(path.values) != len(previous.values):
                raise ValueError("quantiles of a forecast differ in length")
            if path.level < previous.level or any(
                low > high for low, high in zip(previous.values, path.values, strict=True)
            ):
                raise ValueError(f"quantiles {previous.level} and {path.level} cross")
            previous = path

    @property
    def ends_at(self) -> datetime:
        return self.starts_at + timedelta(seconds=self.step_seconds * len(self.quantiles[0].values))

    def at_level(self, level: float) -> QuantilePath:
        """The path of the lowest quantile at or above the level, else of the highest."""
        return next((path for path in self.quantiles if path.level >= level), self.quantiles[-1])

    def peak(self, level: float, start: datetime, end: datetime) -> float | None:
        """The highest value of a quantile over [start, end], or None where the horizon ends
        before the window does."""
        if end > self.ends_at or start < self.starts_at:
            return None
        first = int((start - self.starts_at).total_seconds() // self.step_seconds)
        last = int((end - self.starts_at).total_seconds() // self.step_seconds)
        values = self.at_level(level).values
        return max(values[first : last + 1])


@dataclass(frozen=True, slots=True)
class FittedModel:
    """A model after fitting, as plain numbers that JSON carries exactly.

    `parameters` holds floats and lists of floats by name; each model documents its own.
    `horizon_steps` is how far the error quantiles reach. Never a pickle: a stored model is data.
    """

    model: str
    fitted_at: datetime
    history_end: datetime
    step_seconds: int
    horizon_steps: int
    parameters: Mapping[str, float | str | list[float] | list[list[float]]]
    skill: float | None = None
    trusted: bool = True
    failures: tuple[str, ...] = ()


class Forecaster(Protocol):
    """A model: a pure function from history to a fitted model, and from that to a forecast."""

    @property
    def name(self) -> str: ...

    def fit(self, history: TrafficHistory, fitted_at: datetime, horizon_steps: int) -> FittedModel:
        """Raises ForecastError where the history does not carry the model."""
        ...

    def predict(
        self, fitted: FittedModel, history: TrafficHistory, issued_at: datetime
    ) -> Forecast:
        """A forecast from the end of the history on; raises ForecastError where none is usable."""
        ...
