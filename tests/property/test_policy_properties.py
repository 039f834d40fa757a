"""What must hold in every situation."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from forecaster.forecast import Forecast
from policies.context import (
    Capacity,
    Problem,
    ProblemKind,
    ProblemSource,
    RateLimit,
    RateUnit,
    ScalingContext,
    ScalingRules,
    SelectPolicy,
)
from policies.engine import decide
from storage import codec
from tests.situations import decided_before, settings, situation, window_forecast

rates = st.floats(0, 500_000, allow_nan=False)
spreads = st.floats(0, 1)
margins = st.floats(-5, 100)
forecasts = st.builds(window_forecast, rates, rates, spreads, rates, rates, st.booleans())
limits = st.builds(
    RateLimit, st.sampled_from(RateUnit), st.integers(1, 100), st.sampled_from([15, 60, 1800])
)
rules = st.builds(
    ScalingRules,
    st.sampled_from([0, 60, 300]),
    st.sampled_from(SelectPolicy),
    st.lists(limits, max_size=3).map(tuple),
)
problems = st.lists(
    st.builds(
        Problem, st.sampled_from(ProblemSource), st.sampled_from(ProblemKind), st.just("doubt")
    ),
    max_size=2,
).map(tuple)


@st.composite
def situations(draw: st.DrawFn) -> ScalingContext:
    policy = settings(
        minimum=draw(st.integers(0, 20)),
        maximum=draw(st.integers(20, 400)),
        up=draw(rules),
        down=draw(rules),
        parameters={"lookBackSeconds": 300.0, "margin": draw(margins)},
    )
    policy = replace(policy, cuts_to_maximum=draw(st.booleans()))
    context = situation(
        current=draw(st.integers(0, 500)),
        demand=draw(st.none() | rates),
        forecast=draw(st.none() | forecasts),
        policy=policy,
    )
    seen = replace(
        context.observation,
        requests_running=draw(st.none() | rates),
        requests_waiting=draw(st.none() | st.floats(0, 1e6)),
    )
    capacity = Capacity(1000.0, saturation_ratio=draw(st.floats(1.0, 2.0)))
    context = replace(context, observation=seen, capacity=capacity)
    asked = draw(st.dictionaries(st.integers(1, 400), st.integers(0, 500), max_size=5))
    context = decided_before(context, asked, draw(st.none() | rates))
    return replace(context, problems=draw(problems))


@given(situations())
def test_desired_is_within_the_bounds(context: ScalingContext) -> None:
    desired, bounds = decide(context).desired, context.settings
    assert desired >= bounds.min_replicas
    if bounds.cuts_to_maximum:
        assert desired <= bounds.max_replicas
    else:
        assert desired <= max(bounds.max_replicas, context.replicas.spec)


@given(situations())
def test_doubt_never_shrinks_a_fleet(context: ScalingContext) -> None:
    """But to the maximum, where the settings say that this cuts."""
    doubt = Problem(ProblemSource.DEMAND, ProblemKind.STALE, "old")
    bounds, current = context.settings, context.replicas.spec
    desired = decide(replace(context, problems=(*context.problems, doubt))).desired
    assert desired >= (min(current, bounds.max_replicas) if bounds.cuts_to_maximum else current)


@given(situations(), st.floats(0, 100_000))
def test_more_demand_never_asks_for_fewer(context: ScalingContext, more: float) -> None:
    demand = context.observation.demand_qps
    if demand is None:
        return
    seen = replace(context.observation, demand_qps=demand + more)
    assert decide(replace(context, observation=seen)).recommended >= decide(context).recommended


@given(situations(), st.floats(0, 1e6))
def test_a_longer_queue_never_asks_for_fewer(context: ScalingContext, more: float) -> None:
    waiting = context.observation.requests_waiting or 0.0
    seen = replace(context.observation, requests_waiting=waiting + more)
    assert decide(replace(context, observation=seen)).recommended >= decide(context).recommended


@given(rates, rates, rates, spreads, spreads, st.integers(0, 300), st.floats(0, 20))
def test_wider_uncertainty_never_asks_for_fewer(
    order: float,
    hold: float,
    floor: float,
    scale: float,
    wider: float,
    current: int,
    margin: float,
) -> None:
    def asked(spread: float) -> int:
        forecast = window_forecast(order, hold, spread, floor, floor)
        policy = settings(maximum=10**9, parameters={"margin": margin})
        return decide(situation(current, 1_000.0, forecast, policy)).desired

    assert asked(scale + wider) >= asked(scale)


@given(st.none() | forecasts, st.integers(0, 300), margins, st.floats(0, 100))
def test_a_larger_margin_never_asks_for_fewer(
    forecast: Forecast | None, current: int, margin: float, more: float
) -> None:
    """Where saturation is not known: else a small margin also loads each replica with more."""

    def asked(chosen: float) -> int:
        policy = settings(maximum=10**9, parameters={"margin": chosen})
        return decide(situation(current, 1_000.0, forecast, policy)).recommended

    assert asked(margin + more) >= asked(margin)


@given(situations())
def test_demand_never_exceeds_what_is_asked_for_at_saturation(context: ScalingContext) -> None:
    demand = context.demand_qps
    if demand is not None:
        asked = decide(context).recommended
        capacity = context.capacity
        carried = asked * capacity.qps_per_replica * capacity.saturation_ratio
        # A billionth of a replica is no load: see `replicas_at`.
        assert carried >= demand * (1 - 1e-6) - 1e-6 * capacity.qps_per_replica


@given(situations())
def test_holding_and_looking_back_never_raise(context: ScalingContext) -> None:
    steps = decide(context).steps
    raised = [step for step in steps if step.rule in ("hold", "look_back")]
    assert all(step.replicas <= context.replicas.spec for step in raised)


@given(forecasts, rates, st.integers(0, 300), margins, st.sampled_from([2.0, 8.0, 0.25]))
def test_scaling_load_and_capacity_alike_changes_nothing(
    forecast: Forecast, demand: float, current: int, margin: float, factor: float
) -> None:
    def scaled(k: float) -> ScalingContext:
        windows = tuple(
            replace(window, median_qps=window.median_qps * k, floor_qps=window.floor_qps * k)
            for window in forecast.windows
        )
        policy = settings(parameters={"margin": margin})
        context = situation(current, demand * k, replace(forecast, windows=windows), policy)
        return replace(context, capacity=Capacity(1000.0 * k, saturation_ratio=1.1))

    assert decide(scaled(factor)).desired == decide(scaled(1.0)).desired


@given(situations())
def test_a_decision_taken_is_not_taken_twice(context: ScalingContext) -> None:
    """With the fleet already at what was desired and nothing else changed, it stays there."""
    first = decide(context)
    again = replace(context, replicas=replace(context.replicas, spec=first.desired))
    if not context.changes and not context.recent:
        second = decide(again).desired
        # Rate limits may allow a further step in the same direction, never one back.
        assert (second - first.desired) * (first.desired - context.replicas.spec) >= 0


@given(situations())
def test_contexts_and_decisions_survive_storage_exactly(context: ScalingContext) -> None:
    text = codec.encode_context(context)
    back = codec.decode_context(text, codec.encode_settings(context.settings))
    assert back == context
    assert codec.encode_context(back) == text
    assert decide(back) == decide(context)
    decision = decide(context)
    assert codec.decode_decision(codec.encode_decision(decision)) == decision
