"""Forecast: the highest rate over windows of the future, and what a forecaster is.

Knows the shape of a forecast and of a fitted model. Knows no model; imports no pandas, since
policies read forecasts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from forecaster.history import TrafficHistory

Parameters = Mapping[str, float | str | list[float] | list[list[float]]]

MOST_GROWTH = 50.0
"""Of log rate that a margin may add: more has no finite number."""


def with_margin(qps: float, margin: float, scale: float) -> float:
    """A rate raised by so many scales of log rate."""
    return qps * math.exp(min(margin * scale, MOST_GROWTH))


class ForecastError(Exception):
    """No usable model or no usable forecast; the message says why."""


@dataclass(frozen=True, slots=True)
class Window:
    """A span of the future of which the highest rate matters: what a decision must cover.

    It covers the steps first .. last - 1, counted from the end of the history (0 is the first
    step that is not known yet).
    """

    name: str
    first: int
    last: int

    def __post_init__(self) -> None:
        if not 0 <= self.first < self.last:
            raise ValueError(f"a window needs 0 <= first < last, got {self}")


@dataclass(frozen=True, slots=True)
class QuantilePoint:
    """A quantile of the highest rate of a window: `level` in (0, 1), `qps` requests a second."""

    level: float
    qps: float


@dataclass(frozen=True, slots=True)
class WindowForecast:
    """The distribution of the highest mean rate of a step within [starts_at, ends_at).

    `median_qps` is its location and `scale` the learned scale of the error in log rate, which
    varies with time: a margin of k scales asks for `upper(k)`. `quantiles` keep their stated
    coverage; they do not cross. `floor_qps` is what must be covered whatever the model says (an
    edge that recurs by the clock, a fall that nothing announced), with its own `floor_scale`;
    `floor_reason` says which. `spare_qps` is what a calibration found worth keeping whatever a
    model says: it rests on what was seen alone. Raises ValueError where a figure is negative or
    not finite.
    """

    name: str
    starts_at: datetime
    ends_at: datetime
    median_qps: float
    scale: float
    quantiles: tuple[QuantilePoint, ...]
    floor_qps: float = 0.0
    floor_scale: float = 0.0
    floor_reason: str = ""
    spare_qps: float = 0.0

    def __post_init__(self) -> None:
        figures = (self.median_qps, self.scale, self.floor_qps, self.floor_scale, self.spare_qps)
        for figure in figures:
            if not 0.0 <= figure < math.inf:  # false of NaN too
                raise ValueError(f"a forecast must be finite and not negative: {self}")
        low = 0.0
        for point in self.quantiles:
            if not low <= point.qps < math.inf:
                raise ValueError(f"quantiles cross, are negative or not finite: {self}")
            low = point.qps

    def model_upper(self, margin: float) -> float:
        """What the model itself asks for at a margin of so many scales."""
        return with_margin(self.median_qps, margin, self.scale)

    def floor_upper(self, margin: float) -> float:
        return with_margin(self.floor_qps, max(margin, 0.0), self.floor_scale)

    def upper(self, margin: float) -> float:
        """The rate to be ready for: the median and a margin of so many scales, or the floor."""
        return max(self.model_upper(margin), self.floor_upper(margin))

    def at_level(self, level: float) -> float:
        """The lowest quantile at or above the level, else the highest there is; the median where
        a forecast has no quantiles."""
        highest = self.quantiles[-1].qps if self.quantiles else self.median_qps
        return next((point.qps for point in self.quantiles if point.level >= level), highest)


UNANNOUNCED_RISE = "a rise that was not announced"
"""The `floor_reason` of a floor that follows one."""
NEWEST_SECONDS = 60
"""What counts as the present rate where headroom is kept over it."""
HOURLY_SECONDS = 3 * 86_400
"""How far back jumps are looked for that come at the same time of some hours."""
DAILY_DAYS = 14
"""How many days back the rates around a time of day are looked at."""


@dataclass(frozen=True, slots=True)
class Spare:
    """What is kept over the highest rate of so many last seconds; a factor of 0 for nothing.

    Where it is `hourly`, over the newest rate: the factor is then of the highest jump that came at
    the same time of an hour within those seconds. Where it is `daily`, over the highest rate of
    past days of the same type from so many seconds before this time of day until as many after it.
    """

    factor: float
    seconds: int
    reason: str
    hourly: bool = False
    daily: bool = False

    @property
    def windows(self) -> tuple[str, ...]:
        """Where it is kept: what comes by the hour must still be there when its minute comes."""
        return ("order", "hold") if self.hourly else ("order",)


NO_SPARE = Spare(0.0, NEWEST_SECONDS, "")


@dataclass(frozen=True, slots=True)
class Calibration:
    """The knob that keeps a target bad ratio on a workload's own history, and its evidence.

    `margin` is in scales of error; `steady` takes the scale's mean instead of its present value,
    which is dearer in calm and covers more of what comes out of it. `headroom` is the share by
    which the order lies above the newest minute's highest rate whatever the model says, for jumps
    that no history held. Where no margin serves, the fleet is sized for `burst_factor` times the
    highest rate of the last `burst_days`. `hourly` is the share that is kept of jumps that come at
    one time of the hour, `daily` that of the highest rate which past days of the same type had
    within `daily_seconds` of this time of day. `expected_bad_ratio` is the estimate for the choice,
    from `requests` replayed; `kept` is False where no candidate kept the target.
    """

    target_bad_ratio: float
    margin: float
    steady: bool = False
    burst_factor: float = 0.0
    burst_days: int = 0
    headroom: float = 0.0
    hourly: float = 0.0
    daily: float = 0.0
    daily_seconds: int = 0
    expected_bad_ratio: float = 0.0
    requests: float = 0.0
    kept: bool = True

    @property
    def spare(self) -> Spare:
        if self.hourly:
            reason = "a jump at this time of the hour"
            return Spare(self.hourly, HOURLY_SECONDS, reason, hourly=True)
        if self.daily:
            reason = "the highest rate around this time of day"
            return Spare(self.daily, self.daily_seconds, reason, daily=True)
        if self.burst_factor:
            return Spare(self.burst_factor, self.burst_days * 86_400, "bursts of the last days")
        factor = 1.0 + self.headroom if self.headroom else 0.0
        return Spare(factor, NEWEST_SECONDS, "headroom for a jump")


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a model says of each window that it was fitted for.

    `skill` is 1 - pinball loss / that of the seasonal naive forecast on days that the model had
    not seen (None where it could not be measured). `trusted` is False where the forecast must not
    order capacity; `failures` says why, and which models were passed over. `calibration` is the
    margin that was found for this workload's target, None where none was asked for.
    """

    issued_at: datetime
    windows: tuple[WindowForecast, ...]
    model: str
    fitted_at: datetime
    history_end: datetime
    skill: float | None = None
    trusted: bool = True
    failures: tuple[str, ...] = ()
    calibration: Calibration | None = None

    def __post_init__(self) -> None:
        if not self.windows:
            raise ValueError("a forecast needs at least one window")

    def window(self, name: str) -> WindowForecast | None:
        for window in self.windows:
            if window.name == name:
                return window
        return None


@dataclass(frozen=True, slots=True)
class FittedModel:
    """A model after fitting, as plain numbers that JSON carries exactly.

    `parameters` holds floats and lists of floats by name; each model documents its own. A
    combination keeps its members in `members`; `calibration` is the margin that goes with it.
    Never a pickle: a stored model is data.
    """

    model: str
    fitted_at: datetime
    history_end: datetime
    step_seconds: int
    windows: tuple[Window, ...]
    parameters: Parameters
    members: tuple[FittedModel, ...] = ()
    skill: float | None = None
    trusted: bool = True
    failures: tuple[str, ...] = ()
    calibration: Calibration | None = None


class Forecaster(Protocol):
    """A model: a pure function from history to a fitted model, and from that to a forecast."""

    @property
    def name(self) -> str: ...

    def fit(
        self, history: TrafficHistory, fitted_at: datetime, windows: Sequence[Window]
    ) -> FittedModel:
        """Raises ForecastError where the history does not carry the model."""
        ...

    def predict(
        self, fitted: FittedModel, history: TrafficHistory, issued_at: datetime
    ) -> Forecast:
        """A forecast from the end of the history on; raises ForecastError where none is usable."""
        ...
