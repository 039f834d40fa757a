"""Seasonal naive: what was there a day (or a week) ago, as a floor under asymmetric concurrency.

Source: none; the baseline that users ask predictive scalers to beat (ai-dynamo/dynamo#14238).
"""

from __future__ import annotations

from policies.capacity import replicas_at
from policies.context import ScalingContext
from policies.decision import Reason, Step
from policies.peers import asymmetric_concurrency
from policies.peers.readings import forecast_qps, target_qps
from policies.proposal import raised_to


def propose(context: ScalingContext) -> tuple[Step, ...]:
    """The knob is `targetConcurrency` or `targetQps`, and the others those of
    `asymmetric_concurrency`. The floor goes by `floorQps` of a replica (`targetQps` where that is
    given)."""
    steps = asymmetric_concurrency.propose(context)
    load = forecast_qps(context, "order")
    if load is None:
        return steps
    rate = context.settings.parameter("floorQps", target_qps(context))
    text = f"a season ago there were {load:,.0f} requests/s one lead time on"
    return raised_to(steps, Step("floor", replicas_at(load, rate), Reason.FORECAST_PEAK, text))
