"""The predictive policy: what it asks for in which situation, and why."""

from __future__ import annotations

from dataclasses import replace

import pytest

from forecaster.forecast import Forecast
from policies.context import Observation, Problem, ProblemKind, ProblemSource
from policies.decision import Reason
from policies.engine import decide
from tests.situations import (
    NOON,
    decided_before,
    flat_forecast,
    settings,
    situation,
    stepped_forecast,
)


def test_orders_what_the_forecast_needs_one_lead_time_ahead() -> None:
    ramp = stepped_forecast([9_000 + 1_000 * minute for minute in range(30)])
    decision = decide(situation(current=10, demand=9_000.0, forecast=ramp))
    # The order window is [12:03:00, 12:03:15]: minute 3 of the ramp, 12,000 requests/s.
    assert (decision.desired, decision.reason) == (12, Reason.FORECAST_PEAK)


def test_a_peak_beyond_the_order_window_orders_nothing_yet() -> None:
    spike = stepped_forecast([9_000] * 4 + [20_000] * 26)
    assert decide(situation(current=10, demand=9_000.0, forecast=spike)).desired == 9


def test_the_upper_quantile_is_ordered_and_the_knob_chooses_it() -> None:
    band = flat_forecast(10_000, spread=0.4)
    low = decide(situation(forecast=band, policy=settings(parameters={"quantile": 0.5})))
    high = decide(situation(forecast=band, policy=settings(parameters={"quantile": 0.99})))
    assert (low.desired, high.desired) == (10, 12)


def test_observed_demand_is_never_undercut_by_a_forecast() -> None:
    decision = decide(situation(current=10, demand=14_500.0, forecast=flat_forecast(5_000)))
    assert (decision.desired, decision.reason) == (15, Reason.OBSERVED_DEMAND)


def test_backlog_is_worked_off_on_top_of_demand() -> None:
    context = situation(current=10, forecast=flat_forecast(5_000))
    seen = Observation(
        NOON, demand_qps=9_000.0, requests_running=3_000.0, requests_waiting=90_000.0
    )
    decision = decide(replace(context, observation=seen))
    # 90,000 waiting in 30 s are 3,000 requests/s more.
    assert (decision.desired, decision.reason) == (12, Reason.BACKLOG)


def test_a_dip_before_a_rise_is_held_through() -> None:
    dip = stepped_forecast([9_000, 9_000, 9_000, 4_000, 4_000] + [9_000] * 25)
    decision = decide(situation(current=9, demand=4_000.0, forecast=dip))
    assert (decision.desired, decision.reason) == (9, Reason.FORECAST_HOLD)


def test_holding_never_raises() -> None:
    assert decide(situation(current=2, demand=1_000.0, forecast=flat_forecast(2_000))).desired == 2


def test_scales_down_at_once_to_what_the_forecast_holds() -> None:
    decision = decide(situation(current=20, demand=9_000.0, forecast=flat_forecast(9_000)))
    assert decision.desired == 9


@pytest.mark.parametrize("forecast", [None, flat_forecast(50_000, trusted=False)])
def test_without_a_trusted_forecast_demand_with_headroom_rules(forecast: Forecast | None) -> None:
    context = replace(situation(current=5, demand=10_000.0), forecast=forecast)
    decision = decide(context)
    assert (decision.desired, decision.reason) == (12, Reason.OBSERVED_DEMAND)


def test_without_a_trusted_forecast_the_look_back_holds_the_fleet() -> None:
    context = decided_before(situation(current=20, demand=5_000.0), {290: 14, 310: 20, 15: 6})
    decision = decide(context)
    assert (decision.desired, decision.reason) == (14, Reason.SCALE_DOWN_STABILIZED)


def test_nothing_to_go_by_keeps_the_fleet() -> None:
    problem = Problem(ProblemSource.DEMAND, ProblemKind.NO_DATA, "empty result")
    context = replace(situation(current=7, demand=None), problems=(problem,))
    decision = decide(context)
    assert (decision.desired, decision.reason) == (7, Reason.NO_INPUT)


def test_a_horizon_too_short_for_the_lead_time_is_no_forecast() -> None:
    short = stepped_forecast([50_000] * 3)
    assert decide(situation(current=5, demand=10_000.0, forecast=short)).desired == 12
