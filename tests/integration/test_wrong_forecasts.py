"""Never dangerous: forecasts that are wrong on purpose, through the daemon's own loop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import cache

import pytest

from forecaster.calendar import Calendar
from forecaster.forecast import FittedModel, Forecast, Forecaster, Window, WindowForecast
from forecaster.history import TrafficHistory
from forecaster.registry import combined
from forecaster.trust import Gated
from scaler.loop import ControlLoop, Ports, TickResult
from scaler.rounds import Failure, Rounds
from simulator.clock import VirtualClock, run_jobs
from simulator.scorecard import Scorecard, score
from simulator.traces.generate import Diurnal, generate
from storage.memory import MemoryDecisionStore
from tests.traffic import MONDAY
from tests.unit.test_sweep import CAPACITY, scenario, workload

Change = Callable[[WindowForecast], WindowForecast]
HALF_A_DAY_OFF = timedelta(hours=6)


@dataclass(frozen=True, slots=True)
class Wrong:
    """A forecaster whose word is changed, or is that of some time ago."""

    forecaster: Forecaster
    change: Change
    late: timedelta = timedelta(0)

    @property
    def name(self) -> str:
        return "wrong"

    def fit(
        self, history: TrafficHistory, fitted_at: datetime, windows: Sequence[Window]
    ) -> FittedModel:
        return self.forecaster.fit(history, fitted_at, windows)

    def predict(
        self, fitted: FittedModel, history: TrafficHistory, issued_at: datetime
    ) -> Forecast:
        said = self.forecaster.predict(fitted, history.until(history.end - self.late), issued_at)
        windows = tuple(
            replace(
                self.change(window),
                starts_at=window.starts_at + self.late,
                ends_at=window.ends_at + self.late,
            )
            for window in said.windows
        )
        return replace(said, windows=windows)


def times(factor: float) -> Change:
    return lambda window: replace(
        window,
        median_qps=window.median_qps * factor,
        floor_qps=window.floor_qps * factor,
        quantiles=(),
    )


def model_times(factor: float) -> Change:
    """The model's own word; the floors, which come of earlier words, stay right."""
    return lambda window: replace(window, median_qps=window.median_qps * factor, quantiles=())


def constant(qps: float) -> Change:
    return lambda window: replace(window, median_qps=qps, floor_qps=0.0, quantiles=())


def unchanged(window: WindowForecast) -> WindowForecast:
    return window


def last_year(window: WindowForecast) -> WindowForecast:
    """What there was at the time a year ago: a smaller service, and another day of the week."""
    minute = timedelta(minutes=1)
    then = year_ago().between(window.starts_at - minute, window.ends_at + minute)
    return replace(window, median_qps=float(then.values.max()), floor_qps=0.0, quantiles=())


@cache
def year_ago() -> TrafficHistory:
    return generate(Diurnal(60_000.0), MONDAY - timedelta(days=1), 6, 99)


def from_hour(hour: float, change: Change) -> Change:
    """Right until so many hours into the run."""
    begins = scenario().starts_at + timedelta(hours=hour)
    return lambda window: change(window) if window.starts_at >= begins else window


def run(policy: str, forecaster: Forecaster, interval: float) -> tuple[Scorecard, list[bool]]:
    """A morning; and for each decision whether its forecast was trusted."""
    fleet = scenario().new_fleet()
    parameters = {"margin": 4.0} if policy == "predictive" else {}
    ours = workload(policy, **parameters)
    loop = ControlLoop(
        ours.loop_settings(interval), Ports(fleet, fleet, MemoryDecisionStore()), forecaster
    )
    trusted: list[bool] = []

    def after(result: TickResult | Failure, _: float) -> None:
        assert isinstance(result, TickResult)
        forecast = result.context.forecast
        trusted.append(forecast is not None and forecast.trusted)

    jobs = Rounds({"trace": loop}, after).jobs(interval, 86_400.0)
    run_jobs(jobs, VirtualClock(scenario().starts_at), scenario().until, fleet.advance)
    return score(policy, fleet, 1.0, CAPACITY), trusted


@pytest.fixture(scope="module")
def reactive() -> Scorecard:
    return run("asymmetric_concurrency", combined(Calendar()), 5.0)[0]


@pytest.mark.parametrize(
    ("change", "late"),
    [
        pytest.param(times(0.0), timedelta(0), id="zero"),
        pytest.param(times(10.0), timedelta(0), id="ten times"),
        pytest.param(times(0.5), timedelta(0), id="half"),
        pytest.param(unchanged, HALF_A_DAY_OFF, id="six hours late"),
        pytest.param(constant(60_000.0), timedelta(0), id="constant"),
        pytest.param(last_year, timedelta(0), id="last year's"),
    ],
)
def test_a_wrong_forecast_is_caught_and_does_no_harm(
    reactive: Scorecard, change: Change, late: timedelta
) -> None:
    """Bad requests within 0.01 points of the reactive baseline's, and trust is gone in an hour."""
    wrong = Gated(Wrong(combined(Calendar()), change, late))
    card, trusted = run("predictive", wrong, 15.0)
    assert card.bad_ratio <= reactive.bad_ratio + 1e-4
    assert False in trusted[: 3600 // 15]


@pytest.mark.parametrize("hour", [3.0, 4.0, 8.0])
@pytest.mark.parametrize(
    "change", [times(0.0), times(10.0), times(0.8), model_times(0.8), constant(60_000.0)]
)
def test_a_forecast_that_turns_wrong_is_caught_within_the_hour(
    reactive: Scorecard, change: Change, hour: float
) -> None:
    """Before the morning's ramp, in the midst of it, and after it."""
    wrong = Gated(Wrong(combined(Calendar()), from_hour(hour, change)))
    card, trusted = run("predictive", wrong, 15.0)
    assert card.bad_ratio <= reactive.bad_ratio + 1e-4
    first = round(hour * 240)
    assert all(trusted[: first - 20])
    assert False in trusted[first : first + 240]


def test_a_right_forecast_keeps_its_trust() -> None:
    card, trusted = run("predictive", Gated(combined(Calendar())), 15.0)
    assert sum(trusted) >= 0.98 * len(trusted)
    assert card.bad_ratio < 1e-3


def test_without_the_gate_a_wrong_forecast_does_harm() -> None:
    """What the gate is for: the same forecast, believed."""
    gated = run("predictive", Gated(Wrong(combined(Calendar()), times(0.5))), 15.0)[0]
    believed = run("predictive", Wrong(combined(Calendar()), times(0.5)), 15.0)[0]
    assert believed.bad_ratio > gated.bad_ratio + 1e-3
