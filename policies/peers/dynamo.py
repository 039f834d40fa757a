"""NVIDIA Dynamo's planner for aggregated workers: a throughput floor one interval ahead, and load
rules that move by one above it.

Source: ai-dynamo/dynamo, planner core (read 2026-08; predictors at 260b6ae). Throughput is decided
every 180 s from the next interval's forecast, which its forecaster issues on that grid; load every
5 s. Engines count as equal, and their latency model is given, not learned online.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import IntEnum

from policies.capacity import replicas_at
from policies.context import ScalingContext
from policies.decision import Reason, Step
from policies.peers.readings import due, forecast_qps, held_blind, target_qps
from policies.peers.tokens import Tokens, required, tokens_of
from policies.proposal import raised_to

LOAD_SECONDS = 5.0
MIN_ENDPOINT = 1
SENSITIVITY = 0.8


class Target(IntEnum):
    """What load scaling aims at, by the number in `optimizationTarget`."""

    THROUGHPUT = 0
    LATENCY = 1
    SLA = 2


LOAD_BAND = {Target.THROUGHPUT: (1.0, 0.6), Target.LATENCY: (0.4, 0.1)}
"""Cache and queue over the cache: one more above the first, one less below the second."""


@dataclass(frozen=True, slots=True)
class Latency:
    """An engine's latency as straight lines: seconds to the first token by prompt tokens that
    wait, seconds between tokens by tokens in the cache; and what is promised of both."""

    first_token: float
    first_token_per_queued: float
    between_tokens: float
    between_tokens_per_cached: float
    first_token_sla: float
    between_tokens_sla: float


def propose(context: ScalingContext) -> tuple[Step, ...]:
    """The knob is `targetQps`: the rate of one engine within the SLA, times a utilization.

    `loadScaling` (1) turns the load rules on; they need `kvCacheTokens` and `inputTokens`
    (`outputTokens` where cache usage is not observed) and are skipped without. Others:
    `optimizationTarget` (0 throughput, 1 latency, 2 sla); for sla `firstTokenSeconds`,
    `firstTokenSecondsPerToken`, `betweenTokensSeconds`, `betweenTokensSecondsPerToken`,
    `firstTokenSlaSeconds`, `betweenTokensSlaSeconds`.
    """
    steps = _load(context)
    demand = forecast_qps(context, "order")
    if demand is not None:
        steps = raised_to(steps, _throughput(context, demand))
    if not steps:
        return (held_blind(context, "dynamo", "no forecast and no load of the engines"),)
    return steps


def throughput(demand: float, engine_qps: float) -> int:
    return max(MIN_ENDPOINT, replicas_at(demand, engine_qps))


def latency_floor(first_token: float, promised: float) -> int:
    """Workers where even an empty engine's first token takes longer than promised."""
    return math.ceil(first_token / promised)


def by_usage(current: int, usage: float, above: float, below: float) -> int:
    """One more above the band, one less below it, never none."""
    if usage > above:
        return current + 1
    return current - 1 if usage < below and current > 1 else current


def by_latency(current: int, tokens: Tokens, engine: Latency) -> int:
    """One more where a promise is broken, one less where n - 1 engines would keep both easily."""
    cached = tokens.in_use + tokens.queued
    first = engine.first_token + engine.first_token_per_queued * tokens.queued
    between = engine.between_tokens + engine.between_tokens_per_cached * cached
    if first > engine.first_token_sla or between > engine.between_tokens_sla:
        return current + 1
    if current <= 1:
        return current
    share = current / (current - 1)
    waits = engine.first_token_per_queued * tokens.queued * share
    room = (engine.first_token_sla - engine.first_token) * SENSITIVITY
    consolidated = cached * share
    between = engine.between_tokens + engine.between_tokens_per_cached * consolidated
    keeps = consolidated < tokens.cache and between < engine.between_tokens_sla * SENSITIVITY
    return current - 1 if waits < room and keeps else current


def _throughput(context: ScalingContext, demand: float) -> Step:
    rate = target_qps(context)
    replicas = throughput(demand, rate)
    if Target(int(context.settings.parameter("optimizationTarget", 0.0))) is Target.SLA:
        engine = _latency(context)
        if engine.first_token > engine.first_token_sla:
            replicas = max(replicas, latency_floor(engine.first_token, engine.first_token_sla))
    text = f"{demand:,.0f} requests/s in the next interval at {rate:g} an engine"
    return Step("throughput", replicas, Reason.FORECAST_PEAK, text)


def _load(context: ScalingContext) -> tuple[Step, ...]:
    """No step where load scaling is off or the engines' load is not known."""
    parameter, replicas = context.settings.parameter, context.replicas
    if not parameter("loadScaling", 1.0) or parameter("kvCacheTokens", 0.0) <= 0:
        return ()
    tokens, current = tokens_of(context), replicas.spec
    if tokens is None:
        return ()
    if replicas.ready != current or replicas.draining or not due(context, LOAD_SECONDS):
        text = "load is not judged while scaling is in progress"
        return (Step("load", current, Reason.NOT_DUE, text),)
    target = Target(int(parameter("optimizationTarget", 0.0)))
    if target is Target.SLA:
        wanted = by_latency(current, tokens, _latency(context))
    else:
        wanted = by_usage(current, tokens.usage + tokens.queued / tokens.cache, *LOAD_BAND[target])
    text = f"{tokens.in_use:,.0f} tokens cached and {tokens.queued:,.0f} waiting an engine"
    return (Step("load", wanted, Reason.OBSERVED_DEMAND, text),)


def _latency(context: ScalingContext) -> Latency:
    parameter = context.settings.parameter
    return Latency(
        parameter("firstTokenSeconds", 0.0),
        parameter("firstTokenSecondsPerToken", 0.0),
        parameter("betweenTokensSeconds", 0.0),
        parameter("betweenTokensSecondsPerToken", 0.0),
        required(context, "firstTokenSlaSeconds"),
        required(context, "betweenTokensSlaSeconds"),
    )
