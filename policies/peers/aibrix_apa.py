"""AIBrix APA, Application-specific Pod Autoscaling: n times a pod's average over its target.

Source: vllm-project/aibrix e3e10f9 (2026-08-22). Decisions every 10 s. As shipped its two windows
take the wrong extremes (the down window the least, the up window the most of past proposals), so
they do not damp; `aibrix_apa_as_shipped` keeps that, `aibrix_apa_intended` stabilizes as an HPA.
"""

from __future__ import annotations

import math
from datetime import timedelta

from policies.context import ScalingContext
from policies.decision import Reason, Step
from policies.peers import hpa_rules
from policies.peers.readings import held_blind, load_of

WINDOW_SECONDS = 180.0
TOLERANCE = 0.1
RATE = 2.0


def propose(context: ScalingContext) -> tuple[Step, ...]:
    """The knob is `targetConcurrency`, `targetQps` or `targetKvUsage` (0 to 1), each of one
    replica: utilization times the benchmarked value. Others: `averageWindowSeconds` (180),
    `scaleUpWindowSeconds` (0), `scaleDownWindowSeconds` (300)."""
    seen = _per_replica(context)
    if seen is None:
        return (held_blind(context, "aibrix_apa", "the load of a pod was not observed"),)
    newest, target = seen
    usage = _mean_noted(context, newest)
    replicas = scale(context.replicas.spec, usage, target)
    text = f"{usage:,.3g} a replica on average, the target is {target:g}"
    notes = (("usage", newest),)
    return (Step("aibrix_apa", replicas, Reason.OBSERVED_DEMAND, text, notes),)


def scale(current: int, usage: float, target: float) -> int:
    """n times the ratio, at most doubled and at least halved; within the tolerance n."""
    ratio = usage / target
    if ratio > 1.0 + TOLERANCE:
        return min(math.ceil(current * ratio), math.ceil(RATE * current))
    if ratio < 1.0 - TOLERANCE:
        return max(math.ceil(current * ratio), math.floor(current / RATE))
    return current


def cool_down_as_shipped(context: ScalingContext, replicas: int) -> Step | None:
    """Falls to the least that the down window asked for, rises to the most of the up window."""
    parameter, current = context.settings.parameter, context.replicas.spec
    if replicas < current:
        seconds = parameter("scaleDownWindowSeconds", hpa_rules.DOWN_WINDOW_SECONDS)
        result = min([replicas, *hpa_rules.proposals(context, seconds)])
        reason = Reason.SCALE_DOWN_STABILIZED
    else:
        seconds = parameter("scaleUpWindowSeconds", hpa_rules.UP_WINDOW_SECONDS)
        result = max([replicas, *hpa_rules.proposals(context, seconds)])
        reason = Reason.SCALE_UP_STABILIZED
    if replicas in (result, current):
        return None
    return Step("cool_down", result, reason, f"the last {seconds:g} s asked for {result} as well")


def _per_replica(context: ScalingContext) -> tuple[float, float] | None:
    """The load of one replica now and its target; None where it is not known."""
    target = context.settings.parameter("targetKvUsage", 0.0)
    if target > 0:
        usage = context.observation.kv_cache_usage_ratio
        return None if usage is None else (usage, target)
    load = load_of(context)
    if load is None or context.replicas.ready == 0:
        return None
    return load.newest / context.replicas.ready, load.target


def _mean_noted(context: ScalingContext, newest: float) -> float:
    seconds = context.settings.parameter("averageWindowSeconds", WINDOW_SECONDS)
    oldest = context.now - timedelta(seconds=seconds)
    noted = [past.note("usage") for past in context.recent if past.at > oldest]
    usages = [usage for usage in noted if usage is not None]
    return (sum(usages) + newest) / (len(usages) + 1)
