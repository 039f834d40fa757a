"""The predictive policy: what it asks for in which situation, and why."""

from __future__ import annotations

from dataclasses import replace

import pytest

from forecaster.forecast import UNANNOUNCED_RISE, Calibration, Forecast
from policies.context import (
    Capacity,
    Observation,
    Problem,
    ProblemKind,
    ProblemSource,
    ScalingContext,
)
from policies.decision import Decision, Reason
from policies.engine import decide
from policies.predictive import DEFAULT_MARGIN, margin_of
from tests.situations import (
    NOON,
    decided_before,
    flat_forecast,
    settings,
    situation,
    stepped_forecast,
    window_forecast,
)


def with_queue(context: ScalingContext, demand: float, waiting: float) -> ScalingContext:
    seen = Observation(NOON, demand, requests_running=3_000.0, requests_waiting=waiting)
    return replace(context, observation=seen)


def hot(context: ScalingContext) -> ScalingContext:
    """Replicas that carry 1,000 requests/s within the objective and saturate at 1,100."""
    return replace(context, capacity=Capacity(1000.0, saturation_ratio=1.1))


def calibrated(forecast: Forecast, margin: float) -> Forecast:
    return replace(forecast, calibration=Calibration(1e-3, margin))


def binding(decision: Decision) -> str:
    """The message of the step that set what was asked for."""
    return next(s.message for s in decision.steps if s.replicas == decision.desired)


def test_orders_what_the_forecast_needs_one_lead_time_ahead() -> None:
    ramp = stepped_forecast([9_000 + 1_000 * minute for minute in range(30)])
    decision = decide(situation(current=10, demand=9_000.0, forecast=ramp))
    # The order window is [12:03:00, 12:03:15]: minute 3 of the ramp, 12,000 requests/s.
    assert (decision.desired, decision.reason) == (12, Reason.FORECAST_PEAK)
    assert binding(decision) == (
        "forecast peaks at 12,000 requests/s once a replica ordered now serves; with a margin of "
        "4 x 0.00% that is 12,000"
    )


def test_a_peak_beyond_the_order_window_orders_nothing_yet() -> None:
    spike = stepped_forecast([9_000] * 4 + [20_000] * 26)
    assert decide(situation(current=10, demand=9_000.0, forecast=spike)).desired == 9


def test_the_margin_counts_in_scales_of_error() -> None:
    wide = flat_forecast(10_000, spread=0.1)

    def asked(margin: float) -> int:
        policy = settings(parameters={"margin": margin})
        return decide(situation(current=1, forecast=wide, policy=policy)).desired

    # 10,000 x exp(margin x 0.1), in thousands and rounded up.
    assert [asked(margin) for margin in (0.0, 1.0, 2.0, 5.0)] == [10, 12, 13, 17]


def test_a_margin_of_the_user_outranks_a_calibrated_one_and_that_the_usual_one() -> None:
    plain = flat_forecast(10_000, spread=0.1)
    found = calibrated(plain, 2.0)
    own = settings(parameters={"margin": 7.0})
    assert margin_of(situation(forecast=plain)) == DEFAULT_MARGIN
    assert margin_of(situation(forecast=found)) == 2.0
    assert margin_of(situation(forecast=found, policy=own)) == 7.0
    assert margin_of(situation(forecast=None, policy=own)) == 7.0
    assert margin_of(situation(forecast=None)) == DEFAULT_MARGIN
    assert decide(situation(current=1, forecast=found)).desired == 13


def test_an_edge_that_recurs_is_ordered_though_the_model_rounds_it_off() -> None:
    edge = window_forecast(9_000, 9_000, order_floor=14_000)
    decision = decide(situation(current=9, demand=9_000.0, forecast=edge))
    assert (decision.desired, decision.reason) == (14, Reason.RECURRENT_EDGE)
    assert binding(decision) == "edge asks for 14,000 requests/s"


