"""AWS predictive scaling beside target tracking; an approximation, since the model is closed.

Source: the user guide of EC2 Auto Scaling, predictive scaling and target tracking (read 2026-11).
Its forecaster is a stand-in: the mean of the hour of the week, hourly. Capacity for an hour is
launched a buffer before it begins; here the buffer is one lead time and one decision.
"""

from __future__ import annotations

import math

from policies.capacity import replicas_at
from policies.context import ScalingContext
from policies.decision import Reason, Step
from policies.peers import hpa_rules
from policies.peers.readings import forecast_qps, held_blind, target_qps
from policies.proposal import raised_to

SCALE_IN_SECONDS = 900.0
"""Target tracking gives up capacity after 15 minutes below the target."""


def propose(context: ScalingContext) -> tuple[Step, ...]:
    """The larger of target tracking and the hours' capacity; the forecast never lowers.

    The knob is `targetQps` (utilization times the rate within the SLO). Others:
    `scaleInWindowSeconds` (900), `maxCapacityBufferPercent` (none: the capacity stops at the
    maximum; with it the proposal may exceed the maximum, which still bounds what is done).
    """
    demand, target = context.demand_qps, target_qps(context)
    if demand is None:
        steps = (held_blind(context, "target_tracking", "the load was not observed"),)
    else:
        text = f"{demand:,.0f} requests/s at {target:g} a replica"
        steps = (Step("target_tracking", math.ceil(demand / target), Reason.OBSERVED_DEMAND, text),)
    load = forecast_qps(context, "hold")
    if load is None:
        return steps
    capacity = replicas_at(load, target)
    high = context.settings.max_replicas
    percent = context.settings.parameter("maxCapacityBufferPercent", -1.0)
    if percent >= 0:
        high = increased_max(capacity, high, int(percent))
    text = f"the hour, and the one about to begin, need {load:,.0f} requests/s"
    return raised_to(steps, Step("forecast", min(capacity, high), Reason.FORECAST_PEAK, text))


def increased_max(capacity: int, maximum: int, buffer_percent: int) -> int:
    """ceil(capacity (1 + buffer)) where that exceeds the maximum; in integers, since 50 and 10 %
    are 55 and in floating point 56."""
    return max(maximum, -(-capacity * (100 + buffer_percent) // 100))


def stabilize(context: ScalingContext, replicas: int) -> Step | None:
    seconds = context.settings.parameter("scaleInWindowSeconds", SCALE_IN_SECONDS)
    return hpa_rules.stabilized_over(context, replicas, 0.0, seconds)
