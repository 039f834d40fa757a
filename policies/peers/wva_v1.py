"""llm-d's Workload Variant Autoscaler, first analyser: one replica up or down by spare capacity.

Source: llm-d Workload Variant Autoscaler b08b1c7 (2026-02-19; deprecated since). Decisions every
60 s. There is one variant here, so the choice between variants by cost falls away.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from policies.context import ScalingContext
from policies.decision import Reason, Step
from policies.peers.readings import due, held_blind
from policies.peers.tokens import kv_usage

INTERVAL_SECONDS = 60.0
KV_LIMIT = 0.80
QUEUE_LIMIT = 5.0
KV_SPARE = 0.10
QUEUE_SPARE = 3.0


def propose(context: ScalingContext) -> tuple[Step, ...]:
    """The knob is `kvUtilization` (0.80): the KV usage at which a replica counts as saturated.

    Needs the KV cache's usage and the requests waiting; without the former, `kvCacheTokens`,
    `inputTokens` and `outputTokens`.
    """
    usage, waiting = kv_usage(context), context.observation.requests_waiting
    ready, current = context.replicas.ready, context.replicas.spec
    if usage is None or waiting is None or ready == 0:
        return (held_blind(context, "wva_v1", "KV usage and queue were not observed"),)
    queue = waiting / ready
    notes = (("kv", usage), ("queue", queue))
    if not due(context, INTERVAL_SECONDS):
        return (Step("wva_v1", current, Reason.NOT_DUE, "decides once a minute", notes),)
    if ready != current:
        text = f"in transition: {ready} of {current} replicas are ready"
        return (Step("wva_v1", current, Reason.NOT_DUE, text, notes),)
    kv_peak, queue_peak = _peak(context, "kv", usage), _peak(context, "queue", queue)
    limit = context.settings.parameter("kvUtilization", KV_LIMIT)
    change = verdict([kv_peak] * ready, [queue_peak] * ready, limit)
    text = (
        f"KV usage {kv_peak:.0%} and {queue_peak:.1f} waiting a replica at the last minute's peak"
    )
    replicas = max(1, current + change)
    return (Step("wva_v1", replicas, Reason.OBSERVED_DEMAND, text, notes),)


def verdict(kv: Sequence[float], waiting: Sequence[float], kv_limit: float = KV_LIMIT) -> int:
    """1 to add a replica, -1 to remove one, else 0, from each replica's usage and queue.

    One is added where the replicas that are not saturated have too little to spare, and removed
    where they had enough left after sharing the load of one.
    """
    spare = [
        (kv_limit - usage, QUEUE_LIMIT - queue)
        for usage, queue in zip(kv, waiting, strict=True)
        if usage < kv_limit and queue < QUEUE_LIMIT
    ]
    count = len(spare)
    if count == 0:
        return 1
    spare_kv = sum(usage for usage, _ in spare) / count
    spare_queue = sum(queue for _, queue in spare) / count
    if spare_kv < KV_SPARE or spare_queue < QUEUE_SPARE:
        return 1
    if count < 2:
        return 0
    share = count / (count - 1)
    kv_left = kv_limit - (kv_limit - spare_kv) * share
    queue_left = QUEUE_LIMIT - (QUEUE_LIMIT - spare_queue) * share
    return -1 if kv_left >= KV_SPARE and queue_left >= QUEUE_SPARE else 0


def _peak(context: ScalingContext, name: str, newest: float) -> float:
    oldest = context.now - timedelta(seconds=INTERVAL_SECONDS)
    noted = [past.note(name) for past in context.recent if past.at > oldest]
    return max([newest, *(value for value in noted if value is not None)])
