"""What would have changed a decision is what deciding again says."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from policies.context import (
    Observation,
    Problem,
    ProblemKind,
    ProblemSource,
    RateLimit,
    RateUnit,
    ScalingContext,
    ScalingRules,
)
from policies.engine import decide
from policies.guardrails import ALL
from storage.reports.alternatives import WITHOUT, Alternative, alternatives, thresholds
from storage.reports.explanation import order_span
from storage.reports.words import printable
from tests.situations import (
    INTERVAL,
    LEAD,
    NOON,
    decided_before,
    settings,
    situation,
    window_forecast,
)


def told(context: ScalingContext) -> dict[str, Alternative]:
    return {one.change: one for one in alternatives(context, decide(context))}


def limits(value: int) -> ScalingRules:
    return ScalingRules(limits=(RateLimit(RateUnit.PODS, value, 60),))


STALE = Problem(ProblemSource.DEMAND, ProblemKind.STALE, "newest sample is 240 s old")


def test_the_forecast_is_what_the_answer_rests_on() -> None:
    context = situation(demand=9_000.0, forecast=window_forecast(14_000, 14_000, 0.02))
    found = told(context)
    assert decide(context).desired == 16
    assert found["without the forecast"].desired == decide(replace(context, forecast=None)).desired
    assert found["without the forecast"].difference < 0
    assert found["with no margin for its error"].desired == 14


@pytest.mark.parametrize(
    ("rule", "context"),
    [
        (
            "hold_on_doubt",
            replace(situation(current=20, forecast=window_forecast(5e3, 5e3)), problems=(STALE,)),
        ),
        (
            "hold_on_collapse",
            decided_before(
                situation(current=20, demand=2_000.0, forecast=window_forecast(2e3, 2e3)),
                {60: 20},
                19_000.0,
            ),
        ),
        (
            "stabilize",
            decided_before(
                situation(
                    current=20,
                    forecast=window_forecast(9e3, 9e3),
                    policy=settings(down=ScalingRules(stabilization_window_seconds=300)),
                ),
                {60: 20},
            ),
        ),
        (
            "limit_rate",
            situation(forecast=window_forecast(2e4, 2e4), policy=settings(up=limits(2))),
        ),
        ("bound", situation(forecast=window_forecast(2e4, 2e4), policy=settings(maximum=12))),
        ("hold", situation(current=20, forecast=window_forecast(9e3, 18e3))),
        ("look_back", decided_before(situation(current=20, demand=9e3), {60: 20})),
    ],
)
def test_each_rule_can_be_taken_out(rule: str, context: ScalingContext) -> None:
    decision = decide(context)
    assert decision.steps[-1].rule == rule
    text, change = WITHOUT[rule]
    without = decide(change(context))
    assert rule not in [step.rule for step in without.steps]
    found = told(context)[text]
    assert (found.desired, found.difference) == (
        without.desired,
        without.desired - decision.desired,
    )
    assert found.difference != 0


def test_every_guardrail_can_be_taken_out() -> None:
    assert {guardrail.__name__ for guardrail in ALL} <= set(WITHOUT)


def test_the_requests_that_waited_can_be_taken_out() -> None:
    seen = Observation(NOON, 9_000.0, 100.0, 90_000.0)
    found = told(replace(situation(), observation=seen))
    assert found["without the requests that waited"].difference < 0


@pytest.mark.parametrize(
    "context",
    [
        situation(),
        situation(forecast=window_forecast(14_000, 14_000, 0.02)),
        situation(demand=200.0, forecast=window_forecast(150, 150)),
        replace(situation(forecast=window_forecast(5e3, 5e3)), problems=(STALE,)),
    ],
)
def test_thresholds_lie_where_the_answer_changes(context: ScalingContext) -> None:
    decision = decide(context)
    found = {one.question: one for one in thresholds(context, decision)}
    assert ("observed demand for one replica more" in found) == (context.demand_qps is not None)
    for one in found.values():
        assert one.value is not None
        for factor, more in ((1 + 1e-6, True), (1 - 1e-6, False)):
            again = decide(_with(context, one.question, one.value * factor, one.actual))
            assert (again.desired > decision.desired) == more, one


def _with(context: ScalingContext, question: str, value: float, actual: float) -> ScalingContext:
    if question.startswith("observed"):
        return replace(context, observation=replace(context.observation, demand_qps=value))
    forecast = context.forecast
    assert forecast is not None
    windows = tuple(
        replace(window, median_qps=window.median_qps * value / actual)
        for window in forecast.windows
    )
    return replace(context, forecast=replace(forecast, windows=windows))


def test_where_no_demand_would_do_it_none_is_named() -> None:
    context = situation(policy=settings(maximum=9))
    (found,) = thresholds(context, decide(context))
    assert found.value is None


def test_the_order_is_for_its_window_and_without_one_for_the_lead_time() -> None:
    assert order_span(situation(forecast=window_forecast(1, 1))) == (
        NOON + LEAD,
        NOON + LEAD + INTERVAL,
    )
    assert order_span(situation())[0] == NOON + timedelta(seconds=180)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain \N{LATIN SMALL LETTER E WITH ACUTE}", "plain \N{LATIN SMALL LETTER E WITH ACUTE}"),
        ("a\nb\tc\x1b[31m", "a\\nb\\tc\\x1b[31m"),
        ("\u202eabc\u2066", "\\u202eabc\\u2066"),
        ("x" * 1000, "x" * 299 + "\N{HORIZONTAL ELLIPSIS}"),
    ],
)
def test_texts_from_elsewhere_are_one_harmless_line(text: str, shown: str) -> None:
    assert printable(text) == shown