def test_a_rise_that_nothing_announced_has_a_reason_of_its_own() -> None:
    edge = window_forecast(9_000, 9_000, order_floor=14_000)
    order, hold = edge.windows
    rise = replace(edge, windows=(replace(order, floor_reason=UNANNOUNCED_RISE), hold))
    decision = decide(situation(current=9, demand=9_000.0, forecast=rise))
    assert (decision.desired, decision.reason) == (14, Reason.UNANNOUNCED_RISE)
    assert binding(decision) == "a rise that was not announced asks for 14,000 requests/s"


def test_an_edge_takes_the_margin_with_its_own_spread_and_never_a_negative_one() -> None:
    edge = window_forecast(9_000, 9_000, scale=0.1, order_floor=14_000)

    def asked(margin: float) -> int:
        policy = settings(parameters={"margin": margin})
        return decide(situation(current=9, forecast=edge, policy=policy)).desired

    assert (asked(2.0), asked(-2.0)) == (18, 14)


def test_an_edge_below_the_model_binds_nothing() -> None:
    low = window_forecast(9_000, 9_000, order_floor=5_000)
    decision = decide(situation(current=9, forecast=low))
    assert (decision.desired, decision.reason) == (9, Reason.FORECAST_PEAK)


def test_observed_demand_is_never_undercut_by_a_forecast() -> None:
    decision = decide(situation(current=10, demand=14_500.0, forecast=flat_forecast(5_000)))
    assert (decision.desired, decision.reason) == (15, Reason.OBSERVED_DEMAND)
    assert binding(decision) == "observed demand 14,500 requests/s"


@pytest.mark.parametrize("margin", [-5.0, 0.0, 4.0])
def test_observed_demand_never_leaves_the_fleet_beyond_saturation(margin: float) -> None:
    """Running hot is for what is forecast: what is there needs demand / saturation, no less."""
    policy = settings(parameters={"margin": margin})
    low = hot(situation(current=1, demand=22_001.0, forecast=flat_forecast(1.0), policy=policy))
    assert decide(low).desired == 21


def test_a_small_margin_runs_replicas_hot_and_a_large_one_does_not() -> None:
    def asked(margin: float) -> int:
        policy = settings(parameters={"margin": margin})
        return decide(hot(situation(1, 1_000.0, flat_forecast(100_000), policy))).desired

    # Of the room of 10 %, 85 % is used at most.
    assert (asked(-5.0), asked(1.0), asked(10.0)) == (93, 96, 100)


def test_backlog_is_worked_off_on_top_of_demand() -> None:
    context = situation(current=10, forecast=flat_forecast(5_000))
    decision = decide(with_queue(context, 9_000.0, waiting=90_000.0))
    # 90,000 waiting in 30 s are 3,000 requests/s more.
    assert (decision.desired, decision.reason) == (12, Reason.BACKLOG)
    assert binding(decision) == "observed demand 9,000 requests/s plus 3,000 requests/s of backlog"


def test_a_small_queue_is_not_called_a_backlog() -> None:
    context = situation(current=10, forecast=flat_forecast(5_000))
    decision = decide(with_queue(context, 9_000.0, waiting=3_000.0))
    assert (decision.desired, decision.reason) == (10, Reason.OBSERVED_DEMAND)


def test_a_dip_before_a_rise_is_held_through() -> None:
    dip = stepped_forecast([9_000, 9_000, 9_000, 4_000, 4_000] + [9_000] * 25)
    decision = decide(situation(current=9, demand=4_000.0, forecast=dip))
    assert (decision.desired, decision.reason) == (9, Reason.FORECAST_HOLD)
    assert binding(decision) == (
        "forecast needs 9 replicas for 9,000 requests/s before a replica deleted now could be back"
    )


def test_a_fall_that_no_forecast_announced_is_held_with_its_reason() -> None:
    forecast = window_forecast(4_000, 4_000, hold_floor=8_000)
    decision = decide(situation(current=12, demand=4_000.0, forecast=forecast))
    assert (decision.desired, decision.reason) == (8, Reason.FORECAST_HOLD)
    assert "8 replicas for 8,000 requests/s (edge) before" in binding(decision)


def test_what_is_ordered_for_later_is_not_deleted_now() -> None:
    forecast = window_forecast(12_000, 9_000)
    assert decide(situation(current=20, demand=9_000.0, forecast=forecast)).desired == 12


