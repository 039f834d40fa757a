"""Guardrails: each may hold or bound what a policy asks for, and says so.

Knows HPA's `behavior` arithmetic and the rules that come from real outages. Each is a function
(context, replicas so far) -> Step or None where it changes nothing.
"""

from __future__ import annotations

from datetime import timedelta

from policies.context import (
    Override,
    OverrideKind,
    RateLimit,
    RateUnit,
    ScalingContext,
    ScalingRules,
    SelectPolicy,
)
from policies.decision import Reason, Step
from policies.proposal import Guardrail

DEFAULT_COLLAPSE_RATIO = 0.5
"""A fall below this share of the recent peak is doubted (`collapseRatio`; 0 turns it off)."""


def hold_on_doubt(context: ScalingContext, replicas: int) -> Step | None:
    """On missing, stale, partial or implausible input the fleet may grow but never shrinks.

    HPA does the same since kubernetes/kubernetes#99514.
    """
    current = context.replicas.spec
    if not context.doubts or replicas >= current:
        return None
    return Step("hold_on_doubt", current, *_doubted(context))


def hold_on_collapse(context: ScalingContext, replicas: int) -> Step | None:
    """A sudden large fall in demand is more often an upstream failure than a quiet world.

    The fleet is kept while the fall is younger than the look-back, so that the herd finds it
    when it returns.
    """
    demand, current = context.demand_qps, context.replicas.spec
    if demand is None or replicas >= current:
        return None
    ratio = context.settings.parameter("collapseRatio", DEFAULT_COLLAPSE_RATIO)
    seconds = context.settings.parameter("lookBackSeconds", 300.0)
    oldest = context.now - timedelta(seconds=seconds)
    peak = max((past.demand_qps or 0.0 for past in context.recent if past.at > oldest), default=0.0)
    if demand >= ratio * peak:
        return None
    return Step(
        "hold_on_collapse",
        current,
        Reason.DEMAND_COLLAPSE,
        f"demand fell from {peak:,.0f} to {demand:,.0f} requests/s within {seconds:g} s",
    )


def stabilize(context: ScalingContext, replicas: int) -> Step | None:
    """HPA's two-sided stabilization: rise to the smallest proposal of the up window, fall to the
    largest of the down window (the newest proposal is part of both)."""
    current = context.replicas.spec
    up_min = min([replicas, *_proposals(context, context.settings.scale_up)])
    down_max = max([replicas, *_proposals(context, context.settings.scale_down)])
    result = min(max(current, up_min), down_max)
    if result == replicas:
        return None
    if result < replicas:
        window = context.settings.scale_up.stabilization_window_seconds
        text = f"the last {window} s asked for no more than {result} throughout"
        return Step("stabilize", result, Reason.SCALE_UP_STABILIZED, text)
    window = context.settings.scale_down.stabilization_window_seconds
    text = f"the last {window} s still asked for {down_max}"
    return Step("stabilize", result, Reason.SCALE_DOWN_STABILIZED, text)


def limit_rate(context: ScalingContext, replicas: int) -> Step | None:
    """HPA's `behavior` policies: so many pods or percent within a period."""
    current = context.replicas.spec
    if replicas > current:
        ceiling = _up_limit(context)
        if ceiling is not None and replicas > ceiling:
            text = f"scaleUp policies allow {ceiling} now"
            return Step("limit_rate", ceiling, Reason.SCALE_UP_LIMIT, text)
    if replicas < current:
        floor = _down_limit(context)
        if floor is not None and replicas < floor:
            text = f"scaleDown policies allow {floor} now"
            return Step("limit_rate", floor, Reason.SCALE_DOWN_LIMIT, text)
    return None


def bound(context: ScalingContext, replicas: int) -> Step | None:
    """minReplicas and maxReplicas; no growth passes the latter.

    A fleet that is larger already, since the setting was lowered or mistyped, is cut to it at once
    where the settings say so; else it shrinks as in any other fall: not on doubt, and no faster
    than scaleDown allows.
    """
    low, high = context.settings.min_replicas, context.settings.max_replicas
    if replicas < low:
        return Step("bound", low, Reason.TOO_FEW_REPLICAS, f"minReplicas is {low}")
    if replicas <= high:
        return None
    if context.replicas.spec > high and not context.settings.cuts_to_maximum:
        return _on_the_way_down(context, replicas)
    text = f"maxReplicas is {high}, {replicas - high} short"
    return Step("bound", high, Reason.TOO_MANY_REPLICAS, text)


