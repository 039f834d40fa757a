"""Trust: taken from a forecast that the world contradicts, and given back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
import pytest

from forecaster.forecast import FittedModel, Forecast, QuantilePoint, Window, WindowForecast
from forecaster.history import TrafficHistory
from forecaster.trust import Gated, contradiction
from tests.traffic import MONDAY

WINDOWS = (Window("order", 3, 5), Window("hold", 0, 4))


@dataclass(frozen=True, slots=True)
class Saying:
    """A forecaster that says so many times the newest rate, from a moment on another."""

    factor: float
    until: datetime
    later: float

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
        factor = self.factor if history.end < self.until else self.later
        qps = float(history.values[-1]) * factor
        windows = tuple(
            WindowForecast(
                window.name,
                history.end + window.first * history.step,
                history.end + window.last * history.step,
                qps,
                0.02,
                (QuantilePoint(0.5, qps),),
            )
            for window in fitted.windows
        )
        return Forecast(issued_at, windows, "saying", fitted.fitted_at, history.end)


def verdicts(saying: Saying, hours: int = 6) -> list[bool]:
    """Minute by minute from the third hour on, whether the forecast is trusted."""
    rates = 1000 * (1.2 + np.sin(np.arange(hours * 60) / 60))
    history = TrafficHistory("x", MONDAY, 60, rates)
    gated = Gated(saying)
    fitted = gated.fit(history.steps(0, 120), MONDAY, WINDOWS)
    return [
        gated.predict(fitted, history.steps(0, end), MONDAY).trusted
        for end in range(121, hours * 60)
    ]


def test_a_fair_forecast_is_trusted_throughout() -> None:
    assert all(verdicts(Saying(1.0, MONDAY, 1.0)))


@pytest.mark.parametrize("factor", [0.0, 0.3, 3.0, 10.0])
def test_a_wrong_one_is_not_trusted_within_the_hour(factor: float) -> None:
    found = verdicts(Saying(1.0, MONDAY + timedelta(hours=3), factor))
    assert all(found[:55])
    assert not any(found[120:])


def test_trust_comes_back_an_hour_after_the_forecast_does() -> None:
    found = verdicts(Saying(3.0, MONDAY + timedelta(hours=3), 1.0))
    assert not found[50]
    assert found[-1]


def test_a_restart_gives_the_same_verdict() -> None:
    """The verdict is a function of the model and the history, not of what a process remembers."""
    saying = Saying(3.0, MONDAY + timedelta(hours=9), 1.0)
    rates = 1000 * (1.2 + np.sin(np.arange(300) / 60))
    history = TrafficHistory("x", MONDAY, 60, rates)
    fitted = saying.fit(history.steps(0, 120), MONDAY, WINDOWS)
    followed = Gated(saying)
    for end in range(121, 301):
        last = followed.predict(fitted, history.steps(0, end), MONDAY)
    assert Gated(saying).predict(fitted, history, MONDAY).trusted == last.trusted


def test_demand_beyond_what_is_thought_possible_contradicts_at_once() -> None:
    hold = WindowForecast("hold", MONDAY, MONDAY, 100.0, 0.01, ())
    assert contradiction(hold, 100.0) is None
    assert contradiction(hold, 103.0) is None
    text = contradiction(hold, 200.0)
    assert text is not None
    assert "200" in text
