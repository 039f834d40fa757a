"""The HorizontalPodAutoscaler's rules, which several peers act through.

Source: Kubernetes autoscaling/v2, k8s.io/kubernetes/pkg/controller/podautoscaler
(replica_calculator.go, horizontal.go), read 2026-08. The arithmetic is in plain numbers, so that
sweeps run the same code compiled; percentages are in floating point, as there.
"""

from __future__ import annotations

import math
from datetime import timedelta

from policies.context import ScalingContext
from policies.decision import Reason, Step
from policies.peers.readings import target_qps
from policies.proposal import held

TOLERANCE = 0.1
UP_WINDOW_SECONDS = 0.0
DOWN_WINDOW_SECONDS = 300.0
PERIOD_SECONDS = 15.0
UP_PERCENT = 100.0
UP_PODS = 4.0
DOWN_PERCENT = 100.0


def average_value(total: float, target: float, current: int, tolerance: float) -> int:
    """An external metric with an AverageValue target: total demand over the target of one pod.

    It counts all pods that exist, ready or not; within the tolerance nothing changes.
    """
    if current > 0 and abs(1.0 - total / (target * current)) <= tolerance:
        return current
    return math.ceil(total / target)


def value(total: float, target: float, current: int, ready: int, tolerance: float) -> int:
    """An external metric with a Value target: the ready pods times the ratio.

    While slow pods start, the ratio stays high: this is the form that over-shoots.
    """
    ratio = total / target
    if current == 0:
        return math.ceil(ratio)
    if abs(1.0 - ratio) <= tolerance:
        return current
    return math.ceil(ratio * ready)


def pods(
    ratio: float, current: int, measured: int, missing: int, ignored: int, tolerance: float
) -> int:
    """A Pods metric: `ratio` is the mean of the measured pods over the target of one.

    A missing pod counts as the target on the way down and as nothing on the way up; an ignored
    (pending) one as nothing on the way up only. Where that turns the direction, n is kept.
    """
    if missing == 0 and not (ignored > 0 and ratio > 1.0):
        return current if abs(1.0 - ratio) <= tolerance else math.ceil(ratio * measured)
    count = measured + missing + (ignored if ratio > 1.0 else 0)
    refilled = (ratio * measured + (missing if ratio < 1.0 else 0)) / count
    if abs(1.0 - refilled) <= tolerance or (ratio - 1.0) * (refilled - 1.0) < 0.0:
        return current
    return math.ceil(refilled * count)


def stabilized(current: int, up_min: int, down_max: int) -> int:
    """Rise to the smallest proposal of the up window, then fall to the largest of the down window;
    the newest proposal is part of both."""
    return min(max(current, up_min), down_max)


def up_limit(current: int, start: int, pods_added: float, percent: float) -> int:
    """The most that scaleUp policies allow, the more generous of pods and percent; both count
    from what was asked for when the period began."""
    by_percent = math.ceil(start * (1.0 + percent / 100.0))
    return max(current, math.ceil(start + pods_added), by_percent)


def down_limit(current: int, start: int, percent: float) -> int:
    """The least that scaleDown policies allow."""
    return min(current, int(start * (1.0 - percent / 100.0)))


def rate_step(context: ScalingContext) -> Step:
    """The proposal for the request rate as an external metric with an AverageValue target."""
    demand, target, current = context.demand_qps, target_qps(context), context.replicas.spec
    if demand is None:
        return held(context, "hpa", "the metric is not known")
    replicas = average_value(demand, target, current, tolerance_of(context))
    kept = " (within the tolerance)" if replicas == current else ""
    text = f"{demand:,.0f} requests/s at {target:g} a replica{kept}"
    return Step("hpa", replicas, Reason.OBSERVED_DEMAND, text)


def tolerance_of(context: ScalingContext) -> float:
    return context.settings.parameter("tolerance", TOLERANCE)


def stabilize(context: ScalingContext, replicas: int) -> Step | None:
    """Parameters: `scaleUpWindowSeconds` (0), `scaleDownWindowSeconds` (300)."""
    up = context.settings.parameter("scaleUpWindowSeconds", UP_WINDOW_SECONDS)
    down = context.settings.parameter("scaleDownWindowSeconds", DOWN_WINDOW_SECONDS)
    return stabilized_over(context, replicas, up, down)


def stabilized_over(
    context: ScalingContext, replicas: int, up_seconds: float, down_seconds: float
) -> Step | None:
    """The same for given windows; None where the proposal stands."""
    up_min = min([replicas, *proposals(context, up_seconds)])
    down_max = max([replicas, *proposals(context, down_seconds)])
    result = stabilized(context.replicas.spec, up_min, down_max)
    if result == replicas:
        return None
    if result < replicas:
        text = f"the last {up_seconds:g} s did not ask for more throughout"
        return Step("stabilize", result, Reason.SCALE_UP_STABILIZED, text)
    text = f"the last {down_seconds:g} s still asked for {down_max}"
    return Step("stabilize", result, Reason.SCALE_DOWN_STABILIZED, text)


def proposals(context: ScalingContext, seconds: float) -> list[int]:
    """What the policy asked for within the last seconds, before any guardrail."""
    oldest = context.now - timedelta(seconds=seconds)
    return [past.recommended for past in context.recent if past.at > oldest]


def limit_rate(
    context: ScalingContext, replicas: int, period_seconds: float = PERIOD_SECONDS
) -> Step | None:
    """Parameters: `scaleUpPercent` (100), `scaleUpPods` (4), `scaleDownPercent` (100), each in
    `periodSeconds`."""
    parameter, current = context.settings.parameter, context.replicas.spec
    start = period_start(context, parameter("periodSeconds", period_seconds))
    if replicas > current:
        added, percent = parameter("scaleUpPods", UP_PODS), parameter("scaleUpPercent", UP_PERCENT)
        ceiling = up_limit(current, start, added, percent)
        if replicas > ceiling:
            text = f"scaleUp policies allow {ceiling} now"
            return Step("limit_rate", ceiling, Reason.SCALE_UP_LIMIT, text)
    if replicas < current:
        floor = down_limit(current, start, parameter("scaleDownPercent", DOWN_PERCENT))
        if replicas < floor:
            text = f"scaleDown policies allow {floor} now"
            return Step("limit_rate", floor, Reason.SCALE_DOWN_LIMIT, text)
    return None


def period_start(context: ScalingContext, seconds: float) -> int:
    """What was asked for when the period began: now, less the changes strictly within it."""
    oldest = context.now - timedelta(seconds=seconds)
    changed = sum(change.after - change.before for change in context.changes if change.at > oldest)
    return context.replicas.spec - changed
