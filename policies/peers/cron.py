"""Cron: replicas by the clock, through the HPA and its tolerance.

Source: KEDA's cron scaler (kedacore/keda 8b4f083, 2026-08-20): the metric is the number wanted
within a schedule and 0 outside, its target is 1.
"""

from __future__ import annotations

from policies.context import ScalingContext
from policies.decision import Reason, Step
from policies.peers import hpa_rules
from policies.proposal import raised_to
from policies.schedule import Schedule


def propose(context: ScalingContext) -> tuple[Step, ...]:
    """The largest of what schedules want and, where `targetQps` is given, the request rate needs.

    The settings' `schedules` are the knob. Parameters: `targetQps`, and those of `hpa_rules`.
    """
    replicas, text = wanted(context)
    tolerance, current = hpa_rules.tolerance_of(context), context.replicas.spec
    asked = hpa_rules.average_value(float(replicas), 1.0, current, tolerance)
    steps: tuple[Step, ...] = (Step("cron", asked, Reason.SCHEDULED, text),)
    if context.settings.parameter("targetQps", 0.0) > 0:
        steps = raised_to(steps, hpa_rules.rate_step(context))
    return steps


def propose_above_floor(context: ScalingContext) -> tuple[Step, ...]:
    """`cron_floor`: the request rate alone; the schedule is a floor, a guardrail.

    The knob is `targetQps` (utilization times the rate within the SLO).
    """
    return (hpa_rules.rate_step(context),)


def floor(context: ScalingContext, replicas: int) -> Step | None:
    """What schedules want at least, to the replica: no tolerance, no rate limit."""
    low, text = wanted(context)
    return Step("cron_floor", low, Reason.SCHEDULED, text) if replicas < low else None


def wanted(context: ScalingContext) -> tuple[int, str]:
    """The most that a schedule wants now, and why. Raises ValueError where there is none."""
    schedules = context.settings.schedules
    if not schedules:
        raise ValueError(f"{context.settings.policy} needs at least one schedule")
    open_now = [schedule for schedule in schedules if schedule.covers(context.now)]
    if not open_now:
        return 0, "outside every schedule"
    most = max(open_now, key=_replicas)
    return most.replicas, f"within {most.start!r} to {most.end!r} ({most.time_zone})"


def _replicas(schedule: Schedule) -> int:
    return schedule.replicas
