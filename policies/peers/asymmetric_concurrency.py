"""Asymmetric concurrency: up on the last 20 s, down on the last 5 minutes.

Source: the constants of the Databricks AutoPilot Pod Autoscaler (2026-06-10): decisions every
5 s, 20 s look-back up, about 5 min down, desired = ceil(current_requests / target_concurrency).
The statistic over the look-back is not published; there are two readings of it here. The slower
loop that retunes the target is published as rules without numbers and left out.
"""

from __future__ import annotations

import math

from policies.context import ScalingContext
from policies.decision import Reason, Step
from policies.peers.readings import load_of
from policies.proposal import held

UP_SECONDS = 20.0
DOWN_SECONDS = 300.0


def propose(context: ScalingContext) -> tuple[Step, ...]:
    """n' = max(up, min(n, down)), where up and down are what the two look-backs need.

    The knob is `targetConcurrency` (requests in flight a replica) or `targetQps` (requests/s a
    replica): utilization times the benchmarked value. Others: `upWindowSeconds` (20),
    `downWindowSeconds` (300), `minMax` (0: the mean over each look-back; 1: the least that the
    shorter one needed and the most that the longer one did, as an HPA stabilizes).
    """
    load = load_of(context)
    if load is None:
        return (held(context, "asymmetric_concurrency", "the load was not observed"),)
    up = load.within(context.settings.parameter("upWindowSeconds", UP_SECONDS))
    down = load.within(context.settings.parameter("downWindowSeconds", DOWN_SECONDS))
    if context.settings.parameter("minMax", 0.0):
        at_least, at_most = min(up), max(down)
    else:
        at_least, at_most = sum(up) / len(up), sum(down) / len(down)
    need_up, need_down = needed(at_least, load.target), needed(at_most, load.target)
    return (
        Step(
            "asymmetric_concurrency",
            combine(context.replicas.spec, need_up, need_down),
            Reason.OBSERVED_DEMAND,
            f"{at_least:,.0f} {load.kind} need {need_up}, {at_most:,.0f} over the longer window "
            f"need {need_down}",
        ),
    )


def needed(load: float, target: float) -> int:
    return math.ceil(load / target)


def combine(current: int, up: int, down: int) -> int:
    """Below `up` rise to it at once; above both fall to the larger of the two; else hold."""
    return max(up, min(current, down))
