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
from tests.situations import decided_before, flat_forecast, settings, situation

rates = st.floats(0, 500_000, allow_nan=False)
spreads = st.floats(0, 1)
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
        parameters={"lookBackSeconds": 300.0},
    )
    forecast = st.builds(flat_forecast, rates, spreads, st.booleans())
    context = situation(
        current=draw(st.integers(0, 500)),
        demand=draw(st.none() | rates),
        forecast=draw(st.none() | forecast),
        policy=policy,
    )
    asked = draw(st.dictionaries(st.integers(1, 400), st.integers(0, 500), max_size=5))
    context = decided_before(context, asked, draw(st.none() | rates))
    return replace(context, problems=draw(problems))


@given(situations())
def test_desired_is_within_the_bounds(context: ScalingContext) -> None:
    desired = decide(context).desired
    assert context.settings.min_replicas <= desired <= context.settings.max_replicas


@given(situations())
def test_doubt_never_shrinks_a_fleet_within_its_bounds(context: ScalingContext) -> None:
    doubt = Problem(ProblemSource.DEMAND, ProblemKind.STALE, "old")
    desired = decide(replace(context, problems=(*context.problems, doubt))).desired
    assert desired >= min(context.replicas.spec, context.settings.max_replicas)


@given(situations(), st.floats(0, 100_000))
def test_more_demand_never_asks_for_fewer(context: ScalingContext, more: float) -> None:
    demand = context.observation.demand_qps
    if demand is None:
        return
    seen = replace(context.observation, demand_qps=demand + more)
    assert decide(replace(context, observation=seen)).recommended >= decide(context).recommended


@given(rates, spreads, spreads, st.integers(0, 300))
def test_wider_uncertainty_never_asks_for_fewer(
    rate: float, spread: float, wider: float, current: int
) -> None:
    narrow = situation(current, 1_000.0, flat_forecast(rate, spread))
    wide = situation(current, 1_000.0, flat_forecast(rate, spread + wider))
    assert decide(wide).desired >= decide(narrow).desired


@given(rates, spreads, st.integers(0, 300), st.sampled_from([2.0, 8.0, 0.25]))
def test_scaling_load_and_capacity_alike_changes_nothing(
    rate: float, spread: float, current: int, factor: float
) -> None:
    def scaled(k: float) -> ScalingContext:
        forecast: Forecast = flat_forecast(rate * k, spread)
        return replace(situation(current, rate * k, forecast), capacity=Capacity(1000.0 * k))

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