def _on_the_way_down(context: ScalingContext, replicas: int) -> Step | None:
    current, high = context.replicas.spec, context.settings.max_replicas
    if context.doubts:
        least, (reason, why) = current, _doubted(context)
    else:
        least = max(high, _down_limit(context) or 0)
        reason, why = Reason.SCALE_DOWN_LIMIT, f"scaleDown policies allow {least} now"
    if replicas <= least:
        return None
    if least == high or replicas > current:
        reason = Reason.TOO_MANY_REPLICAS
    return Step("bound", least, reason, f"maxReplicas is {high}, {replicas - high} short; {why}")


def override(context: ScalingContext, replicas: int) -> Step | None:
    """A person's number, or a person's minimum; only the bounds hold against it."""
    found = holding(context)
    if found is None or found.replicas is None:
        return None
    if found.kind is OverrideKind.MINIMUM and replicas >= found.replicas:
        return None
    if replicas == found.replicas:
        return None
    least = "at least " if found.kind is OverrideKind.MINIMUM else ""
    return Step(
        "override", found.replicas, Reason.OVERRIDDEN, _told(found, f"{least}{found.replicas}")
    )


def paused(context: ScalingContext) -> bool:
    """Whether a person has paused the workload: nothing is to be changed then."""
    found = holding(context)
    return found is not None and found.kind is OverrideKind.PAUSE


def pause(context: ScalingContext, replicas: int) -> Step | None:
    """While a person has paused it, nothing is changed, whatever else holds."""
    found, current = holding(context), context.replicas.spec
    if found is None or not paused(context) or replicas == current:
        return None
    return Step("pause", current, Reason.PAUSED, _told(found, "no change"))


PEOPLE_FIRST: tuple[Guardrail, ...] = (override, bound, pause)
"""How every policy's guardrails end: a person's word, the bounds, and a pause over everything."""

ALL: tuple[Guardrail, ...] = (
    hold_on_doubt,
    hold_on_collapse,
    stabilize,
    limit_rate,
    *PEOPLE_FIRST,
)
"""In this order: what must not shrink first, limits next, then people, and the bounds, which hold
against both."""


def holding(context: ScalingContext) -> Override | None:
    """What a person decided, as long as it holds."""
    found = context.override
    return found if found is not None and found.expires_at > context.now else None


def _doubted(context: ScalingContext) -> tuple[Reason, str]:
    doubts = context.doubts
    log_lost = all(problem.kind.value == "LogUnavailable" for problem in doubts)
    reason = Reason.LOG_UNAVAILABLE if log_lost else Reason.METRICS_UNAVAILABLE
    return reason, "no scale-down on doubt: " + "; ".join(problem.message for problem in doubts)


def _told(found: Override, what: str) -> str:
    until = f"{found.expires_at:%Y-%m-%d %H:%M} UTC"
    return f"{found.owner} asked for {what} until {until}: {found.reason}"


def _proposals(context: ScalingContext, rules: ScalingRules) -> list[int]:
    oldest = context.now - timedelta(seconds=rules.stabilization_window_seconds)
    return [past.recommended for past in context.recent if past.at > oldest]


def _up_limit(context: ScalingContext) -> int | None:
    rules = context.settings.scale_up
    if rules.select_policy is SelectPolicy.DISABLED:
        return context.replicas.spec
    ceilings = [max(context.replicas.spec, _ceiling(context, limit)) for limit in rules.limits]
    if not ceilings:
        return None
    return max(ceilings) if rules.select_policy is SelectPolicy.MAX else min(ceilings)


def _down_limit(context: ScalingContext) -> int | None:
    rules = context.settings.scale_down
    if rules.select_policy is SelectPolicy.DISABLED:
        return context.replicas.spec
    floors = [min(context.replicas.spec, _floor(context, limit)) for limit in rules.limits]
    if not floors:
        return None
    return min(floors) if rules.select_policy is SelectPolicy.MAX else max(floors)


def _ceiling(context: ScalingContext, limit: RateLimit) -> int:
    start = _period_start(context, limit)
    if limit.unit is RateUnit.PODS:
        return start + limit.value
    return start + -(-start * limit.value // 100)  # integers: 50 + 10 % is 55, in floats 56


def _floor(context: ScalingContext, limit: RateLimit) -> int:
    start = _period_start(context, limit)
    if limit.unit is RateUnit.PODS:
        return start - limit.value
    return start * (100 - limit.value) // 100


def _period_start(context: ScalingContext, limit: RateLimit) -> int:
    """What was asked for when the period began, as HPA counts it: changes strictly within."""
    oldest = context.now - timedelta(seconds=limit.period_seconds)
    recent = [change for change in context.changes if change.at > oldest]
    return context.replicas.spec - sum(change.after - change.before for change in recent)
