"""What must hold for every peer, and for the arithmetic that sweeps run compiled."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import numba
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.context import Observation, PastDecision, Replicas, ScalingContext
from policies.engine import decide
from policies.peers import asymmetric_concurrency, hpa_rules, knative_kpa
from policies.registry import POLICIES
from policies.schedule import Schedule
from storage import codec
from tests.situations import NOON, situation, window_forecast
from tests.situations import settings as policy_settings

PEERS = sorted(set(POLICIES) - {"predictive", "perfect_forecast"})
PARAMETERS = {
    "targetQps": 1_000.0,
    "replicas": 40.0,
    "kvCacheTokens": 500_000.0,
    "inputTokens": 1_000.0,
    "outputTokens": 250.0,
    "linearSamples": 3.0,
}
LOAD_DRIVEN = [
    "aibrix_apa_as_shipped",
    "aibrix_apa_intended",
    "aibrix_kpa",
    "asymmetric_concurrency",
    "aws_predictive",
    "azure_predictive",
    "crane_dsp",
    "cron_floor",
    "gcp_predictive",
    "hpa",
    "keda_prometheus",
    "knative_kpa",
    "phpa",
    "seasonal_naive",
]
rates = st.floats(0, 400_000)
counts = st.integers(0, 400)
notes = st.sampled_from(
    [
        (),
        (("panickedAt", NOON.timestamp() - 30), ("highest", 30.0)),
        (("ticks", 5.0), ("usage", 900.0), ("kv", 0.7), ("queue", 1.0)),
        (("activeAt", NOON.timestamp() - 600), ("failures", 2.0), ("saturated0", 2e5)),
    ]
)


@st.composite
def situations(draw: st.DrawFn, memory: bool = True) -> ScalingContext:
    """Of no policy yet: `asked` says which."""
    current = draw(counts)
    ready = draw(st.integers(0, current))
    seen = Observation(
        NOON,
        draw(st.none() | rates),
        requests_running=draw(st.none() | rates),
        requests_waiting=draw(st.none() | st.floats(0, 10_000)),
        kv_cache_usage_ratio=draw(st.none() | st.floats(0, 1)),
    )
    ages = draw(st.lists(st.integers(1, 900), max_size=5, unique=True)) if memory else []
    recent = tuple(
        PastDecision(
            NOON - timedelta(seconds=age),
            draw(counts),
            draw(counts),
            draw(counts),
            draw(st.none() | rates),
            draw(st.none() | rates),
            draw(notes),
        )
        for age in sorted(ages, reverse=True)
    )
    forecast = st.builds(window_forecast, rates, rates)
    return replace(
        situation(forecast=draw(st.none() | forecast)),
        replicas=Replicas(current, ready, (NOON,) * (current - ready)),
        observation=seen,
        recent=recent,
    )


def asked(
    context: ScalingContext, name: str, minimum: int = 2, maximum: int = 300
) -> ScalingContext:
    policy = policy_settings(name, minimum, maximum, parameters=PARAMETERS)
    schedules = (Schedule("0 8 * * 1-5", "0 18 * * 1-5", 24, "Europe/Berlin"),)
    return replace(context, settings=replace(policy, schedules=schedules))


@pytest.mark.parametrize("name", PEERS)
@given(context=situations())
@settings(max_examples=40)
def test_desired_is_within_the_bounds(name: str, context: ScalingContext) -> None:
    assert 2 <= decide(asked(context, name)).desired <= 300


@pytest.mark.parametrize("name", PEERS)
@given(context=situations())
@settings(max_examples=20)
def test_what_is_stored_decides_the_same(name: str, context: ScalingContext) -> None:
    told = asked(context, name)
    stored = codec.encode_context(told)
    back = codec.decode_context(stored, codec.encode_settings(told.settings))
    assert back == told
    decision = decide(back)
    assert decision == decide(told)
    assert codec.decode_decision(codec.encode_decision(decision)) == decision


@pytest.mark.parametrize("name", LOAD_DRIVEN)
@given(context=situations(), more=rates)
@settings(max_examples=40)
def test_more_demand_never_asks_for_fewer(name: str, context: ScalingContext, more: float) -> None:
    told = asked(context, name)
    demand = told.observation.demand_qps
    if demand is None:
        return
    seen = replace(told.observation, demand_qps=demand + more)
    assert decide(replace(told, observation=seen)).recommended >= decide(told).recommended


@pytest.mark.parametrize("name", LOAD_DRIVEN)
@given(context=situations(memory=False))
@settings(max_examples=40)
def test_a_decision_taken_is_not_taken_back(name: str, context: ScalingContext) -> None:
    """With every replica asked for ready and nothing else changed, it goes on or it stays."""
    context = replace(context, replicas=Replicas(context.replicas.spec, context.replicas.spec))
    told = asked(context, name)
    first = decide(told).desired
    after = replace(told, replicas=Replicas(first, first))
    assert (decide(after).desired - first) * (first - told.replicas.spec) >= 0


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """As a sweep runs it: numbers in, numbers out, nothing that the compiler refuses."""
    return numba.njit(function)  # type: ignore[no-any-return]  # never cached


needed = compiled(asymmetric_concurrency.needed)
combine = compiled(asymmetric_concurrency.combine)
kpa_needed = compiled(knative_kpa.needed)
kpa_scale = compiled(knative_kpa.scale)
average_value = compiled(hpa_rules.average_value)
value = compiled(hpa_rules.value)
pods = compiled(hpa_rules.pods)
stabilized = compiled(hpa_rules.stabilized)
up_limit = compiled(hpa_rules.up_limit)
down_limit = compiled(hpa_rules.down_limit)


@given(rates, rates, counts)
def test_asymmetric_concurrency_compiled(up: float, down: float, current: int) -> None:
    ups, downs = needed(up, 917.3), needed(down, 917.3)
    assert (ups, downs) == tuple(asymmetric_concurrency.needed(load, 917.3) for load in (up, down))
    assert combine(current, ups, downs) == asymmetric_concurrency.combine(current, ups, downs)


@given(rates, rates, counts, st.floats(0, 200), st.sampled_from([-1.0, 0.0, 100.0]), counts)
def test_knative_kpa_compiled(
    stable: float, panic: float, ready: int, now: float, panicked_at: float, highest: int
) -> None:
    needs = kpa_needed(stable, 917.3), kpa_needed(panic, 917.3)
    assert needs == (knative_kpa.needed(stable, 917.3), knative_kpa.needed(panic, 917.3))
    arguments = (*needs, ready, now, panicked_at, highest)
    assert kpa_scale(*arguments) == knative_kpa.scale(*arguments)


@given(rates, counts, counts, st.integers(1, 50), st.integers(0, 50), counts)
def test_hpa_compiled(
    total: float, current: int, start: int, measured: int, missing: int, other: int
) -> None:
    arguments = (total, 917.3, current, 0.1)
    assert average_value(*arguments) == hpa_rules.average_value(*arguments)
    counted = (total, 917.3, current, measured, 0.1)
    assert value(*counted) == hpa_rules.value(*counted)
    sampled = (total / 200_000, current, measured, missing, 1, 0.1)
    assert pods(*sampled) == hpa_rules.pods(*sampled)
    assert stabilized(current, start, other) == hpa_rules.stabilized(current, start, other)
    assert up_limit(current, start, 4.0, 10.0) == hpa_rules.up_limit(current, start, 4.0, 10.0)
    assert down_limit(current, start, 10.0) == hpa_rules.down_limit(current, start, 10.0)
