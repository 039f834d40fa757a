"""Azure's predictive autoscale of scale sets; an approximation of a closed model.

Source: MicrosoftDocs/azure-monitor-docs, autoscale-predictive.md (read 2026-11). Rules with
thresholds and steps; where the forecast crosses the scale-out threshold its step is added early.
It never scales in on a forecast. Its forecaster is a stand-in: the mean of the time of the week.
The original knows CPU only; this is the request rate.
"""

from __future__ import annotations

from datetime import timedelta

from policies.context import ScalingContext
from policies.decision import Reason, Step
from policies.peers.readings import forecast_qps, held_blind, target_qps
from policies.proposal import raised_to

SCALE_IN_RATIO = 0.5
STEP_PERCENT = 10
COOLDOWN_SECONDS = 300.0


def propose(context: ScalingContext) -> tuple[Step, ...]:
    """The knob is `targetQps`: the scale-out threshold, in requests/s a replica.

    Others: `scaleInRatio` (0.5: of the scale-out threshold), `stepPercent` (10, at least one
    replica), `cooldownWindowSeconds` (300: no rule fires again so soon after a change).
    """
    parameter, current = context.settings.parameter, context.replicas.spec
    if _cooling(context):
        text = "a change is younger than the cool-down"
        return (Step("azure_predictive", current, Reason.NOT_DUE, text),)
    threshold = target_qps(context)
    size = step_size(current, int(parameter("stepPercent", STEP_PERCENT)))
    ahead = forecast_qps(context, "order")
    steps: tuple[Step, ...] = (_reactive(context, threshold, size, ahead or 0.0),)
    if ahead is not None and ahead > threshold * current:
        text = f"forecast of {ahead:,.0f} requests/s crosses {threshold:g} a replica"
        early = Step("forecast", current + size, Reason.FORECAST_PEAK, text)
        steps = raised_to(steps, early)
    return steps


def step_size(current: int, percent: int) -> int:
    return max(1, -(-current * percent // 100))


def by_rule(
    current: int, load: float, ahead: float, threshold: float, lower: float, size: int
) -> int:
    """A step out above the threshold; a step in below the lower one, unless what is left would
    cross the threshold at once, by the load now or by that ahead."""
    if load > threshold * current:
        return current + size
    left = current - size
    if load < lower * current and left > 0 and max(load, ahead) <= threshold * left:
        return left
    return current


def _reactive(context: ScalingContext, threshold: float, size: int, ahead: float) -> Step:
    demand, current = context.demand_qps, context.replicas.spec
    if demand is None:
        return held_blind(context, "rule", "the load was not observed")
    lower = threshold * context.settings.parameter("scaleInRatio", SCALE_IN_RATIO)
    replicas = by_rule(current, demand, ahead, threshold, lower, size)
    text = f"{demand:,.0f} requests/s on {current} replicas"
    return Step("rule", replicas, Reason.OBSERVED_DEMAND, text)


def _cooling(context: ScalingContext) -> bool:
    seconds = context.settings.parameter("cooldownWindowSeconds", COOLDOWN_SECONDS)
    oldest = context.now - timedelta(seconds=seconds)
    return any(change.at > oldest for change in context.changes)
