"""Dynamo's planner: the throughput floor and the load rules."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from policies.context import Observation, Replicas, ScalingContext
from policies.engine import decide
from policies.peers import dynamo
from policies.peers.dynamo import Latency
from policies.peers.tokens import Tokens
from tests.situations import NOON, settings, situation, window_forecast

ENGINE = {"targetQps": 3.1, "kvCacheTokens": 100_000.0, "inputTokens": 1_000.0}
LATENCY = Latency(0.1, 1e-4, 0.01, 1e-7, 0.5, 0.03)


def engines(
    count: int,
    kv: float,
    waiting: float = 0.0,
    forecast: float | None = None,
    more: Mapping[str, float] = {},
) -> ScalingContext:
    policy = settings("dynamo", parameters={**ENGINE, **more})
    seen = Observation(NOON, None, None, waiting, kv_cache_usage_ratio=kv)
    ahead = None if forecast is None else window_forecast(forecast, 0.0)
    return replace(situation(count, forecast=ahead, policy=policy), observation=seen)


def test_throughput_floor() -> None:
    assert dynamo.throughput(40.0, 3.1) == 13
    assert dynamo.throughput(0.0, 3.1) == 1
    assert dynamo.latency_floor(0.7, 0.5) == 2


def test_the_forecast_is_a_floor_under_the_load_rules() -> None:
    assert decide(engines(10, 0.3, forecast=40.0)).desired == 13
    assert decide(engines(20, 0.3, forecast=40.0)).desired == 19
    assert decide(engines(20, 0.8, forecast=40.0)).desired == 20


def test_without_load_scaling_the_forecast_is_acted_on() -> None:
    context = engines(20, 0.3, forecast=40.0, more={"loadScaling": 0.0})
    assert decide(context).desired == 13


def test_an_untrusted_forecast_is_used_as_dynamo_has_no_gate() -> None:
    context = engines(10, 0.3)
    untrusted = replace(context, forecast=window_forecast(40.0, 0.0, trusted=False))
    assert decide(untrusted).desired == 13


@pytest.mark.parametrize(
    ("target", "kv", "waiting", "expected"),
    [
        (0, 1.0, 0.0, 10),
        (0, 0.9, 110.0, 11),  # 11 prompts of 1,000 a replica are 0.11 of the cache
        (0, 0.6, 0.0, 10),
        (0, 0.59, 0.0, 9),
        (1, 0.41, 0.0, 11),
        (1, 0.4, 0.0, 10),
        (1, 0.09, 0.0, 9),
    ],
)
def test_easy_targets(target: int, kv: float, waiting: float, expected: int) -> None:
    more = {"optimizationTarget": float(target)}
    assert decide(engines(10, kv, waiting, more=more)).desired == expected


def test_the_last_engine_stays() -> None:
    assert dynamo.by_usage(1, 0.0, 1.0, 0.6) == 1
    assert dynamo.by_latency(1, Tokens(0.0, 0.0, 1e5), LATENCY) == 1


@pytest.mark.parametrize(
    ("in_use", "queued", "expected"),
    [
        (50_000.0, 4_001.0, 11),  # 0.1 + 0.4001 s to the first token
        (201_000.0, 0.0, 11),  # 0.01 + 0.0201 s between tokens
        (50_000.0, 1_000.0, 9),
        (50_000.0, 2_900.0, 10),  # 0.29 x 10/9 s of waiting exceed 0.8 x 0.4
        (127_000.0, 0.0, 10),  # on nine engines 0.0241 s, above 0.8 x 0.03
    ],
)
def test_promised_latencies(in_use: float, queued: float, expected: int) -> None:
    tokens = Tokens(in_use, queued, 1e6)
    assert dynamo.by_latency(10, tokens, LATENCY) == expected


def test_what_would_not_fit_on_one_engine_less_keeps_it() -> None:
    assert dynamo.by_latency(2, Tokens(49_000.0, 0.0, 100_000.0), LATENCY) == 1
    assert dynamo.by_latency(2, Tokens(50_000.0, 0.0, 100_000.0), LATENCY) == 2


def test_a_first_token_that_never_comes_in_time_sets_a_floor() -> None:
    more = {
        "optimizationTarget": 2.0,
        "firstTokenSeconds": 0.7,
        "firstTokenSlaSeconds": 0.5,
        "betweenTokensSlaSeconds": 0.03,
        "loadScaling": 0.0,
    }
    assert decide(engines(1, 0.3, forecast=1.0, more=more)).desired == 2


def test_load_is_not_judged_while_scaling_is_in_progress() -> None:
    context = replace(engines(10, 1.5), replicas=Replicas(10, 9, (NOON,)))
    assert decide(context).desired == 10


def test_with_neither_forecast_nor_load_it_holds() -> None:
    context = replace(engines(10, 0.3), observation=Observation(NOON))
    assert decide(context).desired == 10
