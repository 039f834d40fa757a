"""Google Cloud's predictive autoscaling of instance groups; an approximation of a closed model.

Source: cloud.google.com/compute/docs/autoscaler/predictive-autoscaling (seen 2026-11). The original
knows CPU only; this is the request rate. Its forecaster is a stand-in: the mean of the time of the
week, in steps of five minutes. The initialization period is the lead time.
"""

from __future__ import annotations

import math

from policies.capacity import replicas_at
from policies.context import ScalingContext
from policies.decision import Reason, Step
from policies.peers import hpa_rules
from policies.peers.readings import forecast_qps, held_blind, target_qps
from policies.proposal import raised_to

STABILIZATION_SECONDS = 600.0


def propose(context: ScalingContext) -> tuple[Step, ...]:
    """max(reactive, forecast peak from now to the end of an initialization), each over the target.

    The knob is `targetQps` (utilization times the rate within the SLO). Other:
    `scaleInWindowSeconds` (600).
    """
    demand, target = context.demand_qps, target_qps(context)
    if demand is None:
        steps = (held_blind(context, "reactive", "the load was not observed"),)
    else:
        text = f"{demand:,.0f} requests/s at {target:g} a replica"
        steps = (Step("reactive", math.ceil(demand / target), Reason.OBSERVED_DEMAND, text),)
    peak = forecast_qps(context, "hold")
    if peak is None:
        return steps
    text = f"forecast peaks at {peak:,.0f} requests/s before a replica ordered now serves"
    forecast = Step("forecast", replicas_at(peak, target), Reason.FORECAST_PEAK, text)
    return raised_to(steps, forecast)


def stabilize(context: ScalingContext, replicas: int) -> Step | None:
    """The most that the last ten minutes recommended."""
    seconds = context.settings.parameter("scaleInWindowSeconds", STABILIZATION_SECONDS)
    return hpa_rules.stabilized_over(context, replicas, 0.0, seconds)
