"""Trust: whether what a model says agrees with what is there, and with what has come since.

Knows what a model said of the last hour, minute by minute, and what came. Knows no model's inside
and has no memory of its own: the verdict is a function of the fitted model and the history, so
that neither a restart nor a new model begins with trust that it has not earned.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from statistics import fmean

import numpy as np

from forecaster.forecast import (
    FittedModel,
    Forecast,
    Forecaster,
    ForecastError,
    Window,
    WindowForecast,
)
from forecaster.history import TrafficHistory

SPAN_SECONDS = 3600
"""What came of the claims of so long a time is looked at; longer where steps are long."""
MINUTE = 60
MIN_CLAIMS = 10
"""Claims that must have come due before a verdict is given on them."""
ALLOWED_RATIO, ALLOWED_ERROR = 2.0, 0.03
"""Mean error in log rate that is borne: so many times that of the last value, and this beside."""
CONTRADICTION_SCALES, CONTRADICTION_RATIO = 4.0, 1.02
"""Demand is beyond what was thought possible of now: so many scales above, and this beside."""
MAX_CONTRADICTIONS = 5
"""From so many minutes of the last hour on, a forecast that agrees just now is not trusted."""
NEGLIGIBLE_RATIO = 1e-3
"""Of the highest rate known: a difference so small needs no replica, so that it is no error."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A median for the peak over steps from `first` to `last`, and the last value when it was
    said; seconds since 1970 and requests a second."""

    first: int
    last: int
    median_qps: float
    last_qps: float


class Watch:
    """One fitted model along one history: what it claimed and what came of it. Times are in seconds
    since 1970."""

    def __init__(self, fitted: FittedModel, history: TrafficHistory) -> None:
        step = history.step_seconds
        self.fitted = fitted
        self._every = max(MINUTE, step)
        self._span = max(SPAN_SECONDS, 2 * MIN_CLAIMS * step)
        self._open: deque[Claim] = deque()
        self._outcomes: deque[tuple[int, float, float]] = deque()
        self._contradicted: deque[int] = deque()
        self._missed: str | None = None
        self._negligible = _negligible(history)
        reach = max(window.last for window in fitted.windows) * step
        oldest = max(_seconds(history.start), _seconds(history.end) - self._span - reach)
        self._newest = oldest // self._every * self._every

    def unspoken(self, until: int) -> range:
        """The minutes of which nothing has been noted yet."""
        return range(self._newest + self._every, until + 1, self._every)

    def note(self, at: int, forecast: Forecast | None, history: TrafficHistory) -> None:
        """What was said at a minute, when the world was known as far as this history."""
        self._newest = at
        order, level = forecast.window("order") if forecast else None, _level(history)
        if forecast is None or order is None or level is None:
            return
        first, last = _seconds(order.starts_at), _seconds(order.ends_at)
        self._open.append(Claim(first, last, order.median_qps, level))
        if contradiction(forecast.window("hold"), level, self._negligible) is not None:
            self._contradicted.append(at)

    def doubt(self, forecast: Forecast, history: TrafficHistory) -> str | None:
        """Why the forecast must not order capacity; None where nothing speaks against it."""
        self._settle(history)
        level = _level(history)
        hold = forecast.window("hold")
        now = None if level is None else contradiction(hold, level, self._negligible)
        if now is not None:
            return now
        if len(self._contradicted) >= MAX_CONTRADICTIONS:
            return (
                f"demand was beyond what the forecast said at most in {len(self._contradicted)} of "
                f"the last {self._span // self._every} times"
            )
        return self._missed

    def _settle(self, history: TrafficHistory) -> None:
        """Claims whose window has ended have an outcome; what is older than the span is let go."""
        end = _seconds(history.end)
        settled = False
        while self._open and self._open[0].last <= end:
            settled |= self._take(self._open.popleft(), history)
        if settled:
            while self._outcomes and self._outcomes[0][0] <= end - self._span:
                self._outcomes.popleft()
            self._missed = self._verdict()
        while self._contradicted and self._contradicted[0] <= end - self._span:
            self._contradicted.popleft()

    def _take(self, claim: Claim, history: TrafficHistory) -> bool:
        start, step = _seconds(history.start), history.step_seconds
        self._negligible = _negligible(history)
        peak = float(
            history.values[(claim.first - start) // step : (claim.last - start) // step].max()
        )
        if not math.isfinite(peak):
            return False  # A window that is not known whole says nothing.
        error, yardstick = (
            _log_ratio(peak, qps, self._negligible) for qps in (claim.median_qps, claim.last_qps)
        )
        self._outcomes.append((claim.last, error, yardstick))
        return True

    def _verdict(self) -> str | None:
        if len(self._outcomes) < MIN_CLAIMS:
            return None
        error = fmean([outcome[1] for outcome in self._outcomes])
        yardstick = fmean([outcome[2] for outcome in self._outcomes])
        if error <= ALLOWED_RATIO * yardstick + ALLOWED_ERROR:
            return None
        return (
            f"the forecast missed the peaks of the last {self._span // MINUTE} minutes by a factor "
            f"of {math.exp(error):.2f}, the last value by {math.exp(yardstick):.2f}"
        )


@dataclass(slots=True)
class Gated:
    """A forecaster whose forecasts are trusted as long as they agree with the world.

    Its memo makes the next step cheap; it never changes what is said.
    """

    forecaster: Forecaster
    _watch: Watch | None = field(default=None, init=False, repr=False)

    @property
    def name(self) -> str:
        return self.forecaster.name

    def fit(
        self, history: TrafficHistory, fitted_at: datetime, windows: Sequence[Window]
    ) -> FittedModel:
        return self.forecaster.fit(history, fitted_at, windows)

    def predict(
        self, fitted: FittedModel, history: TrafficHistory, issued_at: datetime
    ) -> Forecast:
        watch = self._watch
        if watch is None or watch.fitted is not fitted:
            watch = self._watch = Watch(fitted, history)
        end = _seconds(history.end)
        for at in watch.unspoken(end - 1):
            self._catch_up(watch, history, at)
        forecast = self.forecaster.predict(fitted, history, issued_at)
        if watch.unspoken(end):
            watch.note(end, forecast, history)
        cause = watch.doubt(forecast, history)
        if cause is None:
            return forecast
        return replace(forecast, trusted=False, failures=(*forecast.failures, cause))

    def _catch_up(self, watch: Watch, history: TrafficHistory, at: int) -> None:
        """What the model would have said at an earlier minute."""
        known = history.steps(0, (at - _seconds(history.start)) // history.step_seconds)
        try:
            forecast = self.forecaster.predict(watch.fitted, known, known.end)
        except ForecastError:
            watch.note(at, None, known)
        else:
            watch.note(at, forecast, known)


def contradiction(hold: WindowForecast | None, level: float, negligible: float = 0.0) -> str | None:
    """The window of what is lost if a replica is deleted now includes now: what it thinks possible
    cannot lie below the demand that is there, by more than a negligible rate. What it holds to
    of earlier forecasts counts: in a collapse its model runs ahead of demand, downwards."""
    possible = math.inf if hold is None else hold.upper(CONTRADICTION_SCALES)
    if level <= CONTRADICTION_RATIO * possible + negligible:
        return None
    return f"demand is {level:,.0f} requests/s where the forecast says {possible:,.0f} at most"


def _level(history: TrafficHistory) -> float | None:
    """The mean rate of the newest minute, as far as it is known."""
    newest = history.values[-max(1, MINUTE // history.step_seconds) :].tolist()
    known = [qps for qps in newest if math.isfinite(qps)]
    return sum(known) / len(known) if known else None


def _negligible(history: TrafficHistory) -> float:
    return NEGLIGIBLE_RATIO * float(np.fmax.reduce(history.values, initial=0.0))


def _log_ratio(one: float, other: float, offset: float) -> float:
    return abs(math.log((one + offset) / (other + offset))) if offset else 0.0


def _seconds(at: datetime) -> int:
    return round(at.timestamp())