def test_holding_never_raises() -> None:
    assert decide(situation(current=2, demand=1_000.0, forecast=flat_forecast(2_000))).desired == 2
    surprise = window_forecast(2_000, 2_000, hold_floor=50_000)
    assert decide(situation(current=2, demand=1_000.0, forecast=surprise)).desired == 2


def test_scales_down_at_once_to_what_the_forecast_holds() -> None:
    decision = decide(situation(current=20, demand=9_000.0, forecast=flat_forecast(9_000)))
    assert decision.desired == 9


@pytest.mark.parametrize("forecast", [None, flat_forecast(50_000, trusted=False)])
def test_without_a_trusted_forecast_demand_with_headroom_rules(forecast: Forecast | None) -> None:
    context = replace(situation(current=5, demand=10_000.0), forecast=forecast)
    decision = decide(context)
    # 10,000 x exp(4 x 0.05) = 12,214
    assert (decision.desired, decision.reason) == (13, Reason.OBSERVED_DEMAND)
    assert "no forecast is trusted" in binding(decision)


@pytest.mark.parametrize(("margin", "replicas"), [(-3.0, 10), (0.0, 10), (8.0, 15), (100.0, 15)])
def test_the_headroom_follows_the_margin_within_reason(margin: float, replicas: int) -> None:
    policy = settings(parameters={"margin": margin})
    assert decide(situation(current=5, demand=10_000.0, policy=policy)).desired == replicas


def test_without_a_trusted_forecast_backlog_is_worked_off_too() -> None:
    assert decide(with_queue(situation(current=5), 10_000.0, waiting=90_000.0)).desired == 16


def test_without_a_trusted_forecast_the_look_back_holds_the_fleet() -> None:
    context = decided_before(situation(current=20, demand=5_000.0), {290: 14, 300: 20, 15: 6})
    decision = decide(context)
    assert (decision.desired, decision.reason) == (14, Reason.SCALE_DOWN_STABILIZED)
    assert "hold the most that the last 300 s asked for" in binding(decision)


def test_what_the_look_back_keeps_was_not_asked_for() -> None:
    """Else it would be held for another look-back, and so for ever."""
    decision = decide(decided_before(situation(current=20, demand=5_000.0), {290: 14}))
    assert (decision.recommended, decision.desired) == (7, 14)


def test_the_look_back_keeps_no_more_than_there_is() -> None:
    context = decided_before(situation(current=8, demand=5_000.0), {290: 14})
    assert decide(context).desired == 8


def test_the_look_back_is_as_long_as_the_user_says() -> None:
    policy = settings(parameters={"lookBackSeconds": 60.0})
    context = situation(current=20, demand=5_000.0, policy=policy)
    assert decide(decided_before(context, {90: 14})).desired == 7


def test_nothing_to_go_by_keeps_the_fleet() -> None:
    problem = Problem(ProblemSource.DEMAND, ProblemKind.NO_DATA, "empty result")
    context = replace(situation(current=7, demand=None), problems=(problem,))
    decision = decide(context)
    assert (decision.desired, decision.reason) == (7, Reason.NO_INPUT)


def test_a_trusted_forecast_orders_while_demand_is_not_known() -> None:
    problem = Problem(ProblemSource.DEMAND, ProblemKind.UNREACHABLE, "down")
    context = situation(current=7, demand=None, forecast=flat_forecast(9_000))
    decision = decide(replace(context, problems=(problem,)))
    assert (decision.desired, decision.reason) == (9, Reason.FORECAST_PEAK)


def test_a_horizon_too_short_for_the_lead_time_is_no_forecast() -> None:
    short = stepped_forecast([50_000] * 3)
    assert decide(situation(current=5, demand=10_000.0, forecast=short)).desired == 13


def test_the_wildest_margin_has_a_number() -> None:
    policy = settings(maximum=500, parameters={"margin": 1e6})
    wild = flat_forecast(9_000, spread=5.0)
    decision = decide(situation(forecast=calibrated(wild, 1e6), policy=policy))
    assert (decision.desired, decision.reason) == (500, Reason.TOO_MANY_REPLICAS)
