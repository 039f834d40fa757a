"""Tokens in the caches of the pods, for peers that count in them.

Knows what a fleet's averages say of one replica; replicas count as equal, since the situation
holds no figures by pod.
"""

from __future__ import annotations

from dataclasses import dataclass

from policies.context import ScalingContext


@dataclass(frozen=True, slots=True)
class Tokens:
    """Of one replica: tokens in its KV cache, prompt tokens that wait, and the cache's size."""

    in_use: float
    queued: float
    cache: float

    @property
    def usage(self) -> float:
        return self.in_use / self.cache


def tokens_of(context: ScalingContext) -> Tokens | None:
    """From `kvCacheTokens`, `inputTokens` and `outputTokens` (means of a request); None where the
    pods' requests are not known. Raises ValueError where one of the parameters is missing.

    A running request holds its input and on average half of its output.
    """
    parameter, seen, ready = context.settings.parameter, context.observation, context.replicas.ready
    cache = required(context, "kvCacheTokens")
    prompt, output = required(context, "inputTokens"), parameter("outputTokens", 0.0)
    if ready == 0 or seen.requests_waiting is None:
        return None
    queued = seen.requests_waiting * prompt / ready
    if seen.kv_cache_usage_ratio is not None:
        return Tokens(seen.kv_cache_usage_ratio * cache, queued, cache)
    if seen.requests_running is None:
        return None
    return Tokens(seen.requests_running * (prompt + output / 2) / ready, queued, cache)


def kv_usage(context: ScalingContext) -> float | None:
    """Of the KV cache, 0 to 1: observed, or from tokens where `kvCacheTokens` says how."""
    if context.observation.kv_cache_usage_ratio is not None:
        return context.observation.kv_cache_usage_ratio
    if context.settings.parameter("kvCacheTokens", 0.0) <= 0:
        return None
    tokens = tokens_of(context)
    return None if tokens is None else tokens.usage


def required(context: ScalingContext, name: str) -> float:
    value = context.settings.parameter(name, 0.0)
    if value <= 0:
        raise ValueError(f"{context.settings.policy} needs the parameter {name} above 0")
    return value
