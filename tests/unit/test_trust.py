"""Trust: taken from a forecast that the world contradicts, and given back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import numpy as np
import pytest

from forecaster.calendar import Calendar
from forecaster.forecast import (
    FittedModel,
    Forecast,
    ForecastError,
    QuantilePoint,
    Window,
    WindowForecast,
)
from forecaster.history import TrafficHistory
from forecaster.registry import combined
from forecaster.trust import MAX_CONTRADICTIONS, Gated, contradiction
from simulator.traces.arrivals import on_step
from tests.traffic import MONDAY, real_trace, weeks

WINDOWS = (Window("order", 3, 5), Window("hold", 0, 4))
SWITCH = MONDAY + timedelta(hours=3)


@dataclass(frozen=True, slots=True)
class Saying:
    """A forecaster that says so many times the newest rate, from a moment on another; then nothing
    of the present for some minutes, where that is asked for."""

    factor: float
    until: datetime
    later: float
    denies_minutes: int = 0
    doubts: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return "saying"

    def fit(
        self, history: TrafficHistory, fitted_at: datetime, windows: Sequence[Window]
    ) -> FittedModel:
        return FittedModel("saying", fitted_at, history.end, 60, tuple(windows), {})

    def predict(
        self, fitted: FittedModel, history: TrafficHistory, issued_at: datetime
    ) -> Forecast:
        newest = float(history.values[-1])
        if not np.isfinite(newest):
            raise ForecastError("the newest minute is not known")
        qps = newest * (self.later if history.end >= self.until else self.factor)
        denied_until = self.until + timedelta(minutes=self.denies_minutes)
        denies = self.until <= history.end < denied_until
        windows = tuple(
            self._window(window, history, 0.0 if denies and window.name == "hold" else qps)
            for window in fitted.windows
        )
        return Forecast(
            issued_at, windows, "saying", fitted.fitted_at, history.end, failures=self.doubts
        )

    @staticmethod
    def _window(window: Window, history: TrafficHistory, qps: float) -> WindowForecast:
        return WindowForecast(
            window.name,
            history.end + window.first * history.step,
            history.end + window.last * history.step,
            qps,
            0.02,
            (QuantilePoint(0.5, qps),),
        )


def wave(hours: int = 6) -> TrafficHistory:
    return TrafficHistory("x", MONDAY, 60, 1000 * (1.2 + np.sin(np.arange(hours * 60) / 60)))


def followed(saying: Saying, history: TrafficHistory, first: int = 121) -> list[tuple[str, ...]]:
    """Minute by minute from the third hour on, what speaks against the forecast."""
    gated = Gated(saying)
    fitted = gated.fit(history.steps(0, 120), MONDAY, WINDOWS)
    return [
        gated.predict(fitted, history.steps(0, end), MONDAY).failures
        for end in range(first, len(history))
    ]


def verdicts(saying: Saying) -> list[bool]:
    return [not failures for failures in followed(saying, wave())]


def test_a_fair_forecast_is_trusted_throughout() -> None:
    assert all(verdicts(Saying(1.0, MONDAY, 1.0)))


@pytest.mark.parametrize("factor", [0.0, 0.3, 3.0, 10.0])
def test_a_wrong_one_is_not_trusted_within_the_hour(factor: float) -> None:
    found = verdicts(Saying(1.0, SWITCH, factor))
    assert all(found[:55])
    assert not any(found[120:])


@pytest.mark.parametrize("factor", [0.0, 0.3, 0.9])
def test_one_that_denies_what_is_there_is_not_trusted_from_that_minute_on(factor: float) -> None:
    found = verdicts(Saying(1.0, SWITCH, factor))
    assert found.index(False) == 180 - 121


def test_trust_comes_back_an_hour_after_the_forecast_does() -> None:
    found = verdicts(Saying(3.0, SWITCH, 1.0))
    assert not found[50]
    assert found.index(True) in range(60, 60 + 65)
    assert all(found[found.index(True) :])


def test_a_forecast_that_was_often_contradicted_is_not_trusted_when_it_agrees() -> None:
    """What it says of later is right throughout; of now it is far too low for some minutes."""

    few, many = (
        verdicts(Saying(1.0, SWITCH, 1.0, denies_minutes=minutes))
        for minutes in (MAX_CONTRADICTIONS - 1, MAX_CONTRADICTIONS)
    )
    assert few.count(False) == MAX_CONTRADICTIONS - 1
    assert many.count(False) in range(55, 66)


@pytest.mark.parametrize("end", [125, 190, 205, 240, 290])
def test_a_restart_gives_the_same_verdict(end: int) -> None:
    """The verdict is a function of the model and the history, not of what a process remembers."""
    saying = Saying(1.0, SWITCH, 3.0)
    last = followed(saying, wave().steps(0, end + 1))[-1]
    assert followed(saying, wave().steps(0, end + 1), first=end)[-1] == last


def test_ticks_that_were_missed_change_nothing() -> None:
    """A process that stood still for a quarter of an hour."""
    saying, history = Saying(1.0, SWITCH, 3.0), wave()
    gated = Gated(saying)
    fitted = gated.fit(history.steps(0, 120), MONDAY, WINDOWS)
    for end in (130, 175, 190, 195):
        seldom = gated.predict(fitted, history.steps(0, end), MONDAY)
    assert seldom.failures == followed(saying, history.steps(0, 196))[-1]


def test_a_new_model_answers_for_what_it_would_have_said() -> None:
    """It neither inherits the doubts about the old one nor begins with trust."""
    history = wave()
    gated = Gated(Saying(1.0, MONDAY, 3.0))
    old = gated.fit(history.steps(0, 120), MONDAY, WINDOWS)
    assert not gated.predict(old, history.steps(0, 200), MONDAY).trusted
    gated.forecaster = Saying(1.0, MONDAY, 1.0)
    new = gated.fit(history.steps(0, 200), SWITCH, WINDOWS)
    assert gated.predict(new, history.steps(0, 201), MONDAY).trusted
    gated.forecaster = Saying(1.0, MONDAY, 3.0)
    newest = gated.fit(history.steps(0, 201), SWITCH, WINDOWS)
    assert not gated.predict(newest, history.steps(0, 202), MONDAY).trusted


def test_windows_that_are_not_known_whole_say_nothing_of_a_forecast() -> None:
    values = wave().values.copy()
    values[130:230] = np.nan
    holed = TrafficHistory("x", MONDAY, 60, values)
    gated = Gated(Saying(3.0, MONDAY, 3.0))
    fitted = gated.fit(holed.steps(0, 120), MONDAY, WINDOWS)
    # Fewer than ten of its claims have come due since the gap.
    assert gated.predict(fitted, holed.steps(0, 238), MONDAY).trusted
    assert not gated.predict(fitted, holed.steps(0, 260), MONDAY).trusted


@pytest.mark.parametrize("factor", [0.01, 3.0])
def test_where_next_to_nothing_is_left_next_to_nothing_is_no_error(factor: float) -> None:
    """Of a peak of 2,200 requests a second one in a hundred seconds is left: three times as many
    need no replica, and are no reason to give up what the fleet is kept for."""
    values = wave().values.copy()
    values[180:] = 0.01
    gone = TrafficHistory("x", MONDAY, 60, values)
    assert not any(followed(Saying(1.0, SWITCH, factor), gone)[70:])


def test_what_the_forecaster_doubts_itself_stays_said() -> None:
    said = followed(Saying(3.0, MONDAY, 3.0, doubts=("no skill",)), wave())[-1]
    assert said[0] == "no skill"
    assert "missed the peaks of the last 60 minutes by a factor of" in said[1]


def test_demand_beyond_what_is_thought_possible_contradicts_at_once() -> None:
    hold = WindowForecast("hold", MONDAY, MONDAY, 100.0, 0.01, ())
    assert contradiction(hold, 100.0) is None
    assert contradiction(hold, 103.0) is None
    text = contradiction(hold, 200.0)
    assert text is not None
    assert "200" in text
    assert contradiction(None, 200.0) is None
    held = replace(hold, floor_qps=250.0, floor_reason="earlier forecasts expected it")
    assert contradiction(held, 200.0) is None


def test_a_collapse_of_ten_minutes_is_trusted_through() -> None:
    """Measured traffic by the ten minutes, in steps of 15 s; a fiftieth is left for an hour. The
    model runs ahead of the fall, but what earlier forecasts expected is held to."""
    measured, ten_minutes = real_trace("servegen_msmall_10min"), 40
    values = measured.values.copy()
    first = 12 * 144 + 84
    values[first : first + 6] *= 0.02
    history = on_step(replace(measured, values=values), 15)
    gated = Gated(combined(Calendar()))
    windows = (Window("order", 12, 15), Window("hold", 0, 14))
    fitted = gated.fit(history.steps(0, 12 * 5760), history.start, windows)
    fall = (first - 1) * ten_minutes
    doubts = [
        gated.predict(fitted, history.steps(0, now), history.start).failures
        for now in range(fall, fall + 6 * ten_minutes)
    ]
    assert not any(doubts)


def untrusted(history: TrafficHistory, train_days: int, days: int) -> float:
    """The share of minutes at which the gate doubts ours, fitted each day."""
    gated = Gated(combined(Calendar()))
    doubted = 0
    for day in range(days):
        first = (train_days + day) * 1440
        start = max(0, first - 14 * 1440)
        fitted = gated.fit(history.steps(start, first), history.start, WINDOWS)
        for end in range(first, first + 1440):
            doubted += not gated.predict(fitted, history.steps(start, end), history.start).trusted
    return doubted / (1440 * days)


@pytest.mark.parametrize("name", ["wc98_1min", "isp_uk_5min"])
def test_a_good_forecast_of_measured_traffic_is_seldom_doubted(name: str) -> None:
    assert untrusted(on_step(real_trace(name), 60), train_days=20, days=5) < 0.002


def test_a_good_forecast_of_generated_traffic_is_never_doubted() -> None:
    assert untrusted(weeks(), train_days=14, days=2) == 0.0
