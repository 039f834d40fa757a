"""KEDA with a Prometheus trigger: zero to one by itself, the rest through the HPA that it makes.

Source: kedacore/keda 8b4f083 (2026-08-20), prometheus scaler, scale executor and fallback.
"""

from __future__ import annotations

from enum import IntEnum

from policies.context import ProblemKind, ProblemSource, ScalingContext
from policies.decision import Reason, Step
from policies.peers import hpa_rules
from policies.peers.readings import last_note, target_qps
from policies.proposal import held

COOLDOWN_SECONDS = 300.0


class Fallback(IntEnum):
    """What stands in for a trigger that fails, by the number in `fallbackBehavior`."""

    STATIC = 0
    CURRENT_REPLICAS = 1
    CURRENT_REPLICAS_IF_HIGHER = 2
    CURRENT_REPLICAS_IF_LOWER = 3


def propose(context: ScalingContext) -> tuple[Step, ...]:
    """The knob is `targetQps` (the threshold: utilization times the rate within the SLO).

    Others: `activationQps` (0), `cooldownSeconds` (300), `idleReplicas` (0), `ignoreNullValues`
    (1: an empty result is no load, as shipped), `failureThreshold` (0: no fallback),
    `fallbackReplicas`, `fallbackBehavior` (0 static, 1 currentReplicas, 2 currentReplicasIfHigher,
    3 currentReplicasIfLower), and those of `hpa_rules`.
    """
    value = polled(context)
    if value is None:
        return (_failed(context),)
    active = value > context.settings.parameter("activationQps", 0.0)
    now = context.now.timestamp()
    active_at = now if active else last_note(context, "activeAt") or now
    replicas, text = _scaled(context, value, active, now - active_at)
    notes = (("activeAt", active_at), ("failures", 0.0))
    return (Step("keda_prometheus", replicas, Reason.OBSERVED_DEMAND, text, notes),)


def polled(context: ScalingContext) -> float | None:
    """The query's value; None where it failed. What came back empty counts as nothing unless
    `ignoreNullValues` is 0."""
    if context.demand_qps is not None:
        return context.demand_qps
    kinds = [p.kind for p in context.problems if p.source is ProblemSource.DEMAND]
    empty = all(kind is ProblemKind.NO_DATA for kind in kinds)
    return 0.0 if empty and context.settings.parameter("ignoreNullValues", 1.0) else None


def fallback(behavior: int, current: int, replicas: int) -> int:
    """The number that the metric of a failed trigger is made to ask for."""
    if behavior == Fallback.CURRENT_REPLICAS:
        return current
    if behavior == Fallback.CURRENT_REPLICAS_IF_HIGHER:
        return max(current, replicas)
    if behavior == Fallback.CURRENT_REPLICAS_IF_LOWER:
        return min(current, replicas)
    return replicas


def stabilize(context: ScalingContext, replicas: int) -> Step | None:
    """The HPA's, which has no say where KEDA itself goes to idle or wakes from it."""
    if replicas == 0 or context.replicas.spec == 0:
        return None
    return hpa_rules.stabilize(context, replicas)


def _scaled(
    context: ScalingContext, value: float, active: bool, idle_seconds: float
) -> tuple[int, str]:
    current, low = context.replicas.spec, context.settings.min_replicas
    idle = int(context.settings.parameter("idleReplicas", 0.0))
    cooldown = context.settings.parameter("cooldownSeconds", COOLDOWN_SECONDS)
    if current <= idle:
        return (max(1, low), "active: woken") if active else (idle, "idle")
    if not active and low == 0 and idle_seconds >= cooldown:
        return idle, f"inactive for {idle_seconds:g} s"
    target = target_qps(context)
    wanted = hpa_rules.average_value(value, target, current, hpa_rules.tolerance_of(context))
    return max(1, wanted), f"{value:,.0f} requests/s at {target:g} a replica"


def _failed(context: ScalingContext) -> Step:
    """Kept, or from one failure more than the threshold on, what the fallback asks for."""
    parameter, current = context.settings.parameter, context.replicas.spec
    failures = (last_note(context, "failures") or 0.0) + 1
    notes = (
        ("activeAt", last_note(context, "activeAt") or context.now.timestamp()),
        ("failures", failures),
    )
    threshold = parameter("failureThreshold", 0.0)
    if not 0 < threshold < failures:
        kept = held(context, "keda_prometheus", "the query failed")
        return Step(kept.rule, kept.replicas, kept.reason, kept.message, notes)
    replicas = int(parameter("fallbackReplicas", float(current)))
    wanted = fallback(int(parameter("fallbackBehavior", 0.0)), current, replicas)
    tolerance = hpa_rules.tolerance_of(context)
    wanted = hpa_rules.average_value(float(wanted), 1.0, current, tolerance)
    text = f"fallback after {failures:g} failures"
    return Step("keda_prometheus", wanted, Reason.FIXED, text, notes)
