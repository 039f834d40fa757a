"""llm-d's Workload Variant Autoscaler, second analyser: demand and supply in tokens.

Source: llm-d Workload Variant Autoscaler b08b1c7 (2026-02-19; deprecated since). Decisions every
60 s. There is one variant here, and no queue in front of the pods.
"""

from __future__ import annotations

import math

from policies.context import ScalingContext
from policies.decision import Reason, Step
from policies.peers.readings import due, held_blind, last_note
from policies.peers.tokens import Tokens, required, tokens_of

INTERVAL_SECONDS = 60.0
KV_SHARE = 0.80
QUEUE_THRESHOLD = 5.0
UP_UTILIZATION = 0.85
DOWN_TO_UP = 0.70 / 0.85
MAX_BATCHED_TOKENS = 8192.0
MAX_SEQUENCES = 256.0
REMEMBERED = 10


def propose(context: ScalingContext) -> tuple[Step, ...]:
    """The knob is `scaleUpUtilization` (0.85): the share of the supply that demand may take; below
    0.70 / 0.85 of that share replicas go.

    Needs `kvCacheTokens`, `inputTokens` and `outputTokens`. Others: `maxBatchedTokens` (8192),
    `maxSequences` (256).
    """
    tokens, current = tokens_of(context), context.replicas.spec
    if tokens is None:
        return (held_blind(context, "wva_v2", "the pods' requests were not observed"),)
    waiting = context.observation.requests_waiting or 0.0
    queue = waiting / context.replicas.ready
    seen = _saturations(context, tokens, queue)
    notes = tuple((f"saturated{place}", value) for place, value in enumerate(seen))
    if not due(context, INTERVAL_SECONDS):
        return (Step("wva_v2", current, Reason.NOT_DUE, "decides once a minute", notes),)
    cap = _capacity(context, tokens, queue, seen)
    demand = (tokens.in_use + tokens.queued) * context.replicas.ready
    pending = len(context.replicas.starting)
    limit = context.settings.parameter("scaleUpUtilization", UP_UTILIZATION)
    change = verdict(demand, cap, context.replicas.ready, pending, limit)
    text = f"{demand:,.0f} tokens wanted, {cap:,.0f} a replica"
    replicas = max(1, current + change)
    return (Step("wva_v2", replicas, Reason.OBSERVED_DEMAND, text, notes),)


def verdict(
    demand: float, cap: float, ready: int, pending: int, up_utilization: float = UP_UTILIZATION
) -> int:
    """By how many replicas to change: up against supply to come, down against supply that is."""
    required_tokens = demand / up_utilization - (ready + pending) * cap
    if required_tokens > 0:
        return math.ceil(required_tokens / cap)
    spare = ready * cap - demand / (DOWN_TO_UP * up_utilization)
    return -min(math.floor(spare / cap), max(0, ready - 1)) if spare > 0 else 0


def batch_tokens(batched: float, sequences: float, prompt: float, output: float) -> int:
    """Tokens that the scheduler can keep in flight: N = min(B O / (I + O), S), k2 = N (I + O/2)."""
    running = min(batched * output / (prompt + output), sequences)
    return math.trunc(running * (prompt + output / 2))


def _capacity(
    context: ScalingContext, tokens: Tokens, queue: float, saturated: list[float]
) -> float:
    """Tokens of one replica: bound by its cache, and by what it was seen or is able to batch."""
    by_cache = KV_SHARE * tokens.cache
    if _saturated(tokens, queue):
        return min(by_cache, tokens.in_use)
    if saturated:
        return min(by_cache, sum(saturated) / len(saturated))
    parameter = context.settings.parameter
    by_batch = batch_tokens(
        parameter("maxBatchedTokens", MAX_BATCHED_TOKENS),
        parameter("maxSequences", MAX_SEQUENCES),
        required(context, "inputTokens"),
        required(context, "outputTokens"),
    )
    return min(by_cache, float(by_batch)) if by_batch else by_cache


def _saturated(tokens: Tokens, queue: float) -> bool:
    """A long queue over empty caches says nothing of what a replica holds."""
    return queue >= QUEUE_THRESHOLD and tokens.in_use > 0


def _saturations(context: ScalingContext, tokens: Tokens, queue: float) -> list[float]:
    """Tokens in use whenever the queue was long, the newest ten of them."""
    noted = [last_note(context, f"saturated{place}") for place in range(REMEMBERED)]
    seen = [value for value in noted if value is not None]
    if _saturated(tokens, queue):
        seen.append(tokens.in_use)
    return seen[-REMEMBERED:]
